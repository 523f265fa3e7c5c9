//! Lists of architectures: generated splits, predefined networks, files.

use foretell::deepnets::{PREDEFINED_NAMES, Split, generate, predefined};
use foretell::network;
use foretell::space::{ArchRecord, Architecture, read_records, save_records};
use std::collections::BTreeSet;
use std::path::Path;

fn list(split: Split, count: usize, seed: u64) -> Vec<ArchRecord> {
    generate(split, count, seed).unwrap().collect::<Result<_, _>>().unwrap()
}

fn cells(record: &ArchRecord) -> foretell::space::CellArchitecture {
    match &record.arch {
        Architecture::Cells(cells) => cells.clone(),
        Architecture::Torchvision(name) => panic!("{name} in a generated list"),
    }
}

#[test]
fn a_longer_list_begins_with_the_shorter_and_repeats_no_network() {
    for split in Split::ALL {
        let long = list(split, 60, 3);
        assert_eq!(list(split, 20, 3), long[..20], "{split}");
        assert_ne!(list(split, 20, 4), long[..20], "{split}");
        let hashes: BTreeSet<_> = long.iter().map(|record| record.arch.arch_hash()).collect();
        assert_eq!(hashes.len(), long.len(), "{split}");
        for (place, record) in long.iter().enumerate() {
            assert_eq!(record.id, format!("{split}/{place}"));
            network::build(&record.arch, record.num_classes).unwrap();
        }
    }
}

// Pins the random numbers: a list that was published must stay reproducible on every platform and version.
#[test]
fn known_lists_stay_as_they_are() {
    let hashes: Vec<_> =
        list(Split::Test, 500, 1).iter().map(|record| record.arch.arch_hash().to_string()).collect();
    assert_eq!(hashes[..2], ["c35b5e9ab639a037dfef4ac2ee919f83", "6af09008c1c22879fbd49afa43950b37"]);
    assert_eq!(hashes[499], "e20cb71a98fcad73d4b7eec04b0e9f5c");
}

#[test]
fn wide_architectures_are_the_test_architectures_at_another_width() {
    for (wide, test) in list(Split::Wide, 50, 1).iter().zip(list(Split::Test, 50, 1).iter()) {
        let (wide, mut test) = (cells(wide), cells(test));
        assert_eq!((wide.channels, test.channels), (128, 32));
        test.channels = 128;
        assert_eq!(wide, test);
    }
}

#[test]
fn training_architectures_have_the_widths_that_their_size_allows() {
    let mut widths = BTreeSet::new();
    for record in list(Split::Train, 400, 1) {
        let arch = cells(&record);
        let mut narrow = arch.clone();
        (narrow.channels, narrow.fc_dim) = (32, 256);
        let n_params = network::expand(&narrow, 10).unwrap().n_params_unpruned();
        assert!(arch.channels.is_multiple_of(16) && (32..=128).contains(&arch.channels));
        assert!(arch.fc_dim.is_multiple_of(64) && (64..=512).contains(&arch.fc_dim));
        if n_params > 800_000 || arch.n_cells > 12 || !arch.global_pool {
            assert_eq!(arch.channels, 32, "{}", record.id);
        }
        if n_params > 200_000 || arch.n_cells > 8 {
            assert!(arch.channels <= 64 && arch.fc_dim <= 256, "{}", record.id);
        }
        if arch.channels > 64 {
            assert!(arch.fc_dim <= 256, "{}", record.id);
        }
        widths.insert((arch.channels, arch.fc_dim));
    }
    assert!(
        widths.iter().any(|width| width.0 == 128) && widths.iter().any(|width| width.1 == 512),
        "{widths:?}"
    );
}

#[test]
fn predefined_networks_equal_the_fixtures() {
    let fixtures = read_records("tests/fixtures/archs.json").unwrap();
    let named: Vec<_> = fixtures.iter().filter(|record| record.split == "named").collect();
    assert_eq!(named.len(), 4);
    for record in named {
        let name = record.id.strip_prefix("named/").unwrap();
        assert_eq!(predefined(name).unwrap(), *record);
        assert_eq!(predefined(&name.to_uppercase()).unwrap(), *record);
    }
    for name in PREDEFINED_NAMES {
        let record = predefined(name).unwrap();
        network::build(&record.arch, record.num_classes).unwrap();
    }
    let message = predefined("alexnet").unwrap_err().to_string();
    assert!(message.contains("`alexnet`") && message.contains("wide_resnet50_2"), "{message}");
}

#[test]
fn lists_survive_writing_and_reading() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("list.jsonl");
    let mut records = list(Split::Search, 5, 1);
    records.push(predefined("resnet18").unwrap());
    save_records(&path, &records).unwrap();
    assert_eq!(read_records(&path).unwrap(), records);
    assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 6);

    let text = std::fs::read_to_string(&path).unwrap();
    let fail = |text: &str| {
        std::fs::write(&path, text).unwrap();
        read_records(&path).unwrap_err().to_string()
    };
    let message = fail(&text.replacen("sep_conv_3x3", "sepconv", 1));
    assert!(message.contains("list.jsonl: line ") && message.contains("sepconv"), "{message}");
    let message = fail(&text.replace("\"search/1\"", "\"search/0\""));
    assert!(message.contains("line 2: a second architecture with the id \"search/0\""), "{message}");
    assert!(fail("[{\"id\": 3}]").contains("record 1: "));
    let message = read_records(Path::new("absent.jsonl")).unwrap_err().to_string();
    assert!(message.starts_with("cannot read absent.jsonl"), "{message}");
}
