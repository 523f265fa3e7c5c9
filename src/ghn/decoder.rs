//! Decoders: from final node states to tables of weights, and the tiles that cut parameters from them.
//!
//! In: networks, their graphs and node embeddings `[N, hid]`. Out: one vector with all tables, and one
//! [`Tile`] for every parameter. Source: arXiv 2110.13100, section 2.2 and appendix B.
//!
//! Only the used part of a table `[O, I, H, W]` is computed: nodes of all networks with equal kernel sizes share
//! the first two layers, nodes with equal channel counts the last. The result equals slicing the full table.

use super::config::Decoder;
use super::model::Ghn;
use super::requests::{Kernel, Requests, Vector};
use crate::Result;
use crate::kernels::decoding::{Slice, Slices, decode_slices};
use crate::kernels::tiling::Tile;
use candle_core::Tensor;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Tables one after the other.
struct Tables {
    parts: Vec<Tensor>,
    /// Where the next table starts.
    end: usize,
}

impl Tables {
    /// Appends a table in row-major order and returns the offset of its first element.
    fn push(&mut self, table: &Tensor) -> Result<usize> {
        let offset = self.end;
        self.parts.push(table.flatten_all()?);
        self.end += table.elem_count();
        Ok(offset)
    }
}

/// Decodes what a batch of networks asks for: all tables in one vector, and the tiles that read it.
pub(super) fn decode(ghn: &Ghn, embedding: &Tensor, requests: Requests) -> Result<(Tensor, Vec<Tile>)> {
    let Requests { kernels, vectors, mut tiles, .. } = requests;
    let conv = ghn.config.decoder == Decoder::Conv;
    // The convolutional decoder puts its blocks first.
    let blocks = kernels.iter().filter(|kernel| conv && !kernel.classifier);
    let end = blocks.map(|kernel| kernel.part.iter().product::<usize>()).sum();
    let mut tables = Tables { parts: Vec::new(), end };
    decode_vectors(ghn, embedding, &vectors, &mut tables, &mut tiles)?;
    let tables = match conv {
        _ if kernels.is_empty() => Tensor::cat(&tables.parts, 0)?,
        true => decode_conv(ghn, embedding, &kernels, tables, &mut tiles)?,
        false => decode_mlp(ghn, embedding, &kernels, tables, &mut tiles)?,
    };
    Ok((tables, tiles))
}

/// Rows `index` of `x [N, ...]`.
fn rows(x: &Tensor, index: impl Iterator<Item = usize>) -> Result<Tensor> {
    let index: Vec<u32> = index.map(|row| row as u32).collect();
    let count = index.len();
    if count == x.dim(0)? && index.iter().enumerate().all(|(row, &i)| row == i as usize) {
        return Ok(x.clone());
    }
    Ok(x.index_select(&Tensor::from_vec(index, count, x.device())?, 0)?)
}

/// Kernels in groups of equal `key`, in the order of the keys.
fn group<K: Ord>(kernels: &[Kernel], key: impl Fn(&Kernel) -> K) -> BTreeMap<K, Vec<usize>> {
    let mut groups: BTreeMap<K, Vec<usize>> = BTreeMap::new();
    for (index, kernel) in kernels.iter().enumerate() {
        groups.entry(key(kernel)).or_default().push(index);
    }
    groups
}

/// The head for one-dimensional parameters: hid -> 2 hid -> weights and biases, each as long as the table has
/// channels; a classifier's bias takes one more linear layer.
fn decode_vectors(
    ghn: &Ghn,
    embedding: &Tensor,
    vectors: &[Vector],
    tables: &mut Tables,
    tiles: &mut [Tile],
) -> Result<()> {
    if vectors.is_empty() {
        return Ok(());
    }
    let channels = ghn.config.max_channels();
    let hidden = ghn.linear("decoder_1d.fc.0", &rows(embedding, vectors.iter().map(|v| v.node))?)?.relu()?;
    let halves = ghn.linear("decoder_1d.fc.2", &hidden)?;
    let offset = tables.push(&halves)?;
    let classifiers: Vec<usize> = (0..vectors.len()).filter(|&row| vectors[row].classifier).collect();
    for (row, vector) in vectors.iter().enumerate() {
        let source = offset + row * 2 * channels;
        for (tile, half) in [(vector.weight, 0), (vector.bias, channels)] {
            if let Some(tile) = tile {
                tiles[tile].source = source + half;
            }
        }
    }
    if classifiers.is_empty() {
        return Ok(());
    }
    let biases = rows(&halves, classifiers.iter().copied())?.narrow(1, channels, channels)?.relu()?;
    let offset = tables.push(&ghn.linear("bias_class.1", &biases)?)?;
    for (position, &row) in classifiers.iter().enumerate() {
        if let Some(tile) = vectors[row].bias {
            tiles[tile].source = offset + position * ghn.config.num_classes;
        }
    }
    Ok(())
}

