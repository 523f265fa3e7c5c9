//! Checkpoints: safetensors with their config, and the reference's PyTorch files.
