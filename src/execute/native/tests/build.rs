//! Networks built by hand, with random parameters and images.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::network::{Network, OpId, OpKind, OpNode, Param, ParamId, Shape};

/// Builds networks by hand.
pub(super) struct Build(pub(super) Network);

impl Build {
    pub(super) fn new(input: Shape) -> Self {
        let ops = vec![OpNode { kind: OpKind::Input, inputs: vec![], shape: input }];
        Self(Network { ops, params: vec![], pruned: vec![], n_cells: 0 })
    }

    pub(super) fn shape(&self, op: OpId) -> Shape {
        self.0.ops[op.0].shape
    }

    pub(super) fn op(&mut self, kind: OpKind, inputs: &[OpId], shape: Shape) -> OpId {
        self.0.ops.push(OpNode { kind, inputs: inputs.to_vec(), shape });
        OpId(self.0.ops.len() - 1)
    }

    pub(super) fn same(&mut self, kind: OpKind, x: OpId) -> OpId {
        let shape = self.shape(x);
        self.op(kind, &[x], shape)
    }

    pub(super) fn param(&mut self, shape: &[usize]) -> ParamId {
        let offset = self.0.n_params();
        let name = format!("p{}", self.0.params.len());
        self.0.params.push(Param { name, shape: shape.to_vec(), offset });
        ParamId(self.0.params.len() - 1)
    }

    #[allow(clippy::too_many_arguments)]
    pub(super) fn conv(
        &mut self,
        x: OpId,
        o: usize,
        kernel: [usize; 2],
        stride: [usize; 2],
        padding: [usize; 2],
        dilation: usize,
        groups: usize,
    ) -> OpId {
        let [i, h, w] = self.shape(x);
        let size = |n: usize, a: usize| (n + 2 * padding[a] - dilation * (kernel[a] - 1) - 1) / stride[a] + 1;
        let weight = self.param(&[o, i / groups, kernel[0], kernel[1]]);
        let shape = [o, size(h, 0), size(w, 1)];
        self.op(OpKind::Conv { weight, stride, padding, dilation, groups }, &[x], shape)
    }

    pub(super) fn conv1(&mut self, x: OpId, o: usize) -> OpId {
        self.conv(x, o, [1, 1], [1, 1], [0, 0], 1, 1)
    }

    pub(super) fn linear(&mut self, x: OpId, o: usize, bias: bool) -> OpId {
        let [i, h, w] = self.shape(x);
        let weight = self.param(&[o, i]);
        let bias = bias.then(|| self.param(&[o]));
        self.op(OpKind::Linear { weight, bias }, &[x], [o, h, w])
    }

    pub(super) fn batch_norm(&mut self, x: OpId) -> OpId {
        let c = self.shape(x)[0];
        let (weight, bias) = (self.param(&[c]), self.param(&[c]));
        self.same(OpKind::BatchNorm { weight, bias }, x)
    }

    pub(super) fn layer_norm(&mut self, x: OpId) -> OpId {
        let c = self.shape(x)[0];
        let (weight, bias) = (self.param(&[c]), self.param(&[c]));
        self.same(OpKind::LayerNorm { weight, bias }, x)
    }

    pub(super) fn pool(&mut self, x: OpId, max: bool, kernel: usize, stride: usize, padding: usize) -> OpId {
        let [c, h, w] = self.shape(x);
        let size = |n: usize| (n + 2 * padding - kernel) / stride + 1;
        let kind = if max {
            OpKind::MaxPool { kernel, stride, padding }
        } else {
            OpKind::AvgPool { kernel, stride, padding }
        };
        self.op(kind, &[x], [c, size(h), size(w)])
    }

    pub(super) fn add(&mut self, a: OpId, b: OpId) -> OpId {
        let shape = self.shape(a);
        self.op(OpKind::Add, &[a, b], shape)
    }

    pub(super) fn concat(&mut self, inputs: &[OpId]) -> OpId {
        let [_, h, w] = self.shape(inputs[0]);
        let c = inputs.iter().map(|&x| self.shape(x)[0]).sum();
        self.op(OpKind::Concat, inputs, [c, h, w])
    }

