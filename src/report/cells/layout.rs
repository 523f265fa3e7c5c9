//! Places of a cell's states: layers by longest path, order by barycentre, heights by relaxation.
//!
//! In: the edges of a cell and the states of its concatenation. Out: boxes with coordinates, and the links between
//! them. The method is that of Sugiyama, Tagawa and Toda, "Methods for Visual Understanding of Hierarchical System
//! Structures", IEEE Trans. SMC 1981, doi:10.1109/TSMC.1981.4308636, with one difference: all links that leave a
//! state and pass a layer share one lane through it.

use crate::space::{Edge, Op};
use std::collections::BTreeMap;

/// Width and height of a state's box.
pub(super) const BOX: (f64, f64) = (44.0, 30.0);
/// Width and height of an operation's label.
pub(super) const LABEL: (f64, f64) = (102.0, 22.0);
/// Between a label and its state: room for an arrowhead.
pub(super) const ARROW: f64 = 16.0;
/// Between the two labels of a state.
const LABEL_GAP: f64 = 8.0;
/// Between layers: room for curves.
const LAYER_GAP: f64 = 42.0;
/// Between the boxes of a layer.
const BOX_GAP: f64 = 16.0;
const MARGIN: f64 = 12.0;
/// Sweeps of ordering and of relaxation; cells settle in a few.
const SWEEPS: usize = 12;

/// What a box stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// A state of the cell: 0 and 1 are its inputs.
    State(usize),
    /// The concatenation.
    Output,
    /// A bend of links that pass a layer.
    Lane,
}

/// A box with its place; `x` is its left side, `y` its middle.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) role: Role,
    layer: usize,
    pub(super) x: f64,
    pub(super) y: f64,
    height: f64,
}

/// One piece of a link, from the right side of a box to the left side of another.
#[derive(Clone, Copy, Debug)]
pub(super) struct Link {
    pub(super) from: usize,
    pub(super) to: usize,
    /// The operation, where the link ends at a state.
    pub(super) op: Option<Op>,
    /// Offset from the middle of the box where it ends.
    pub(super) dy: f64,
}

/// A laid out cell.
pub(super) struct Layout {
    pub(super) places: Vec<Place>,
    pub(super) links: Vec<Link>,
    pub(super) size: (f64, f64),
}

impl Place {
    pub(super) fn height(&self) -> f64 {
        self.height
    }

    /// Width of what stands at this place, the labels before a state included.
    pub(super) fn width(&self) -> f64 {
        match self.role {
            Role::State(0 | 1) | Role::Output => BOX.0,
            Role::State(_) | Role::Lane => LABEL.0 + ARROW + BOX.0,
        }
    }
}

impl Layout {
    /// Lays out a cell; edges that read a state which does not exist yet are left out.
    pub(super) fn new(edges: &[Edge], concat: &[usize]) -> Layout {
        let mut layout = Layout::unplaced(edges, concat);
        let mut layers = layout.layers();
        layout.order(&mut layers);
        layout.space(&layers);
        layout.ports();
        layout
    }

    fn unplaced(edges: &[Edge], concat: &[usize]) -> Layout {
        let steps = edges.len().div_ceil(2);
        let mut layer = vec![0; 2];
        for step in 0..steps {
            let inputs = edges.iter().skip(2 * step).take(2).map(|edge| edge.1);
            let deepest = inputs.filter(|&input| input < 2 + step).map(|input| layer[input]).max();
            layer.push(deepest.unwrap_or(0) + 1);
        }
        let last = layer.iter().max().map_or(1, |deepest| deepest + 1);
        let place = |role, layer, height| Place { role, layer, x: 0.0, y: 0.0, height };
        let two_labels = 2.0 * LABEL.1 + LABEL_GAP;
        let mut places: Vec<Place> = (0..2 + steps)
            .map(|state| place(Role::State(state), layer[state], if state < 2 { BOX.1 } else { two_labels }))
            .collect();
        let output = places.len();
        places.push(place(Role::Output, last, BOX.1.max(10.0 * concat.len() as f64)));
        // The furthest layer that each state is read in, then lanes up to it.
        let mut wanted: Vec<(usize, usize, Option<Op>)> = Vec::new();
        for (index, &Edge(op, input)) in edges.iter().enumerate() {
            let target = 2 + index / 2;
            if input < target {
                wanted.push((input, target, Some(op)));
            }
        }
        wanted.extend(concat.iter().filter(|&&state| state < output).map(|&state| (state, output, None)));
        let mut lanes: BTreeMap<(usize, usize), usize> = BTreeMap::new();
        let mut links = Vec::new();
        for &(source, target, op) in &wanted {
            let mut from = source;
            for passed in places[source].layer + 1..places[target].layer {
                from = *lanes.entry((source, passed)).or_insert_with(|| {
                    places.push(place(Role::Lane, passed, LABEL.1));
                    links.push(Link { from, to: places.len() - 1, op: None, dy: 0.0 });
                    places.len() - 1
                });
            }
            links.push(Link { from, to: target, op, dy: 0.0 });
        }
        Layout { places, links, size: (0.0, 0.0) }
    }

    fn layers(&self) -> Vec<Vec<usize>> {
        let count = self.places.iter().map(|place| place.layer + 1).max().unwrap_or(0);
        let mut layers = vec![Vec::new(); count];
        for (index, place) in self.places.iter().enumerate() {
            layers[place.layer].push(index);
        }
        layers
    }

