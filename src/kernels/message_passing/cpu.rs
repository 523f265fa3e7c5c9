//! CPU kernels of message passing: node by node within a graph, graphs side by side. Sums over edges and over
//! graphs have a fixed order, so results do not depend on the thread count. Memory is linear in the nodes.

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::affine::{LANES, Maps, padded};
use super::edges::{Edges, GraphEdges};
use super::{Scalar, Weights};
use crate::graph::Neighbours;

/// What the backward pass needs: both sweeps of every graph.
pub(super) struct Saved<T>(Vec<[Sweep<T>; 2]>);

/// Rows of one sweep over one graph, `[nodes, padded(hid)]` unless said otherwise.
struct Sweep<T> {
    before: Vec<T>,
    message: Vec<T>,
    reset: Vec<T>,
    update: Vec<T>,
    new: Vec<T>,
    /// The state's part of the new gate, before the reset gate multiplies it.
    candidate: Vec<T>,
    after: Vec<T>,
    /// Per message function: hidden activations `[nodes, padded(hidden)]`.
    hidden: Vec<Vec<T>>,
    /// Per message function: what a node sends.
    sent: Vec<Vec<T>>,
}

/// Order of visits and the two ends of the edges of one sweep.
#[derive(Clone, Copy)]
struct Direction<'a> {
    reverse: bool,
    /// Per message function: the neighbours that a node hears.
    heard: &'a [Neighbours],
    /// The transposes: the neighbours that hear a node.
    hearers: &'a [Neighbours],
}

impl<'a> Direction<'a> {
    fn both(graph: &'a GraphEdges) -> [Direction<'a>; 2] {
        [
            Direction { reverse: false, heard: &graph.incoming, hearers: &graph.outgoing },
            Direction { reverse: true, heard: &graph.outgoing, hearers: &graph.incoming },
        ]
    }
}

/// States `[N, hid]` after both sweeps, and what they leave behind.
pub(super) fn forward<T: Scalar>(
    weights: &Weights,
    edges: &Edges,
    states: &[T],
    packed: &[T],
) -> (Vec<T>, Saved<T>) {
    let maps = Maps::unpack(weights, packed);
    let saved: Vec<[Sweep<T>; 2]> = edges
        .graphs
        .par_iter()
        .map(|graph| {
            let rows = &states[graph.first * weights.hid..(graph.first + graph.len) * weights.hid];
            let [first, second] = Direction::both(graph);
            let mut before = pad(rows, weights.hid);
            let first = Arch::new().dispatch(ForwardSweep { weights, maps: &maps, direction: first, before });
            before = first.after.clone();
            let second =
                Arch::new().dispatch(ForwardSweep { weights, maps: &maps, direction: second, before });
            [first, second]
        })
        .collect();
    let mut out = Vec::with_capacity(states.len());
    saved.iter().for_each(|[_, second]| unpad(&second.after, weights.hid, &mut out));
    (out, Saved(saved))
}

/// Gradients of the states `[N, hid]` and of the packed weights, one after the other.
pub(super) fn backward<T: Scalar>(
    weights: &Weights,
    edges: &Edges,
    saved: &Saved<T>,
    states: &[T],
    packed: &[T],
    grad: &[T],
) -> Vec<T> {
    let transposed = Maps::unpack(weights, packed).transposed();
    let parts: Vec<(Vec<T>, Maps<T>)> = edges
        .graphs
        .par_iter()
        .zip(&saved.0)
        .map(|(graph, sweeps)| {
            let rows = &grad[graph.first * weights.hid..(graph.first + graph.len) * weights.hid];
            let mut by_state = pad(rows, weights.hid);
            let mut by_weights = Maps::zeros(weights);
            for (direction, sweep) in Direction::both(graph).into_iter().zip(sweeps).rev() {
                let (maps, gradient) = (&transposed, &mut by_weights);
                by_state = Arch::new().dispatch(BackwardSweep {
                    weights,
                    maps,
                    direction,
                    sweep,
                    gradient,
                    by_state,
                });
            }
            (by_state, by_weights)
        })
        .collect();
    let mut gradients = Vec::with_capacity(states.len() + packed.len());
    let mut by_weights = Maps::zeros(weights);
    for (by_state, part) in &parts {
        unpad(by_state, weights.hid, &mut gradients);
        by_weights.add(part);
    }
    gradients.resize(states.len() + packed.len(), T::default());
    by_weights.pack(&mut gradients[states.len()..]);
    gradients
}

