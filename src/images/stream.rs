//! Random streams: one of its own for every (seed, purpose, two numbers), so that a draw never depends on how
//! many others were made before it or on which thread made them.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// What a stream is for; two purposes never share numbers.
#[derive(Clone, Copy)]
pub(super) enum Purpose {
    /// Order of the training images of an epoch.
    Shuffle = 1,
    /// Crop and flip of one image in one epoch.
    Augment = 2,
    /// Pixel noise of one image.
    Noise = 3,
    /// Order of the files of an image folder.
    FolderOrder = 4,
    /// Place of the square that is cut out of one image in one epoch.
    Cutout = 5,
    /// Which images of a class a low-shot set keeps.
    FewShot = 6,
}

/// The stream of `(seed, purpose, a, b)`: the four numbers are the cipher's key.
pub(super) fn stream(seed: u64, purpose: Purpose, a: u64, b: u64) -> ChaCha8Rng {
    let mut key = [0u8; 32];
    for (chunk, number) in key.chunks_exact_mut(8).zip([seed, purpose as u64, a, b]) {
        chunk.copy_from_slice(&number.to_le_bytes());
    }
    ChaCha8Rng::from_seed(key)
}
