//! What a GPU is to do for one op, as data: buffers, and launches of kernels over them.
//!
//! In: the sizes and tables of an op. Out: a [`Program`] that any runner of CUDA kernels can carry out: a device, or
//! the tests, which compile the same kernels for the CPU. Every value has 32 bits.

use std::sync::Arc;

/// CUDA C++ that is compiled as one program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// For messages and for the cache of compiled programs.
    pub name: &'static str,
    /// Texts, one after the other.
    pub texts: &'static [&'static str],
    /// Macros that are defined before the texts.
    pub defines: Vec<(&'static str, usize)>,
}

impl Source {
    /// The whole program.
    pub fn text(&self) -> String {
        let defines = self.defines.iter().map(|(name, value)| format!("#define {name} {value}\n"));
        defines.chain(self.texts.iter().map(|text| (*text).to_owned())).collect()
    }
}

/// A stretch of device memory.
#[derive(Clone, Debug, PartialEq)]
pub enum Buffer {
    /// Given by the caller, in this order: so many f32.
    Input(usize),
    /// The same in every run: indices.
    Table(Arc<[u32]>),
    /// Not initialised: so many f32. Not wanted afterwards.
    Scratch(usize),
    /// Not initialised: so many f32. Returned to the caller, in this order.
    Output(usize),
}

/// An argument of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Argument {
    /// Pointer to the buffer of this index.
    Buffer(usize),
    /// A number.
    Number(u32),
}

/// One launch; launches of a program follow one another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// Where the kernel stands.
    pub source: Source,
    /// Its name.
    pub kernel: &'static str,
    /// Blocks along x and y, none of them 0.
    pub grid: [u32; 2],
    /// Threads of a block.
    pub threads: u32,
    /// Dynamic shared memory of a block in bytes.
    pub shared_bytes: u32,
    /// Its arguments.
    pub arguments: Vec<Argument>,
}

/// Buffers and the launches over them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Program {
    /// All buffers.
    pub buffers: Vec<Buffer>,
    /// All launches.
    pub launches: Vec<Launch>,
}

impl Program {
    /// Adds a buffer: an argument for the launches.
    pub fn buffer(&mut self, buffer: Buffer) -> Argument {
        self.buffers.push(buffer);
        Argument::Buffer(self.buffers.len() - 1)
    }
}

/// What a device allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Threads of a block that sweeps a graph: a multiple of 32, at most 512.
    pub threads: u32,
    /// Shared memory that a block may ask for, in bytes.
    pub shared_bytes: u32,
}