    pub(super) fn excite(&mut self, x: OpId) -> OpId {
        let shape = self.shape(x);
        let mean = self.op(OpKind::SqueezeMean, &[x], [shape[0], 1, 1]);
        let squeezed = self.linear(mean, shape[0].div_ceil(2), true);
        let squeezed = self.same(OpKind::Relu, squeezed);
        let gate = self.linear(squeezed, shape[0], true);
        let gate = self.same(OpKind::HardSwish, gate);
        self.op(OpKind::Excite, &[x, gate], shape)
    }

    pub(super) fn attention(&mut self, x: OpId, heads: usize, head_dim: usize) -> OpId {
        let [_, h, w] = self.shape(x);
        let qkv = self.linear(x, 3 * heads * head_dim, false);
        self.op(OpKind::Attention { heads, head_dim }, &[qkv], [heads * head_dim, h, w])
    }

    /// Mean, classifier.
    pub(super) fn head(mut self, x: OpId, classes: usize) -> Network {
        let c = self.shape(x)[0];
        let mean = self.op(OpKind::GlobalAvgPool, &[x], [c, 1, 1]);
        self.linear(mean, classes, true);
        self.0
    }
}

fn normal(rng: &mut ChaCha8Rng, count: usize, scale: f64) -> Vec<f64> {
    // The sum of twelve uniforms is normal enough and has no far outliers.
    (0..count).map(|_| ((0..12).map(|_| rng.random::<f64>()).sum::<f64>() - 6.0) * scale).collect()
}

pub(super) struct Case {
    pub(super) params: Vec<f64>,
    pub(super) images: Vec<f64>,
    pub(super) labels: Vec<u8>,
}

pub(super) fn case(network: &Network, count: usize, seed: u64) -> Case {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let size: usize = network.input_shape().iter().product();
    let images = normal(&mut rng, count * size, 1.0);
    let params = network
        .params
        .iter()
        .flat_map(|param| {
            let fan_in: usize = param.shape[1..].iter().product();
            let shift = if param.shape.len() == 1 { 0.7 } else { 0.0 };
            normal(&mut rng, param.numel(), (1.0 / fan_in as f64).sqrt()).into_iter().map(move |x| x + shift)
        })
        .collect();
    let labels = (0..count).map(|_| rng.random_range(0..network.num_classes()) as u8).collect();
    Case { params, images, labels }
}

/// Two cells' worth of branches: separable and dilated convolutions, pools, skips, gates.
pub(super) fn cells() -> Network {
    let mut net = Build::new([3, 12, 12]);
    let x = net.conv(OpId(0), 20, [3, 3], [1, 1], [1, 1], 1, 1);
    let mut x = net.batch_norm(x);
    let mut previous = x;
    for stride in [1, 2] {
        let c = net.shape(x)[0];
        let s = [stride, stride];
        let r = net.same(OpKind::Relu, previous);
        let a = net.conv(r, c, [3, 3], s, [1, 1], 1, c);
        let a = net.conv1(a, c);
        let a = net.batch_norm(a);
        let r = net.same(OpKind::Relu, a);
        let a = net.conv(r, c, [3, 3], [1, 1], [1, 1], 1, c);
        let a = net.conv1(a, c);
        let a = net.batch_norm(a);
        let r = net.same(OpKind::Relu, x);
        let b = net.conv(r, c, [5, 5], s, [4, 4], 2, c);
        let b = net.conv1(b, c);
        let b = net.batch_norm(b);
        let m = net.pool(x, true, 3, stride, 1);
        let ab = net.add(a, b);
        let e = net.excite(ab);
        let em = net.add(e, m);
        let joined = net.concat(&[ab, em]);
        let p = net.conv1(joined, c);
        previous = if stride == 1 { x } else { p };
        x = net.batch_norm(p);
    }
    let sum = net.add(x, previous);
    net.head(sum, 10)
}
