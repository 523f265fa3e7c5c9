//! Graph hypernetworks in candle: GHN-2, GHN-1 and the MLP baseline.
