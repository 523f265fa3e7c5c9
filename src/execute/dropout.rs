//! Dropout masks, the same for every executor and every number of threads.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Which of the `len` elements (images outermost, then channels, rows, columns) of the dropout op at index `op`
/// survive a probability `p` of being dropped; survivors are multiplied by `1 / (1 - p)`.
pub(super) fn survivors(seed: u64, op: usize, p: f32, len: usize) -> Vec<bool> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(op as u64);
    (0..len).map(|_| rng.random::<f32>() >= p).collect()
}

#[cfg(test)]
mod tests {
    use super::survivors;

    #[test]
    fn masks_depend_on_seed_and_op_and_drop_the_wanted_share() {
        let mask = survivors(1, 5, 0.3, 10_000);
        assert_eq!(mask, survivors(1, 5, 0.3, 10_000));
        assert_ne!(mask, survivors(2, 5, 0.3, 10_000));
        assert_ne!(mask, survivors(1, 6, 0.3, 10_000));
        let kept = mask.iter().filter(|&&keep| keep).count();
        assert!((6_800..7_200).contains(&kept), "{kept} of 10000 kept");
        assert!(survivors(1, 5, 0.0, 100).iter().all(|&keep| keep));
    }
}
