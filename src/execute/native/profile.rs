//! Where an executor's time goes: one clock per op and direction, and one for what runs between stages.
//!
//! In: spans of time from any thread. Out: milliseconds by kind of op, summed over threads.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::layer::Layer;
use crate::network::{Network, OpKind};

/// Time of the ops of one kind since measuring began.
#[derive(Clone, Debug, PartialEq)]
pub struct Share {
    /// Kind of op, convolutions with their geometry.
    pub kind: String,
    /// Milliseconds of outputs and of statistics, summed over threads.
    pub forward_ms: f64,
    /// Milliseconds of gradients, summed over threads.
    pub backward_ms: f64,
    /// Multiply-accumulates of these ops' outputs for one image.
    pub macs: u64,
    /// Elements of these ops' outputs for one image.
    pub elements: u64,
}

/// What a span of time is booked on.
#[derive(Clone, Copy, Debug)]
pub(super) enum Account {
    Forward(usize),
    Backward(usize),
    Packing,
    Joining,
}

/// Nanoseconds of each account.
#[derive(Debug)]
pub(super) struct Profile {
    forward: Vec<AtomicU64>,
    backward: Vec<AtomicU64>,
    packing: AtomicU64,
    joining: AtomicU64,
}

impl Profile {
    pub(super) fn new(ops: usize) -> Self {
        let clocks = || (0..ops).map(|_| AtomicU64::new(0)).collect();
        Self { forward: clocks(), backward: clocks(), packing: AtomicU64::new(0), joining: AtomicU64::new(0) }
    }

    fn book(&self, account: Account, nanoseconds: u64) {
        let clock = match account {
            Account::Forward(op) => &self.forward[op],
            Account::Backward(op) => &self.backward[op],
            Account::Packing => &self.packing,
            Account::Joining => &self.joining,
        };
        clock.fetch_add(nanoseconds, Ordering::Relaxed);
    }

    /// By falling time.
    pub(super) fn shares(&self, network: &Network, layers: &[Layer]) -> Vec<Share> {
        let ms = |clock: &AtomicU64| clock.load(Ordering::Relaxed) as f64 / 1e6;
        let none =
            |kind: &str| Share { kind: kind.into(), forward_ms: 0.0, backward_ms: 0.0, macs: 0, elements: 0 };
        let mut kinds: BTreeMap<String, Share> = BTreeMap::new();
        for (op, layer) in layers.iter().enumerate() {
            let kind = kind(&network.ops[op].kind, layer);
            let share = kinds.entry(kind).or_insert_with_key(|kind| none(kind));
            share.forward_ms += ms(&self.forward[op]);
            share.backward_ms += ms(&self.backward[op]);
            share.macs += network.macs_of(op);
            share.elements += network.ops[op].shape.iter().product::<usize>() as u64;
        }
        let mut shares: Vec<Share> = kinds.into_values().collect();
        shares.push(Share { forward_ms: ms(&self.packing), ..none("packing of weights") });
        shares.push(Share { backward_ms: ms(&self.joining), ..none("sums between stages") });
        shares.retain(|share| share.forward_ms + share.backward_ms > 0.0);
        shares.sort_by(|a, b| (b.forward_ms + b.backward_ms).total_cmp(&(a.forward_ms + a.backward_ms)));
        shares
    }
}

/// Runs `work` and books its time, if anybody measures.
pub(super) fn timed<R>(profile: Option<&Profile>, account: Account, work: impl FnOnce() -> R) -> R {
    let Some(profile) = profile else { return work() };
    let started = Instant::now();
    let result = work();
    profile.book(account, started.elapsed().as_nanos() as u64);
    result
}

fn kind(kind: &OpKind, layer: &Layer) -> String {
    if let (OpKind::Conv { stride, dilation, .. }, Layer::Convolution(convolution)) = (kind, layer) {
        let [_, _, height, width] = convolution.shape;
        let form = if convolution.depthwise { "depthwise" } else { "dense" };
        let steps = stride[0].max(stride[1]);
        return format!("{form} {height}x{width} stride {steps} dilation {dilation}");
    }
    let text = format!("{kind:?}");
    let end = text.find([' ', '{']).unwrap_or(text.len());
    text[..end].to_string()
}
