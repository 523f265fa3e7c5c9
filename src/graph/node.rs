//! Graph types: what GHN-2 reads (arXiv 2110.13100, section 2 and appendix).

use crate::network::ParamId;

/// Node type; the discriminant is the row of GHN's primitive embedding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum Primitive {
    MaxPool = 0,
    AvgPool,
    SepConv,
    DilConv,
    Conv,
    Msa,
    Cse,
    Sum,
    Concat,
    Input,
    Bias,
    BatchNorm,
    LayerNorm,
    PosEnc,
    GlobAvg,
}

impl Primitive {
    /// All node types, by discriminant.
    pub const ALL: [Primitive; 15] = [
        Primitive::MaxPool,
        Primitive::AvgPool,
        Primitive::SepConv,
        Primitive::DilConv,
        Primitive::Conv,
        Primitive::Msa,
        Primitive::Cse,
        Primitive::Sum,
        Primitive::Concat,
        Primitive::Input,
        Primitive::Bias,
        Primitive::BatchNorm,
        Primitive::LayerNorm,
        Primitive::PosEnc,
        Primitive::GlobAvg,
    ];

    /// The reference's name, e.g. `sep_conv`.
    pub const fn name(self) -> &'static str {
        match self {
            Primitive::MaxPool => "max_pool",
            Primitive::AvgPool => "avg_pool",
            Primitive::SepConv => "sep_conv",
            Primitive::DilConv => "dil_conv",
            Primitive::Conv => "conv",
            Primitive::Msa => "msa",
            Primitive::Cse => "cse",
            Primitive::Sum => "sum",
            Primitive::Concat => "concat",
            Primitive::Input => "input",
            Primitive::Bias => "bias",
            Primitive::BatchNorm => "bn",
            Primitive::LayerNorm => "ln",
            Primitive::PosEnc => "pos_enc",
            Primitive::GlobAvg => "glob_avg",
        }
    }
}

/// A node: a parameter tensor or an op without parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its type.
    pub primitive: Primitive,
    /// The parameter that it stands for.
    pub param: Option<ParamId>,
    /// Norm layers: the bias that is predicted from this node too.
    pub norm_bias: Option<ParamId>,
    /// Parameter shape; `[1, 1, k, k]` for pooling; none else.
    pub shape: Option<Vec<usize>>,
}

/// Neighbours of every node in compressed rows: those of node `v` are `start[v]..start[v + 1]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Neighbours {
    /// Row starts, one more than there are nodes.
    pub start: Vec<u32>,
    /// Neighbours, ascending within a row.
    pub node: Vec<u32>,
    /// Shortest directed distance to the neighbour, 1..=50; 1 is a real edge.
    pub distance: Vec<u8>,
}

impl Neighbours {
    /// Neighbours of `v` with their distances.
    pub fn of(&self, v: usize) -> impl Iterator<Item = (usize, u8)> + '_ {
        let row = self.start[v] as usize..self.start[v + 1] as usize;
        self.node[row.clone()].iter().map(|&n| n as usize).zip(self.distance[row].iter().copied())
    }
}

/// A network's graph with virtual edges. Nodes are in topological order; node 0 is the input, the last two
/// are weight and bias of the classifier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Graph {
    /// Nodes in topological order.
    pub nodes: Vec<Node>,
    /// Nodes from which `v` can be reached within 50 edges (real edges have distance 1).
    pub incoming: Neighbours,
    /// Nodes that can be reached from `v` within 50 edges; the transpose of `incoming`.
    pub outgoing: Neighbours,
}