fn pad<T: Scalar>(rows: &[T], width: usize) -> Vec<T> {
    let mut wide = Vec::with_capacity(rows.len() / width * padded(width));
    for row in rows.chunks_exact(width) {
        wide.extend_from_slice(row);
        wide.resize(wide.len() + padded(width) - width, T::default());
    }
    wide
}

fn unpad<T: Scalar>(wide: &[T], width: usize, rows: &mut Vec<T>) {
    wide.chunks_exact(padded(width)).for_each(|row| rows.extend_from_slice(&row[..width]));
}

/// `1 / d` for every distance.
fn reciprocals<T: Scalar>() -> [T; 256] {
    std::array::from_fn(|d| T::one() / <T as candle_core::WithDType>::from_f64(d.max(1) as f64))
}

/// `sum += rows[u] / distance` over the neighbours of `v`.
#[inline(always)]
fn gather<T: Scalar>(neighbours: &Neighbours, v: usize, rows: &[T], reciprocals: &[T; 256], sum: &mut [T]) {
    let row = neighbours.start[v] as usize..neighbours.start[v + 1] as usize;
    let (nodes, distances) = (&neighbours.node[row.clone()], &neighbours.distance[row]);
    let panels = sum.len() / LANES;
    let rows = rows.as_chunks::<LANES>().0;
    for (panel, sum) in sum.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
        let mut sums = *sum;
        for (&u, &distance) in nodes.iter().zip(distances) {
            let factor = reciprocals[distance as usize];
            let values = &rows[u as usize * panels + panel];
            for lane in 0..LANES {
                sums[lane] += factor * values[lane];
            }
        }
        *sum = sums;
    }
}

fn has_neighbours(neighbours: &Neighbours, v: usize) -> bool {
    neighbours.start[v] < neighbours.start[v + 1]
}

struct ForwardSweep<'a, T> {
    weights: &'a Weights,
    maps: &'a Maps<T>,
    direction: Direction<'a>,
    before: Vec<T>,
}

impl<T: Scalar> WithSimd for ForwardSweep<'_, T> {
    type Output = Sweep<T>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> Sweep<T> {
        let (h, k) = (padded(self.weights.hid), padded(self.weights.hidden));
        let n = self.before.len() / h.max(1);
        let rows = |width: usize| vec![T::default(); n * width];
        let functions = self.maps.messages.len();
        let mut s = Sweep {
            before: self.before,
            message: rows(h),
            reset: rows(h),
            update: rows(h),
            new: rows(h),
            candidate: rows(h),
            after: rows(h),
            hidden: vec![rows(k); functions],
            sent: vec![rows(h); functions],
        };
        let reciprocals = reciprocals::<T>();
        let (zero, one) = (T::default(), T::one());
        let sigmoid = |x: T| one / (one + (-x).exp());
        for step in 0..n {
            let v = if self.direction.reverse { n - 1 - step } else { step };
            let row = v * h..(v + 1) * h;
            let message = &mut s.message[row.clone()];
            for (heard, sent) in self.direction.heard.iter().zip(&s.sent) {
                gather(heard, v, sent, &reciprocals, message);
            }
            let state = &s.before[row.clone()];
            let [reset, update, new] =
                [&mut s.reset, &mut s.update, &mut s.new].map(|rows| &mut rows[row.clone()]);
            let candidate = &mut s.candidate[row.clone()];
            for (gate, out) in [&mut *reset, &mut *update].into_iter().enumerate() {
                self.maps.input[gate].apply(message, out);
                self.maps.state[gate].apply(state, candidate);
                out.iter_mut().zip(&*candidate).for_each(|(out, &c)| *out = sigmoid(*out + c));
            }
            self.maps.input[2].apply(message, new);
            self.maps.state[2].apply(state, candidate);
            let after = &mut s.after[row.clone()];
            for i in 0..h {
                new[i] = (new[i] + reset[i] * candidate[i]).tanh();
                after[i] = (one - update[i]) * new[i] + update[i] * state[i];
            }
            for (f, layers) in self.maps.messages.iter().enumerate() {
                if !has_neighbours(&self.direction.hearers[f], v) {
                    continue;
                }
                let hidden = &mut s.hidden[f][v * k..(v + 1) * k];
                layers[0].apply(after, hidden);
                hidden.iter_mut().for_each(|a| *a = if *a < zero { zero } else { *a });
                let sent = &mut s.sent[f][row.clone()];
                layers[1].apply(hidden, sent);
                sent.iter_mut().for_each(|a| *a = if *a < zero { zero } else { *a });
            }
        }
        s
    }
}

