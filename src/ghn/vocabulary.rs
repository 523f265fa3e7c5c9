//! Shape vocabularies: the sizes that have an embedding of their own, and the row that any size is read from.
//!
//! In: a node's shape. Out: four rows, out channels, in channels, height and width (arXiv 2110.13100, appendix B).

use super::config::GhnConfig;

/// Sorted sizes for channels and for kernels; the row after the last stands for "no shape".
#[derive(Clone, Debug)]
pub struct Vocabulary {
    channels: Vec<usize>,
    spatial: Vec<usize>,
}

impl Vocabulary {
    /// The vocabularies of a hypernetwork.
    pub fn new(config: &GhnConfig) -> Vocabulary {
        let mut channels: Vec<usize> = [1, 3, config.num_classes]
            .into_iter()
            .chain((8..64).step_by(8))
            .chain((64..4096).step_by(16))
            .chain((4096..=8192).step_by(32))
            .collect();
        channels.sort_unstable();
        channels.dedup();
        let largest = config.max_shape[2].max(config.max_shape[3]).max(12);
        let mut spatial: Vec<usize> = (1..largest).step_by(2).chain([14, 16]).collect();
        spatial.sort_unstable();
        spatial.dedup();
        Vocabulary { channels, spatial }
    }

    /// Rows of the channel embedding.
    pub fn channel_rows(&self) -> usize {
        self.channels.len() + 1
    }

    /// Rows of the spatial embedding.
    pub fn spatial_rows(&self) -> usize {
        self.spatial.len() + 1
    }

    /// Rows of out channels, in channels, height and width for a node of this shape.
    pub fn rows(&self, shape: Option<&[usize]>) -> [u32; 4] {
        let Some(shape) = shape else {
            let (channel, spatial) = (self.channels.len() as u32, self.spatial.len() as u32);
            return [channel, channel, spatial, spatial];
        };
        let size = |axis: usize| shape.get(axis).copied().unwrap_or(1);
        let channel = |n: usize| nearest(&self.channels, if (4..8).contains(&n) { 8 } else { n });
        let spatial = |n: usize| nearest(&self.spatial, if n == 2 { 3 } else { n });
        [channel(size(0)), channel(size(1)), spatial(size(2)), spatial(size(3))]
    }
}

/// Index of the entry nearest to `n` in a sorted list; the smaller of two equally near ones.
fn nearest(sorted: &[usize], n: usize) -> u32 {
    let above = sorted.partition_point(|&entry| entry < n);
    if above == 0 {
        return 0;
    }
    if above == sorted.len() || n - sorted[above - 1] <= sorted[above] - n {
        above as u32 - 1
    } else {
        above as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes(shape: &[usize]) -> [usize; 4] {
        let vocabulary = Vocabulary::new(&GhnConfig::ghn2(10));
        let [o, i, h, w] = vocabulary.rows(Some(shape));
        [
            vocabulary.channels[o as usize],
            vocabulary.channels[i as usize],
            vocabulary.spatial[h as usize],
            vocabulary.spatial[w as usize],
        ]
    }

    #[test]
    fn sizes_take_the_nearest_entry() {
        assert_eq!(sizes(&[64, 3, 7, 7]), [64, 3, 7, 7]);
        assert_eq!(sizes(&[5]), [8, 1, 1, 1]);
        assert_eq!(sizes(&[2, 9]), [1, 8, 1, 1]);
        assert_eq!(sizes(&[12, 72, 2, 12]), [10, 64, 3, 11]);
        assert_eq!(sizes(&[10_000, 4100, 13, 40]), [8192, 4096, 14, 16]);
    }

    #[test]
    fn tables_have_the_reference_sizes() {
        let vocabulary = Vocabulary::new(&GhnConfig::ghn2(10));
        assert_eq!((vocabulary.channel_rows(), vocabulary.spatial_rows()), (392, 9));
        let imagenet = GhnConfig { max_shape: [16, 16, 16, 16], ..GhnConfig::ghn2(1000) };
        let vocabulary = Vocabulary::new(&imagenet);
        assert_eq!((vocabulary.channel_rows(), vocabulary.spatial_rows()), (392, 11));
        assert_eq!(vocabulary.rows(None), [391, 391, 10, 10]);
    }
}
