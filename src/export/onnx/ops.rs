//! Every op of the IR as ONNX operators.
//!
//! Values are maps `[N, C, H, W]` until the classifier, and vectors `[N, C]` from there on.

use super::super::model::Model;
use super::super::statistics::norm_name;
use super::graph::Attribute::{Float, Int, Ints};
use super::graph::{Attribute, Graph};
use crate::kernels::norm::EPSILON;
use crate::network::{OpKind, OpNode, ParamId};
use crate::{Error, Result};

/// Name of the graph's input.
pub(super) const INPUT: &str = "images";
/// Name of the graph's output.
pub(super) const OUTPUT: &str = "logits";

/// The output of an op.
#[derive(Clone, Debug)]
struct Value {
    name: String,
    /// `[N, C]` instead of `[N, C, H, W]`.
    vector: bool,
}

struct Translation<'a> {
    model: &'a Model,
    graph: &'a mut Graph,
    values: Vec<Value>,
}

/// Adds all ops of the model's network to `graph`.
pub(super) fn translate(model: &Model, graph: &mut Graph) -> Result<()> {
    let mut translation = Translation { model, graph, values: Vec::new() };
    for (index, node) in model.network.ops.iter().enumerate() {
        let value = translation.op(index, node)?;
        translation.values.push(value);
    }
    let Some(last) = translation.values.pop() else {
        return Err(Error::Architecture("a network without ops".into()));
    };
    if last.vector {
        graph.node("Identity", OUTPUT, &[&last.name], vec![]);
    } else {
        graph.node("Flatten", OUTPUT, &[&last.name], vec![("axis", Int(1))]);
    }
    Ok(())
}

fn pair(value: usize) -> Attribute {
    Ints(vec![value as i64; 2])
}