/// hid -> 4 hid at every used position -> 8 hid -> the used channels of the table. The result begins with the blocks of
/// all kernels but classifiers, then come the small tables.
fn decode_conv(
    ghn: &Ghn,
    embedding: &Tensor,
    kernels: &[Kernel],
    mut small: Tables,
    tiles: &mut [Tile],
) -> Result<Tensor> {
    let [o_max, i_max, h_max, w_max] = ghn.config.max_shape;
    let hid = ghn.config.hid;

    // Hidden layer: a row of 8 hid for each kernel and each of its positions.
    let (fc, fc_bias) = (ghn.tensor("decoder.fc.0.weight")?, ghn.tensor("decoder.fc.0.bias")?);
    let mut first_row = vec![0; kernels.len()];
    let mut hidden = Vec::new();
    let mut end = 0;
    for ([h, w], members) in group(kernels, |kernel| [kernel.part[2], kernel.part[3]]) {
        let positions = || (0..h).flat_map(|y| (0..w).map(move |x| y * w_max + x));
        let used = || positions().flat_map(|p| (0..4 * hid).map(move |c| c * h_max * w_max + p));
        let states = rows(embedding, members.iter().map(|&m| kernels[m].node))?;
        let map = states.matmul(&rows(fc, used())?.t()?)?.broadcast_add(&rows(fc_bias, used())?)?.relu()?;
        hidden.push(map.reshape((members.len() * h * w, 4 * hid))?);
        for &member in &members {
            first_row[member] = end;
            end += h * w;
        }
    }
    let hidden = ghn.linear("decoder.conv.0", &Tensor::cat(&hidden, 0)?)?.relu()?;

    // Last layer: kernels of equal channels side by side.
    let weight = ghn.tensor("decoder.conv.2.weight")?.reshape((o_max * i_max, 8 * hid))?;
    let bias = ghn.tensor("decoder.conv.2.bias")?;
    let positions = |member: usize| kernels[member].part[2] * kernels[member].part[3];
    let slices_of = |groups: &[([usize; 2], Vec<usize>)]| -> Result<(Tensor, Arc<Slices>)> {
        let (mut slices, mut used) = (Vec::with_capacity(groups.len()), Vec::new());
        for (channels, members) in groups {
            let start = used.len();
            members.iter().for_each(|&m| used.extend(first_row[m]..first_row[m] + positions(m)));
            slices.push(Slice { rows: start..used.len(), channels: *channels });
        }
        let slices = Slices::new(slices, [o_max, i_max], used.len())?;
        Ok((rows(&hidden, used.into_iter())?, Arc::new(slices)))
    };
    let mut groups: [Vec<([usize; 2], Vec<usize>)>; 2] = Default::default();
    for ((classifier, channels), members) in
        group(kernels, |kernel| (kernel.classifier, [kernel.part[0], kernel.part[1]]))
    {
        groups[usize::from(classifier)].push((channels, members));
    }
    let [groups, classifiers] = groups;

    // A classifier's table goes through a map over the out axis, for all of equal size side by side.
    for group in classifiers {
        let (hidden, slices) = slices_of(std::slice::from_ref(&group))?;
        let ([o, i], members) = group;
        let columns = i * members.len();
        let table = decode_slices([&hidden, &weight, bias], &slices, &[])?.relu()?.reshape((o, columns))?;
        let map =
            ghn.tensor("decoder.class_layer_predictor.1.weight")?.reshape((ghn.config.num_classes, o))?;
        let bias = ghn.tensor("decoder.class_layer_predictor.1.bias")?.unsqueeze(1)?;
        let offset = small.push(&map.matmul(&table)?.broadcast_add(&bias)?)?;
        for (position, &member) in members.iter().enumerate() {
            let tile = &mut tiles[kernels[member].tile];
            (tile.source, tile.strides) = (offset + position, [columns, members.len(), 1, 1]);
        }
    }

    if groups.is_empty() {
        return Ok(Tensor::cat(&small.parts, 0)?);
    }
    let (hidden, slices) = slices_of(&groups)?;
    for ((channels, members), &start) in groups.iter().zip(slices.offsets()) {
        let columns: usize = members.iter().map(|&member| positions(member)).sum();
        let mut offset = start;
        for &member in members {
            let tile = &mut tiles[kernels[member].tile];
            (tile.source, tile.strides) =
                (offset, [channels[1] * columns, columns, kernels[member].part[3], 1]);
            offset += positions(member);
        }
    }
    decode_slices([&hidden, &weight, bias], &slices, &small.parts)
}

/// hid -> 2 hid -> the used part of the table; classifiers branch off after the first layer.
fn decode_mlp(
    ghn: &Ghn,
    embedding: &Tensor,
    kernels: &[Kernel],
    mut tables: Tables,
    tiles: &mut [Tile],
) -> Result<Tensor> {
    let [_, i_max, h_max, w_max] = ghn.config.max_shape;
    let hidden = ghn.linear("decoder.mlp.fc.0", &rows(embedding, kernels.iter().map(|k| k.node))?)?.relu()?;
    let (last, last_bias) = (ghn.tensor("decoder.mlp.fc.2.weight")?, ghn.tensor("decoder.mlp.fc.2.bias")?);
    for ((classifier, part), members) in group(kernels, |kernel| (kernel.classifier, kernel.part)) {
        let states = rows(&hidden, members.iter().copied())?;
        let (table, strides) = if classifier {
            (ghn.linear("decoder.class_layer_predictor.1", &states)?, [i_max, 1, 1, 1])
        } else {
            let [o, i, h, w] = part;
            let used = || {
                (0..o * i * h * w).map(move |n| {
                    let (x, y, input, out) = (n % w, n / w % h, n / (w * h) % i, n / (w * h * i));
                    ((out * i_max + input) * h_max + y) * w_max + x
                })
            };
            let table = states.matmul(&rows(last, used())?.t()?)?.broadcast_add(&rows(last_bias, used())?)?;
            (table, [i * h * w, h * w, w, 1])
        };
        let offset = tables.push(&table)?;
        let length = table.dim(1)?;
        for (position, &member) in members.iter().enumerate() {
            let tile = &mut tiles[kernels[member].tile];
            (tile.source, tile.strides) = (offset + position * length, strides);
        }
    }
    Ok(Tensor::cat(&tables.parts, 0)?)
}