    /// The boxes that `index` is linked with, in the layer before it or behind it.
    fn neighbours(&self, index: usize, before: bool) -> impl Iterator<Item = usize> + '_ {
        self.links.iter().filter_map(move |link| match before {
            true => (link.to == index).then_some(link.from),
            false => (link.from == index).then_some(link.to),
        })
    }

    /// Orders each layer by the mean position of its neighbours and keeps the order with the fewest crossings.
    fn order(&self, layers: &mut Vec<Vec<usize>>) {
        let mut best = (self.crossings(layers), layers.clone());
        for sweep in 0..SWEEPS {
            let before = sweep % 2 == 0;
            let count = layers.len();
            for step in 1..count {
                let at = if before { step } else { count - 1 - step };
                let beside = &layers[if before { at - 1 } else { at + 1 }];
                let position = |index| beside.iter().position(|&other| other == index).unwrap_or(0) as f64;
                let mut keyed: Vec<(f64, usize)> = layers[at]
                    .iter()
                    .enumerate()
                    .map(|(own, &index)| {
                        (mean(self.neighbours(index, before).map(position)).unwrap_or(own as f64), index)
                    })
                    .collect();
                keyed.sort_by(|a, b| a.0.total_cmp(&b.0));
                layers[at] = keyed.into_iter().map(|(_, index)| index).collect();
            }
            let crossings = self.crossings(layers);
            if crossings < best.0 {
                best = (crossings, layers.clone());
            }
        }
        *layers = best.1;
    }

    fn crossings(&self, layers: &[Vec<usize>]) -> usize {
        let mut rank = vec![0; self.places.len()];
        for layer in layers {
            for (position, &index) in layer.iter().enumerate() {
                rank[index] = position;
            }
        }
        let ends = |link: &Link| (self.places[link.from].layer, rank[link.from], rank[link.to]);
        let crosses = |a: &Link, b: &Link| {
            let ((la, fa, ta), (lb, fb, tb)) = (ends(a), ends(b));
            la == lb && ((fa < fb && ta > tb) || (fa > fb && ta < tb))
        };
        let pairs = self.links.iter().enumerate();
        pairs.map(|(i, a)| self.links[i + 1..].iter().filter(|b| crosses(a, b)).count()).sum()
    }

    /// Gives every box its coordinates: columns by layer, heights near the neighbours' without overlap.
    fn space(&mut self, layers: &[Vec<usize>]) {
        let mut x = MARGIN;
        for layer in layers {
            let mut y = 0.0;
            for &index in layer {
                self.places[index].x = x;
                y += self.places[index].height / 2.0;
                self.places[index].y = y;
                y += self.places[index].height / 2.0 + BOX_GAP;
            }
            x += layer.iter().map(|&index| self.places[index].width()).fold(0.0, f64::max) + LAYER_GAP;
        }
        for sweep in 0..SWEEPS {
            let before = sweep % 2 == 0;
            for step in 0..layers.len() {
                let layer = &layers[if before { step } else { layers.len() - 1 - step }];
                self.relax(layer, before);
            }
        }
        let top = self.places.iter().map(|place| place.y - place.height / 2.0).fold(f64::INFINITY, f64::min);
        for place in &mut self.places {
            place.y += MARGIN - top;
        }
        let bottom = self.places.iter().map(|place| place.y + place.height / 2.0).fold(0.0, f64::max);
        self.size = (x - LAYER_GAP + MARGIN, bottom + MARGIN);
    }

    /// Moves the boxes of a layer towards their neighbours; those too close are pushed apart about their mean.
    fn relax(&mut self, layer: &[usize], before: bool) {
        let wanted: Vec<f64> = layer
            .iter()
            .map(|&index| {
                let ys = self.neighbours(index, before).map(|other| self.places[other].y);
                mean(ys).unwrap_or(self.places[index].y)
            })
            .collect();
        let mut ys: Vec<f64> = Vec::with_capacity(layer.len());
        for (position, &index) in layer.iter().enumerate() {
            let floor = position.checked_sub(1).map_or(f64::NEG_INFINITY, |last| {
                ys[last] + (self.places[layer[last]].height + self.places[index].height) / 2.0 + BOX_GAP
            });
            ys.push(wanted[position].max(floor));
        }
        let pushed = mean(ys.iter().copied()).unwrap_or(0.0) - mean(wanted.iter().copied()).unwrap_or(0.0);
        for (&index, y) in layer.iter().zip(ys) {
            self.places[index].y = y - pushed;
        }
    }

    /// Spreads the links that end at one box over its height, in the order of where they come from.
    fn ports(&mut self) {
        for target in 0..self.places.len() {
            let mut ending: Vec<usize> =
                (0..self.links.len()).filter(|&link| self.links[link].to == target).collect();
            ending.sort_by(|&a, &b| {
                self.places[self.links[a].from].y.total_cmp(&self.places[self.links[b].from].y)
            });
            let pitch = match self.places[target].role {
                Role::State(_) => LABEL.1 + LABEL_GAP,
                Role::Output | Role::Lane => 10.0,
            };
            let middle = (ending.len() as f64 - 1.0) / 2.0;
            for (port, link) in ending.into_iter().enumerate() {
                self.links[link].dy = (port as f64 - middle) * pitch;
            }
        }
    }

    /// For each box, whether what it holds reaches the concatenation.
    pub(super) fn alive(&self) -> Vec<bool> {
        let mut alive: Vec<bool> = self.places.iter().map(|place| place.role == Role::Output).collect();
        // Links run from left to right, so as many passes as there are boxes suffice.
        for _ in 0..self.places.len() {
            for link in &self.links {
                alive[link.from] |= alive[link.to] && link.op != Some(Op::None);
            }
        }
        alive
    }
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.fold((0.0, 0.0), |(sum, count), value| (sum + value, count + 1.0));
    (count > 0.0).then_some(sum / count)
}
