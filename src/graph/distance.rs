//! Shortest directed distances between nodes, the virtual edges of arXiv 2110.13100 (equation 4).

use super::node::Neighbours;

/// Longest virtual edge.
pub const MAX_DISTANCE: u8 = 50;

/// Distances up to [`MAX_DISTANCE`] as incoming and outgoing neighbours, from direct predecessors in topological
/// order.
///
/// The distances from a node are the smallest of its successors' plus one, so rows are made from the last node to
/// the first, each by element-wise minima over bytes.
pub(super) fn shortest_distances(predecessors: &[Vec<usize>]) -> (Neighbours, Neighbours) {
    const FAR: u8 = u8::MAX;
    let n = predecessors.len();
    let mut successors = vec![Vec::new(); n];
    for (v, row) in predecessors.iter().enumerate() {
        row.iter().for_each(|&p| successors[p].push(v));
    }

    let mut distance = vec![FAR; n * n];
    let (mut out_start, mut in_count) = (vec![0u32; n + 1], vec![0u32; n + 1]);
    for s in (0..n).rev() {
        let (head, tail) = distance.split_at_mut((s + 1) * n);
        let row = &mut head[s * n..];
        for &next in &successors[s] {
            // Row `next` reaches only nodes from `next` on.
            let from = &tail[(next - s - 1) * n..(next - s) * n];
            for (mine, theirs) in row[next..].iter_mut().zip(&from[next..]) {
                *mine = (*mine).min(theirs.saturating_add(1));
            }
        }
        // Anything longer stays out of reach for those before, too.
        for (v, mine) in row.iter_mut().enumerate().skip(s + 1) {
            if *mine > MAX_DISTANCE {
                *mine = FAR;
            } else {
                out_start[s + 1] += 1;
                in_count[v + 1] += 1;
            }
        }
        row[s] = 0;
    }

    for v in 0..n {
        out_start[v + 1] += out_start[v];
        in_count[v + 1] += in_count[v];
    }
    let edges = out_start[n] as usize;
    let mut outgoing = Neighbours { start: out_start, node: vec![0; edges], distance: vec![0; edges] };
    let mut incoming = Neighbours { start: in_count.clone(), node: vec![0; edges], distance: vec![0; edges] };
    let (mut next_out, mut next_in) = (0, in_count);
    for s in 0..n {
        for (v, &d) in distance[s * n..(s + 1) * n].iter().enumerate().skip(s + 1) {
            if d != FAR {
                (outgoing.node[next_out], outgoing.distance[next_out]) = (v as u32, d);
                next_out += 1;
                let slot = next_in[v] as usize;
                (incoming.node[slot], incoming.distance[slot]) = (s as u32, d);
                next_in[v] += 1;
            }
        }
    }
    (incoming, outgoing)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Random graphs in topological order: for each node the nodes before it that feed it.
    pub(in crate::graph) fn graphs() -> impl Strategy<Value = Vec<Vec<usize>>> {
        prop::collection::vec(prop::collection::vec(any::<prop::sample::Index>(), 0..3), 1..90).prop_map(
            |rows| {
                let row = |(v, row): (usize, Vec<prop::sample::Index>)| {
                    // Mostly near nodes, so that distances grow beyond the cut-off.
                    let mut row: Vec<usize> = if v == 0 {
                        Vec::new()
                    } else {
                        row.iter().map(|index| v - 1 - index.index(v.min(2))).collect()
                    };
                    row.sort_unstable();
                    row.dedup();
                    row
                };
                rows.into_iter().enumerate().map(row).collect()
            },
        )
    }

    proptest! {
        #[test]
        fn distances_equal_relaxation(predecessors in graphs()) {
            let n = predecessors.len();
            let mut expected = vec![vec![usize::MAX; n]; n];
            for (v, row) in predecessors.iter().enumerate() {
                expected[v][v] = 0;
                for s in 0..v {
                    expected[s][v] = row.iter().map(|&p| expected[s][p].saturating_add(1)).min().unwrap_or(usize::MAX);
                }
            }
            let (incoming, outgoing) = shortest_distances(&predecessors);
            for s in 0..n {
                let row: Vec<_> = outgoing.of(s).collect();
                let wanted: Vec<_> =
                    (0..n).filter(|&v| v != s && expected[s][v] <= 50).map(|v| (v, expected[s][v] as u8)).collect();
                prop_assert_eq!(row, wanted);
                let row: Vec<_> = incoming.of(s).collect();
                let wanted: Vec<_> =
                    (0..n).filter(|&v| v != s && expected[v][s] <= 50).map(|v| (v, expected[v][s] as u8)).collect();
                prop_assert_eq!(row, wanted);
            }
        }
    }

    #[test]
    fn a_long_chain_is_cut_at_fifty() {
        let chain: Vec<Vec<usize>> = (0..120usize).map(|v| v.checked_sub(1).into_iter().collect()).collect();
        let (incoming, outgoing) = shortest_distances(&chain);
        assert_eq!(outgoing.of(0).last(), Some((50, 50)));
        assert_eq!(incoming.of(119).next(), Some((69, 50)));
        assert_eq!(outgoing.of(119).count(), 0);
    }
}
