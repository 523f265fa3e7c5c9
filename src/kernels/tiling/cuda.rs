//! CUDA kernels of tiling, as programs for a device; see `tiling.cu`.
//!
//! In: a checked tiling. Out: the [`Program`] of the forward or the backward pass, f32.

use super::{Tile, Tiling, Transform};
use crate::kernels::program::{Argument, Buffer, Launch, Program, Source};
use crate::{Error, Result};

/// `FORWARD_CHUNK` and `BACKWARD_CHUNK` in `tiling.cu`: elements that a block writes.
const FORWARD_CHUNK: usize = 1024;
const BACKWARD_CHUNK: usize = 256;

impl Tile {
    /// The 16 words of `Tile` in `tiling.cu`.
    fn words(&self) -> [u32; 16] {
        let (transform, factor) = match self.transform {
            Transform::Identity => (0, 1.0),
            Transform::Scale(factor) => (1, factor),
            Transform::NormWeight => (2, 1.0),
            Transform::Bias => (3, 1.0),
        };
        let mut axes = [0usize, 1, 2, 3];
        axes.sort_by_key(|&axis| std::cmp::Reverse(self.strides[axis]));
        let kind =
            axes.iter().enumerate().fold(transform, |kind, (rank, &axis)| kind | axis << (2 + 2 * rank));
        let head = [self.source as u32, self.target as u32, kind as u32, (factor as f32).to_bits()];
        let mut words = [0; 16];
        words[..4].copy_from_slice(&head);
        for (at, values) in [(4, self.size), (8, self.strides), (12, self.shape)] {
            (0..4).for_each(|axis| words[at + axis] = values[axis] as u32);
        }
        words
    }
}

impl Tiling {
    fn check(&self) -> Result<()> {
        let largest = self.source_len.max(self.target_len);
        if largest > u32::MAX as usize - FORWARD_CHUNK {
            return Err(Error::Tensor(format!("tiling on a GPU: {largest} values are too many")));
        }
        Ok(())
    }

    fn words(&self) -> Vec<u32> {
        self.tiles.iter().flat_map(Tile::words).collect()
    }
}

/// Of every chunk, the first of `ends` (ascending) behind its first element.
fn first_of_chunks(len: usize, chunk: usize, ends: &[usize]) -> Vec<u32> {
    (0..len).step_by(chunk).map(|first| ends.partition_point(|&end| end <= first) as u32).collect()
}

fn launch(
    kernel: &'static str,
    elements: usize,
    chunk: usize,
    threads: u32,
    arguments: Vec<Argument>,
) -> Launch {
    Launch {
        source: Source { name: "tiling", texts: &[include_str!("tiling.cu")], defines: Vec::new() },
        kernel,
        grid: [elements.div_ceil(chunk) as u32, 1],
        threads,
        shared_bytes: 0,
        arguments,
    }
}

/// Parameters `[target_len]` of tables `[source_len]`, with `threads` (at most 256) in a block.
///
/// # Errors
/// If there are too many values for the kernels' indices.
pub fn forward(tiling: &Tiling, threads: u32) -> Result<Program> {
    tiling.check()?;
    let ends: Vec<usize> = tiling.tiles.iter().map(|tile| tile.target + tile.numel()).collect();
    let first = first_of_chunks(tiling.target_len, FORWARD_CHUNK, &ends);
    let mut program = Program::default();
    let arguments = vec![
        program.buffer(Buffer::Input(tiling.source_len)),
        program.buffer(Buffer::Table(tiling.words().into())),
        program.buffer(Buffer::Table(first.into())),
        program.buffer(Buffer::Output(tiling.target_len)),
        Argument::Number(tiling.target_len as u32),
    ];
    if tiling.target_len > 0 {
        program.launches.push(launch("tiling_forward", tiling.target_len, FORWARD_CHUNK, threads, arguments));
    }
    Ok(program)
}

/// Gradient of the tables `[source_len]`. Inputs: gradient of the parameters, the parameters, `[target_len]` both.
///
/// # Errors
/// As [`forward`].
pub fn backward(tiling: &Tiling, threads: u32) -> Result<Program> {
    tiling.check()?;
    let (mut groups, mut members, mut ends) = (Vec::new(), Vec::new(), Vec::new());
    for group in &tiling.groups {
        let reaches = || group.iter().map(|&tile| tiling.tiles[tile].reach());
        let begin = reaches().map(|reach| reach.start).min().unwrap_or(0);
        let end = reaches().map(|reach| reach.end).max().unwrap_or(0);
        let first = members.len() as u32;
        members.extend(group.iter().map(|&tile| tile as u32));
        groups.extend([begin as u32, end as u32, first, members.len() as u32]);
        ends.push(end);
    }
    let first = first_of_chunks(tiling.source_len, BACKWARD_CHUNK, &ends);
    let mut program = Program::default();
    let mut arguments = vec![
        program.buffer(Buffer::Input(tiling.target_len)),
        program.buffer(Buffer::Input(tiling.target_len)),
    ];
    for table in [tiling.words(), groups, members, first] {
        arguments.push(program.buffer(Buffer::Table(table.into())));
    }
    arguments.push(program.buffer(Buffer::Output(tiling.source_len)));
    arguments.extend([tiling.source_len, ends.len()].map(|number| Argument::Number(number as u32)));
    if tiling.source_len > 0 {
        program.launches.push(launch(
            "tiling_backward",
            tiling.source_len,
            BACKWARD_CHUNK,
            threads,
            arguments,
        ));
    }
    Ok(program)
}
