//! Which rectified units each image of a batch makes active, noted while a forward pass runs.
//!
//! A unit is an element of a tensor that a ReLU has made; a tensor counts once, however many ops read it.

use std::sync::{Mutex, PoisonError};

use super::lower::Lowered;
use crate::kernels::{Element, codes};
use crate::network::OpKind;

/// Room for the codes of a batch; workers fill it in.
#[derive(Debug)]
pub(super) struct Recorder {
    /// First word of each op that rectifies.
    first: Vec<Option<usize>>,
    units: usize,
    images: Vec<Mutex<Vec<u64>>>,
}

impl Recorder {
    pub(super) fn new(lowered: &Lowered, images: usize) -> Self {
        let (mut words, mut units) = (0, 0);
        let first = lowered.network.ops.iter().zip(&lowered.marks).map(|(op, marks)| {
            (marks.relu || matches!(op.kind, OpKind::Relu)).then(|| {
                let (first, numel) = (words, op.shape.iter().product::<usize>());
                words += numel.div_ceil(codes::WORD);
                units += numel;
                first
            })
        });
        let first = first.collect();
        Self { first, units, images: (0..images).map(|_| Mutex::new(vec![0; words])).collect() }
    }

    /// Notes the output `[N, units of op]` of `op` for the images from `image` on.
    pub(super) fn note<T: Element>(&self, op: usize, image: usize, numel: usize, y: &[T]) {
        let Some(first) = self.first[op] else { return };
        for (y, code) in y.chunks_exact(numel).zip(&self.images[image..]) {
            let mut code = code.lock().unwrap_or_else(PoisonError::into_inner);
            codes::above_zero(y, &mut code[first..first + numel.div_ceil(codes::WORD)]);
        }
    }

    pub(super) fn codes(self) -> Codes {
        let code = |code: Mutex<Vec<u64>>| code.into_inner().unwrap_or_else(PoisonError::into_inner);
        Codes { units: self.units, images: self.images.into_iter().map(code).collect() }
    }
}

/// Activity of all rectified units of a network for each image of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Codes {
    units: usize,
    images: Vec<Vec<u64>>,
}

impl Codes {
    /// Rectified units for one image.
    pub fn units(&self) -> usize {
        self.units
    }

    /// Images of the batch.
    pub fn images(&self) -> usize {
        self.images.len()
    }

    /// Units that are active for both images or for neither.
    ///
    /// # Panics
    /// There is no such image.
    pub fn agreement(&self, a: usize, b: usize) -> usize {
        self.units - codes::differences(&self.images[a], &self.images[b]) as usize
    }
}