impl Translation<'_> {
    /// A parameter as a constant, in the shape `dims`.
    fn param(&mut self, id: ParamId, dims: &[usize]) -> Result<String> {
        let param = &self.model.network.params[id.0];
        let range = param.offset..param.offset + param.numel();
        let values = self.model.params.get(range).ok_or_else(|| {
            Error::Tensor(format!("{}: {} parameters are too few", param.name, self.model.params.len()))
        })?;
        Ok(self.graph.constant(&param.name, dims, values))
    }

    /// An input as a map.
    fn map(&mut self, node: &OpNode, input: usize) -> String {
        let from = node.inputs[input].0;
        let Value { name, vector } = self.values[from].clone();
        if !vector {
            return name;
        }
        let channels = self.model.network.ops[from].shape[0];
        let shape = self.graph.integers(&format!("{name}.map.shape"), &[0, channels as i64, 1, 1]);
        self.graph.node("Reshape", &format!("{name}.map"), &[&name, &shape], vec![])
    }

    fn op(&mut self, index: usize, node: &OpNode) -> Result<Value> {
        let params: Vec<ParamId> = node.kind.params().collect();
        let sizes: Vec<Vec<usize>> =
            params.iter().map(|id| self.model.network.params[id.0].shape.clone()).collect();
        // The module's path, or the op's kind and number where there is no module.
        let name = match params.first() {
            Some(id) => {
                let weight = &self.model.network.params[id.0].name;
                weight.strip_suffix(".weight").unwrap_or(weight).to_string()
            }
            None => format!("{}.{index}", node.kind.name()),
        };
        let first = node.inputs.first().map(|input| self.values[input.0].clone());
        let map = |name: String| Value { name, vector: false };
        let same = |name: String| Value { name, vector: first.as_ref().is_some_and(|value| value.vector) };
        let x = first.as_ref().map_or(INPUT, |value| value.name.as_str());
        Ok(match node.kind {
            OpKind::Input => map(INPUT.to_string()),
            OpKind::Conv { weight, stride, padding, dilation, groups } => {
                let weight = self.param(weight, &sizes[0])?;
                let x = self.map(node, 0);
                let (kernel, [top, left]) = (&sizes[0][2..], padding.map(|side| side as i64));
                let attributes = vec![
                    ("dilations", pair(dilation)),
                    ("group", Int(groups as i64)),
                    ("kernel_shape", Ints(kernel.iter().map(|&side| side as i64).collect())),
                    ("pads", Ints(vec![top, left, top, left])),
                    ("strides", Ints(stride.map(|side| side as i64).to_vec())),
                ];
                map(self.graph.node("Conv", &name, &[&x, &weight], attributes))
            }
            OpKind::Linear { weight, bias } => {
                let vector = first.as_ref().is_some_and(|value| value.vector);
                let [out, inner] = [sizes[0][0], sizes[0][1]];
                let dims: &[usize] = if vector { &[out, inner] } else { &[out, inner, 1, 1] };
                let mut inputs = vec![x.to_string(), self.param(weight, dims)?];
                if let Some(bias) = bias {
                    inputs.push(self.param(bias, &[out])?);
                }
                let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
                if vector {
                    same(self.graph.node("Gemm", &name, &inputs, vec![("transB", Int(1))]))
                } else {
                    same(self.graph.node("Conv", &name, &inputs, vec![("kernel_shape", pair(1))]))
                }
            }
            OpKind::BatchNorm { weight, bias } => {
                let channels = node.shape[0];
                let module = norm_name(&self.model.network, index);
                let moments =
                    self.model.statistics.moments.get(&index).filter(|moments| {
                        moments.mean.len() == channels && moments.variance.len() == channels
                    });
                let Some(moments) = moments else {
                    return Err(Error::Tensor(format!("{module}: no statistics of {channels} channels")));
                };
                let dims = [channels];
                let weight = self.param(weight, &dims)?;
                let bias = self.param(bias, &dims)?;
                let mean = self.graph.constant(&format!("{module}.running_mean"), &dims, &moments.mean);
                let variance =
                    self.graph.constant(&format!("{module}.running_var"), &dims, &moments.variance);
                let inputs = [x, &weight, &bias, &mean, &variance];
                let attributes = vec![("epsilon", Float(EPSILON as f32))];
                same(self.graph.node("BatchNormalization", &name, &inputs, attributes))
            }
            OpKind::LayerNorm { weight, bias } => {
                let channels = [node.shape[0]];
                let weight = self.param(weight, &channels)?;
                let bias = self.param(bias, &channels)?;
                let attributes = || vec![("axis", Int(-1)), ("epsilon", Float(EPSILON as f32))];
                if first.as_ref().is_some_and(|value| value.vector) {
                    let inputs = [x, &weight, &bias];
                    return Ok(same(self.graph.node("LayerNormalization", &name, &inputs, attributes())));
                }
                let turn = |perm: [i64; 4]| vec![("perm", Ints(perm.to_vec()))];
                let last = format!("{name}.channels_last");
                let last = self.graph.node("Transpose", &last, &[x], turn([0, 2, 3, 1]));
                let normal = format!("{name}.normalised");
                let inputs = [last.as_str(), &weight, &bias];
                let normal = self.graph.node("LayerNormalization", &normal, &inputs, attributes());
                same(self.graph.node("Transpose", &name, &[&normal], turn([0, 3, 1, 2])))
            }
            OpKind::Relu => same(self.graph.node("Relu", &name, &[x], vec![])),
            OpKind::Gelu => same(self.gelu(&name, x)),
            OpKind::HardSwish => same(self.graph.node("HardSwish", &name, &[x], vec![])),
            OpKind::MaxPool { kernel, stride, padding } => {
                let attributes = window(kernel, stride, padding);
                map(self.graph.node("MaxPool", &name, &[x], attributes))
            }
            OpKind::AvgPool { kernel, stride, padding } => {
                let mut attributes = window(kernel, stride, padding);
                attributes.insert(0, ("count_include_pad", Int(0)));
                map(self.graph.node("AveragePool", &name, &[x], attributes))
            }
            OpKind::GlobalAvgPool => {
                let x = self.map(node, 0);
                let pooled = self.graph.node("GlobalAveragePool", &format!("{name}.mean"), &[&x], vec![]);
                let flat = self.graph.node("Flatten", &name, &[&pooled], vec![("axis", Int(1))]);
                Value { name: flat, vector: true }
            }
            OpKind::SqueezeMean => {
                let x = self.map(node, 0);
                map(self.graph.node("GlobalAveragePool", &name, &[&x], vec![]))
            }
            OpKind::Excite | OpKind::Add => {
                let [a, b] = [self.map(node, 0), self.map(node, 1)];
                let operator = if node.kind == OpKind::Add { "Add" } else { "Mul" };
                map(self.graph.node(operator, &name, &[&a, &b], vec![]))
            }
            OpKind::Attention { heads, head_dim } => map(self.attention(&name, x, node, heads, head_dim)),
            OpKind::PosEnc { weight } => {
                let weight = self.param(weight, &sizes[0])?;
                let x = self.map(node, 0);
                map(self.graph.node("Add", &name, &[&x, &weight], vec![]))
            }
            OpKind::Concat => {
                let inputs: Vec<String> = (0..node.inputs.len()).map(|input| self.map(node, input)).collect();
                match inputs.as_slice() {
                    [only] => map(only.clone()),
                    inputs => {
                        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
                        map(self.graph.node("Concat", &name, &inputs, vec![("axis", Int(1))]))
                    }
                }
            }
            OpKind::Zeros => {
                let shape = self.graph.node("Shape", &format!("{name}.shape"), &[x], vec![]);
                same(self.graph.node("ConstantOfShape", &name, &[&shape], vec![]))
            }
            OpKind::Subsample { stride } => map(self.slice(&name, x, 0, stride)),
            OpKind::Crop => map(self.slice(&name, x, 1, 1)),
            OpKind::Flatten => {
                let flat = self.graph.node("Flatten", &name, &[x], vec![("axis", Int(1))]);
                Value { name: flat, vector: true }
            }
            OpKind::Dropout { .. } => same(x.to_string()),
        })
    }

    /// `x / 2 * (1 + erf(x / sqrt(2)))`.
    fn gelu(&mut self, name: &str, x: &str) -> String {
        let root = self.graph.constant("gelu.reciprocal_root", &[], &[std::f32::consts::FRAC_1_SQRT_2]);
        let one = self.graph.constant("gelu.one", &[], &[1.0]);
        let half = self.graph.constant("gelu.half", &[], &[0.5]);
        let scaled = self.graph.node("Mul", &format!("{name}.scaled"), &[x, &root], vec![]);
        let erf = self.graph.node("Erf", &format!("{name}.erf"), &[&scaled], vec![]);
        let shifted = self.graph.node("Add", &format!("{name}.shifted"), &[&erf, &one], vec![]);
        let product = self.graph.node("Mul", &format!("{name}.product"), &[x, &shifted], vec![]);
        self.graph.node("Mul", name, &[&product, &half], vec![])
    }

    /// Attention over positions: with `q`, `k`, `v` `[N, heads, head_dim, T]`, `v softmax(k' q / sqrt(head_dim))`,
    /// the softmax over keys, which stand in rows.
    fn attention(&mut self, name: &str, x: &str, node: &OpNode, heads: usize, head_dim: usize) -> String {
        let [inner, height, width] = node.shape.map(|side| side as i64);
        let split = [0, 3 * heads as i64, head_dim as i64, height * width];
        let split = self.graph.integers(&format!("{name}.heads.shape"), &split);
        let split = self.graph.node("Reshape", &format!("{name}.heads"), &[x, &split], vec![]);
        let parts = ["queries", "keys", "values"].map(|part| format!("{name}.{part}"));
        self.graph.nodes(
            "Split",
            &format!("{name}.split"),
            &[&split],
            parts.to_vec(),
            vec![("axis", Int(1))],
        );
        let [queries, keys, values] = &parts;
        let turn = vec![("perm", Ints(vec![0, 1, 3, 2]))];
        let keys = self.graph.node("Transpose", &format!("{keys}.transposed"), &[keys], turn);
        let scores = self.graph.node("MatMul", &format!("{name}.scores"), &[&keys, queries], vec![]);
        let scale = (head_dim as f64).sqrt().recip() as f32;
        let scale = self.graph.constant(&format!("{name}.scale"), &[], &[scale]);
        let scaled = self.graph.node("Mul", &format!("{name}.scaled"), &[&scores, &scale], vec![]);
        let weights = format!("{name}.weights");
        let weights = self.graph.node("Softmax", &weights, &[&scaled], vec![("axis", Int(2))]);
        let mixed = self.graph.node("MatMul", &format!("{name}.mixed"), &[values, &weights], vec![]);
        let shape = self.graph.integers(&format!("{name}.shape"), &[0, inner, height, width]);
        self.graph.node("Reshape", name, &[&mixed, &shape], vec![])
    }

    /// Rows and columns from `start` in steps of `step`.
    fn slice(&mut self, name: &str, x: &str, start: i64, step: usize) -> String {
        let mut list = |part: &str, value: [i64; 2]| self.graph.integers(&format!("{name}.{part}"), &value);
        let lists = [
            list("starts", [start; 2]),
            list("ends", [i64::MAX; 2]),
            list("axes", [2, 3]),
            list("steps", [step as i64; 2]),
        ];
        let inputs = [x, &lists[0], &lists[1], &lists[2], &lists[3]];
        self.graph.node("Slice", name, &inputs, vec![])
    }
}

fn window(kernel: usize, stride: usize, padding: usize) -> Vec<(&'static str, Attribute)> {
    let pads = Ints(vec![padding as i64; 4]);
    vec![("kernel_shape", pair(kernel)), ("pads", pads), ("strides", pair(stride))]
}
