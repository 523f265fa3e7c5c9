//! Running a network with given weights: a native CPU executor and a candle executor behind one trait.
//!
//! In: a [`Network`](crate::network::Network), its flat parameter vector and a batch of images `[N, 3, H, W]`.
//! Out: logits `[N, classes]`, or the loss and the gradient of the parameter vector.

mod allocator;
mod candle;
mod native;
mod precision;

use crate::Result;

pub use allocator::keep_freed_memory;
pub use candle::CandleExecutor;
pub use native::{Codes, NativeExecutor, Share, Workspace};
pub use precision::Precision;

/// Floating-point type that both executors support.
pub trait Real:
    num_traits::Float
    + Default
    + Send
    + Sync
    + std::fmt::Debug
    + std::fmt::Display
    + std::iter::Sum
    + std::ops::AddAssign
    + std::ops::MulAssign
    + std::ops::SubAssign
    + 'static
{
    /// From a constant.
    fn of(value: f64) -> Self;
    /// To double precision.
    fn to_f64(self) -> f64;
}

impl Real for f32 {
    fn of(value: f64) -> f32 {
        value as f32
    }

    fn to_f64(self) -> f64 {
        self as f64
    }
}

impl Real for f64 {
    fn of(value: f64) -> f64 {
        value
    }

    fn to_f64(self) -> f64 {
        self
    }
}

/// Whether dropout is active; norm layers use the statistics of the batch in both modes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Dropout is the identity.
    Evaluate,
    /// Dropout draws its masks from this seed.
    Train {
        /// Seed of the masks.
        dropout_seed: u64,
    },
    /// Gradients are wanted, dropout stays off (fixtures, gradient checks).
    TrainWithoutDropout,
}

/// Runs one network; made for a network and a largest batch, reused for many parameter vectors and batches.
pub trait Executor<T: Real> {
    /// Logits `[N, classes]` of images `[N, 3, H, W]` (row-major) with parameters `[n_params]`.
    fn logits(&mut self, params: &[T], images: &[T], mode: Mode) -> Result<Vec<T>>;

    /// Mean cross entropy over the batch; its gradient by `params` is *added* to `grad [n_params]`.
    fn loss_and_gradient(
        &mut self,
        params: &[T],
        images: &[T],
        labels: &[u8],
        mode: Mode,
        grad: &mut [T],
    ) -> Result<T>;
}
