//! Residual networks under torchvision's names (ResNet, arXiv 1512.03385; wide variants, arXiv 1605.07146) in their
//! CIFAR variant for 32x32 images: the first convolution is 3x3 with stride 1, there is no max pooling.

use super::builder::Builder;
use super::expand::expand;
use super::ir::{Network, OpId, OpKind};
use crate::space::Architecture;
use crate::{Error, Result};

/// Shape of a residual network.
struct ResNet {
    name: &'static str,
    /// Blocks in each of the four layers.
    blocks: [usize; 4],
    /// Channels of a block's output per channel of its layer: 4 with bottleneck, else 1.
    expansion: usize,
    /// Channels inside the bottlenecks of the first layer.
    width: usize,
}

const RESNETS: [ResNet; 7] = [
    ResNet { name: "resnet18", blocks: [2, 2, 2, 2], expansion: 1, width: 64 },
    ResNet { name: "resnet34", blocks: [3, 4, 6, 3], expansion: 1, width: 64 },
    ResNet { name: "resnet50", blocks: [3, 4, 6, 3], expansion: 4, width: 64 },
    ResNet { name: "resnet101", blocks: [3, 4, 23, 3], expansion: 4, width: 64 },
    ResNet { name: "resnet152", blocks: [3, 8, 36, 3], expansion: 4, width: 64 },
    ResNet { name: "wide_resnet50_2", blocks: [3, 4, 6, 3], expansion: 4, width: 128 },
    ResNet { name: "wide_resnet101_2", blocks: [3, 4, 23, 3], expansion: 4, width: 128 },
];

/// The names that [`torchvision`] knows.
pub const TORCHVISION_NAMES: [&str; RESNETS.len()] = {
    let mut names = [""; RESNETS.len()];
    let mut index = 0;
    while index < names.len() {
        names[index] = RESNETS[index].name;
        index += 1;
    }
    names
};

/// The CIFAR variant of the residual network that torchvision calls `name`.
///
/// # Errors
/// [`Error::Architecture`] if there is none of that name or no class.
pub fn torchvision(name: &str, num_classes: usize) -> Result<Network> {
    let Some(resnet) = RESNETS.iter().find(|resnet| resnet.name == name) else {
        return Err(Error::Architecture(format!(
            "there is no network named {name:?}; known: {}",
            TORCHVISION_NAMES.join(", ")
        )));
    };
    if !(1..=1 << 20).contains(&num_classes) {
        return Err(Error::Architecture(format!("num_classes is {num_classes}, expected 1 to {}", 1 << 20)));
    }
    let (mut b, image) = Builder::new([3, 32, 32]);
    let stem = [b.conv("conv1", [64, 3, 3, 3], [1, 1]), b.batch_norm("bn1", 64), OpKind::Relu];
    let mut x = b.chain(stem, image)?;
    for (layer, blocks) in resnet.blocks.into_iter().enumerate() {
        for block in 0..blocks {
            let stride = if layer > 0 && block == 0 { 2 } else { 1 };
            x = residual_block(&mut b, resnet, layer, block, stride, x)?;
        }
    }
    let pooled = b.push(OpKind::GlobalAvgPool, &[x])?;
    let fc = b.linear("fc", [num_classes, 512 * resnet.expansion], true);
    let logits = b.push(fc, &[pooled])?;
    b.finish(logits, 0)
}

/// Builds the network that `arch` describes.
///
/// # Errors
/// As [`expand`] and [`torchvision`].
pub fn build(arch: &Architecture, num_classes: usize) -> Result<Network> {
    match arch {
        Architecture::Cells(cells) => expand(cells, num_classes),
        Architecture::Torchvision(name) => torchvision(name, num_classes),
    }
}

fn residual_block(
    b: &mut Builder,
    resnet: &ResNet,
    layer: usize,
    block: usize,
    stride: usize,
    x: OpId,
) -> Result<OpId> {
    let name = format!("layer{}.{block}", layer + 1);
    let inner = b.shape(x)[0];
    let out = (64 << layer) * resnet.expansion;
    let width = resnet.width << layer;
    // torchvision puts a bottleneck's stride on its 3x3 convolution.
    let convs: &[([usize; 4], usize)] = if resnet.expansion == 1 {
        &[([out, inner, 3, 3], stride), ([out, out, 3, 3], 1)]
    } else {
        &[([width, inner, 1, 1], 1), ([width, width, 3, 3], stride), ([out, width, 1, 1], 1)]
    };
    let mut kinds = Vec::with_capacity(8);
    for (index, (weight, stride)) in convs.iter().enumerate() {
        kinds.extend((index > 0).then_some(OpKind::Relu));
        kinds.push(b.conv(&format!("{name}.conv{}", index + 1), *weight, [*stride; 2]));
        kinds.push(b.batch_norm(&format!("{name}.bn{}", index + 1), weight[0]));
    }
    let mut shortcut = x;
    let body = b.chain(kinds, x)?;
    if stride != 1 || inner != out {
        let projection = [
            b.conv(&format!("{name}.downsample.0"), [out, inner, 1, 1], [stride; 2]),
            b.batch_norm(&format!("{name}.downsample.1"), out),
        ];
        shortcut = b.chain(projection, x)?;
    }
    let sum = b.push(OpKind::Add, &[body, shortcut])?;
    b.push(OpKind::Relu, &[sum])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// torchvision's published parameter counts for 1000 classes, less the 7x7 first convolution for the 3x3 one.
    #[test]
    fn parameter_counts_are_torchvisions() {
        let published = [11_689_512, 21_797_672, 25_557_032, 44_549_160, 60_192_808, 68_883_240, 126_886_696];
        for (name, count) in TORCHVISION_NAMES.into_iter().zip(published) {
            let network = torchvision(name, 1000).unwrap();
            assert_eq!(network.n_params(), count - 64 * 3 * (49 - 9), "{name}");
            assert!(network.pruned.is_empty());
        }
    }

    #[test]
    fn unknown_names_are_answered_with_the_known_ones() {
        let error = torchvision("resnet19", 10).unwrap_err().to_string();
        assert!(error.contains("resnet19") && error.contains("wide_resnet101_2"), "{error}");
        assert!(torchvision("resnet18", 0).is_err());
    }
}
