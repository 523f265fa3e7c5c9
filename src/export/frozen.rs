//! A network whose batch norms use stored statistics, written as a network that any executor runs.
//!
//! In: a network, its parameters, statistics. Out: a network and parameters in which each batch norm,
//! `(x - mean) / sqrt(variance + eps) * w + b`, is a product and a sum per channel: a depthwise 1x1 convolution and
//! a constant at every position. No image depends on another then.

use super::statistics::{Statistics, norm_name};
use crate::kernels::norm::EPSILON;
use crate::network::{Network, OpId, OpKind, OpNode, Param, ParamId};
use crate::{Error, Result};
use std::collections::BTreeMap;

/// Replaces the batch norms of `network`.
///
/// # Errors
/// Parameters or statistics do not fit the network.
pub fn freeze(network: &Network, params: &[f32], statistics: &Statistics) -> Result<(Network, Vec<f32>)> {
    if params.len() != network.n_params() {
        let expected = network.n_params();
        return Err(Error::Tensor(format!("parameters: {} elements, expected {expected}", params.len())));
    }
    let mut frozen = Frozen { ops: Vec::new(), params: Vec::new(), values: Vec::new() };
    let mut moved_ops = Vec::with_capacity(network.ops.len());
    let mut moved_params: BTreeMap<ParamId, ParamId> = BTreeMap::new();
    let values = |id: ParamId| {
        let param = &network.params[id.0];
        &params[param.offset..param.offset + param.numel()]
    };
    for (index, node) in network.ops.iter().enumerate() {
        let inputs: Vec<OpId> = node.inputs.iter().map(|input| moved_ops[input.0]).collect();
        let OpKind::BatchNorm { weight, bias } = node.kind else {
            let kind = node.kind.clone().map_params(|id| {
                *moved_params.entry(id).or_insert_with(|| {
                    let param = &network.params[id.0];
                    frozen.param(param.name.clone(), param.shape.clone(), values(id))
                })
            });
            moved_ops.push(frozen.op(kind, inputs, node.shape));
            continue;
        };
        let name = norm_name(network, index);
        let [c, h, w] = node.shape;
        let moments = statistics
            .moments
            .get(&index)
            .filter(|moments| moments.mean.len() == c && moments.variance.len() == c)
            .ok_or_else(|| Error::Tensor(format!("{name}: no statistics of {c} channels")))?;
        let (mut scale, mut shift) = (Vec::with_capacity(c), Vec::with_capacity(c * h * w));
        for channel in 0..c {
            let deviation = (f64::from(moments.variance[channel]) + EPSILON).sqrt();
            let factor = f64::from(values(weight)[channel]) / deviation;
            scale.push(factor as f32);
            let constant = f64::from(values(bias)[channel]) - f64::from(moments.mean[channel]) * factor;
            shift.extend(std::iter::repeat_n(constant as f32, h * w));
        }
        let weight = frozen.param(format!("{name}.scale"), vec![c, 1, 1, 1], &scale);
        let product = OpKind::Conv { weight, stride: [1; 2], padding: [0; 2], dilation: 1, groups: c };
        let product = frozen.op(product, inputs, node.shape);
        let weight = frozen.param(format!("{name}.shift"), vec![1, c, h, w], &shift);
        moved_ops.push(frozen.op(OpKind::PosEnc { weight }, vec![product], node.shape));
    }
    let frozen_network =
        Network { ops: frozen.ops, params: frozen.params, pruned: Vec::new(), n_cells: network.n_cells };
    frozen_network.validate()?;
    Ok((frozen_network, frozen.values))
}

/// The new network as it grows.
struct Frozen {
    ops: Vec<OpNode>,
    params: Vec<Param>,
    values: Vec<f32>,
}

impl Frozen {
    fn op(&mut self, kind: OpKind, inputs: Vec<OpId>, shape: [usize; 3]) -> OpId {
        self.ops.push(OpNode { kind, inputs, shape });
        OpId(self.ops.len() - 1)
    }

    fn param(&mut self, name: String, shape: Vec<usize>, values: &[f32]) -> ParamId {
        self.params.push(Param { name, shape, offset: self.values.len() });
        self.values.extend_from_slice(values);
        ParamId(self.params.len() - 1)
    }
}
