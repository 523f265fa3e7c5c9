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
use crate::kernels::tiling::Tile;
use candle_core::Tensor;
use std::collections::BTreeMap;

/// All tables of a batch, one after the other.
#[derive(Default)]
struct Tables {
    parts: Vec<Tensor>,
    len: usize,
}

impl Tables {
    /// Appends a table in row-major order and returns the offset of its first element.
    fn push(&mut self, table: &Tensor) -> Result<usize> {
        let offset = self.len;
        self.parts.push(table.flatten_all()?);
        self.len += table.elem_count();
        Ok(offset)
    }
}

/// Decodes what a batch of networks asks for: all tables in one vector, and the tiles that read it.
pub(super) fn decode(ghn: &Ghn, embedding: &Tensor, requests: Requests) -> Result<(Tensor, Vec<Tile>)> {
    let mut tables = Tables::default();
    let mut tiles = requests.tiles;
    decode_vectors(ghn, embedding, &requests.vectors, &mut tables, &mut tiles)?;
    if !requests.kernels.is_empty() {
        match ghn.config.decoder {
            Decoder::Conv => decode_conv(ghn, embedding, &requests.kernels, &mut tables, &mut tiles)?,
            Decoder::Mlp => decode_mlp(ghn, embedding, &requests.kernels, &mut tables, &mut tiles)?,
        }
    }
    Ok((Tensor::cat(&tables.parts, 0)?, tiles))
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

/// hid -> 4 hid at every used position -> 8 hid -> the used channels of the table.
fn decode_conv(
    ghn: &Ghn,
    embedding: &Tensor,
    kernels: &[Kernel],
    tables: &mut Tables,
    tiles: &mut [Tile],
) -> Result<()> {
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

    let last = ghn.tensor("decoder.conv.2.weight")?.reshape((o_max * i_max, 8 * hid))?;
    let last_bias = ghn.tensor("decoder.conv.2.bias")?;
    for ((classifier, [o, i]), members) in group(kernels, |k| (k.classifier, [k.part[0], k.part[1]])) {
        let used = || (0..o).flat_map(|out| (0..i).map(move |input| out * i_max + input));
        let positions = members.iter().flat_map(|&m| {
            let [_, _, h, w] = kernels[m].part;
            first_row[m]..first_row[m] + h * w
        });
        let table = rows(&hidden, positions)?
            .matmul(&rows(&last, used())?.t()?)?
            .broadcast_add(&rows(last_bias, used())?)?;
        if classifier {
            // The map over the out axis, for all classifiers side by side.
            let table = table.relu()?.reshape((members.len(), o, i))?.transpose(0, 1)?.contiguous()?;
            let map =
                ghn.tensor("decoder.class_layer_predictor.1.weight")?.reshape((ghn.config.num_classes, o))?;
            let bias = ghn.tensor("decoder.class_layer_predictor.1.bias")?.unsqueeze(1)?;
            let table = map.matmul(&table.reshape((o, members.len() * i))?)?.broadcast_add(&bias)?;
            let offset = tables.push(&table)?;
            for (position, &member) in members.iter().enumerate() {
                let tile = &mut tiles[kernels[member].tile];
                (tile.source, tile.strides) = (offset + position * i, [members.len() * i, 1, 1, 1]);
            }
            continue;
        }
        let mut offset = tables.push(&table)?;
        for &member in &members {
            let [_, _, h, w] = kernels[member].part;
            let tile = &mut tiles[kernels[member].tile];
            (tile.source, tile.strides) = (offset, [i, 1, w * o * i, o * i]);
            offset += h * w * o * i;
        }
    }
    Ok(())
}

/// hid -> 2 hid -> the used part of the table; classifiers branch off after the first layer.
fn decode_mlp(
    ghn: &Ghn,
    embedding: &Tensor,
    kernels: &[Kernel],
    tables: &mut Tables,
    tiles: &mut [Tile],
) -> Result<()> {
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
    Ok(())
}
