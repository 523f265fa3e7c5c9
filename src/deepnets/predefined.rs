//! Networks that people designed or found, under their names.

use crate::error::{Error, Result};
use crate::network::TORCHVISION_NAMES;
use crate::space::{ArchRecord, Architecture, CellArchitecture, Edge, Genotype, Norm, Op};
use Op::{AvgPool3x3, DilConv3x3, DilConv5x5, MaxPool3x3, Msa, SepConv3x3, SepConv5x5, SkipConnect};

/// The names that [`predefined`] knows beside torchvision's.
const CELL_NETWORKS: [&str; 3] = ["DARTS", "PDARTS", "ViT"];

/// The names that [`predefined`] knows: cell networks, then torchvision's.
pub const PREDEFINED_NAMES: [&str; CELL_NETWORKS.len() + TORCHVISION_NAMES.len()] = {
    let mut names = [""; CELL_NETWORKS.len() + TORCHVISION_NAMES.len()];
    let mut index = 0;
    while index < names.len() {
        names[index] = if index < CELL_NETWORKS.len() {
            CELL_NETWORKS[index]
        } else {
            TORCHVISION_NAMES[index - CELL_NETWORKS.len()]
        };
        index += 1;
    }
    names
};

/// The network of that name (upper and lower case are the same), for ten classes and 32x32 images.
///
/// `DARTS` and `PDARTS` (arXiv 1806.09055, 1904.12760) have 20 cells of 36 channels, `ViT` has 12 attention blocks
/// of 128 channels; the others are torchvision's residual networks.
///
/// # Errors
/// [`Error::Config`] lists the names.
pub fn predefined(name: &str) -> Result<ArchRecord> {
    let Some(name) = PREDEFINED_NAMES.into_iter().find(|known| known.eq_ignore_ascii_case(name)) else {
        let names = PREDEFINED_NAMES.join(", ");
        return Err(Error::Config(format!("no predefined network `{name}`; there are {names}")));
    };
    let arch = match name {
        "DARTS" => Architecture::Cells(darts(darts_genotype())),
        "PDARTS" => Architecture::Cells(darts(pdarts_genotype())),
        "ViT" => Architecture::Cells(vit()),
        torchvision => Architecture::Torchvision(torchvision.to_owned()),
    };
    Ok(ArchRecord { id: format!("named/{name}"), split: "named".to_owned(), num_classes: 10, arch })
}

fn cell(edges: &[(Op, usize)]) -> Vec<Edge> {
    edges.iter().map(|&(op, input)| Edge(op, input)).collect()
}

fn darts(genotype: Genotype) -> CellArchitecture {
    CellArchitecture {
        channels: 36,
        fc_dim: 0,
        genotype,
        n_cells: 20,
        stem_kernel: 3,
        stem_type: 1,
        stem_pool: false,
        norm: Some(Norm::Batch),
        preproc: true,
        channel_multiplier: 2,
        fc_layers: 1,
        global_pool: true,
        imagenet_input: false,
    }
}

fn darts_genotype() -> Genotype {
    let normal = [
        (SepConv3x3, 0),
        (SepConv3x3, 1),
        (SepConv3x3, 0),
        (SepConv3x3, 1),
        (SepConv3x3, 1),
        (SkipConnect, 0),
        (SkipConnect, 0),
        (DilConv3x3, 2),
    ];
    let reduce = [
        (MaxPool3x3, 0),
        (MaxPool3x3, 1),
        (SkipConnect, 2),
        (MaxPool3x3, 1),
        (MaxPool3x3, 0),
        (SkipConnect, 2),
        (SkipConnect, 2),
        (MaxPool3x3, 1),
    ];
    Genotype {
        normal: cell(&normal),
        normal_concat: vec![2, 3, 4, 5],
        reduce: cell(&reduce),
        reduce_concat: vec![2, 3, 4, 5],
    }
}

fn pdarts_genotype() -> Genotype {
    let normal = [
        (SkipConnect, 0),
        (DilConv3x3, 1),
        (SkipConnect, 0),
        (SepConv3x3, 1),
        (SepConv3x3, 1),
        (SepConv3x3, 3),
        (SepConv3x3, 0),
        (DilConv5x5, 4),
    ];
    let reduce = [
        (AvgPool3x3, 0),
        (SepConv5x5, 1),
        (SepConv3x3, 0),
        (DilConv5x5, 2),
        (MaxPool3x3, 0),
        (DilConv3x3, 1),
        (DilConv3x3, 1),
        (DilConv5x5, 3),
    ];
    Genotype {
        normal: cell(&normal),
        normal_concat: vec![2, 3, 4, 5],
        reduce: cell(&reduce),
        reduce_concat: vec![2, 3, 4, 5],
    }
}

fn vit() -> CellArchitecture {
    let genotype = Genotype {
        normal: cell(&[(Op::None, 0), (Msa, 1)]),
        normal_concat: vec![2],
        reduce: cell(&[(Op::None, 0), (AvgPool3x3, 1)]),
        reduce_concat: vec![2],
    };
    CellArchitecture {
        channels: 128,
        fc_dim: 0,
        genotype,
        n_cells: 12,
        stem_kernel: 3,
        stem_type: 0,
        stem_pool: false,
        norm: Some(Norm::BatchTracked),
        preproc: false,
        channel_multiplier: 1,
        fc_layers: 0,
        global_pool: true,
        imagenet_input: false,
    }
}
