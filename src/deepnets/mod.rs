//! DeepNets-1M: the generator of every split and predefined networks.