struct BackwardSweep<'a, T> {
    weights: &'a Weights,
    /// Transposed.
    maps: &'a Maps<T>,
    direction: Direction<'a>,
    sweep: &'a Sweep<T>,
    gradient: &'a mut Maps<T>,
    /// Gradient of the states after the sweep.
    by_state: Vec<T>,
}

impl<T: Scalar> WithSimd for BackwardSweep<'_, T> {
    /// Gradient of the states before the sweep.
    type Output = Vec<T>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> Vec<T> {
        let (h, k) = (padded(self.weights.hid), padded(self.weights.hidden));
        let s = self.sweep;
        let n = s.before.len() / h.max(1);
        let mut by_state = self.by_state;
        let mut by_message = vec![T::default(); n * h];
        let reciprocals = reciprocals::<T>();
        let (zero, one) = (T::default(), T::one());
        let mut sent = vec![zero; h];
        let mut hidden = vec![zero; k];
        let mut gates = [vec![zero; h], vec![zero; h], vec![zero; h]];
        let mut candidate = vec![zero; h];
        for step in 0..n {
            let v = if self.direction.reverse { step } else { n - 1 - step };
            let row = v * h..(v + 1) * h;
            let dh = &mut by_state[row.clone()];
            for (f, layers) in self.maps.messages.iter().enumerate() {
                if !has_neighbours(&self.direction.hearers[f], v) {
                    continue;
                }
                sent.fill(zero);
                gather(&self.direction.hearers[f], v, &by_message, &reciprocals, &mut sent);
                mask(&mut sent, &s.sent[f][row.clone()]);
                let active = &s.hidden[f][v * k..(v + 1) * k];
                hidden.fill(zero);
                layers[1].add_to(&sent, &mut hidden);
                mask(&mut hidden, active);
                layers[0].add_to(&hidden, dh);
                self.gradient.messages[f][1].add_outer(active, &sent);
                self.gradient.messages[f][0].add_outer(&s.after[row.clone()], &hidden);
            }
            let [before, message, reset, update, new, state_part] =
                [&s.before, &s.message, &s.reset, &s.update, &s.new, &s.candidate]
                    .map(|rows| &rows[row.clone()]);
            for i in 0..h {
                let d_new = dh[i] * (one - update[i]) * (one - new[i] * new[i]);
                gates[0][i] = d_new * state_part[i] * reset[i] * (one - reset[i]);
                gates[1][i] = dh[i] * (before[i] - new[i]) * update[i] * (one - update[i]);
                gates[2][i] = d_new;
                candidate[i] = d_new * reset[i];
                dh[i] *= update[i];
            }
            for (g, gate) in gates.iter().enumerate() {
                let from_state = if g == 2 { &candidate } else { gate };
                self.maps.input[g].add_to(gate, &mut by_message[row.clone()]);
                self.maps.state[g].add_to(from_state, dh);
                self.gradient.input[g].add_outer(message, gate);
                self.gradient.state[g].add_outer(before, from_state);
            }
        }
        by_state
    }
}

/// Gradient through a ReLU with this result.
#[inline(always)]
fn mask<T: Scalar>(grad: &mut [T], result: &[T]) {
    grad.iter_mut().zip(result).for_each(|(g, &r)| *g = if r > T::default() { *g } else { T::default() });
}
