//! From what a user types to an architecture: the name of a predefined network, or a file and an id in it.

use super::predefined::{PREDEFINED_NAMES, predefined};
use crate::space::{ArchRecord, read_records};
use crate::{Error, Result};
use std::path::Path;

/// The architecture that `text` names: a predefined network, `FILE` (with one record, or with `id`) or `FILE#ID`.
///
/// `num_classes` replaces the number of classes of the record (10 for predefined networks).
///
/// # Errors
/// If there is no such name, file or id; the message lists what there is.
pub fn resolve(text: &str, id: Option<&str>, num_classes: Option<usize>) -> Result<ArchRecord> {
    if PREDEFINED_NAMES.into_iter().any(|known| known.eq_ignore_ascii_case(text)) {
        if let Some(id) = id {
            return Err(Error::Config(format!(
                "{text} is a predefined network, so there is no id {id:?} in it"
            )));
        }
        return predefined(text).map(|record| with_classes(record, num_classes));
    }
    let (file, id) = match (text.rsplit_once('#'), id) {
        _ if Path::new(text).exists() => (text, id),
        (Some((file, fragment)), None) => (file, Some(fragment)),
        (Some((file, fragment)), Some(id)) if Path::new(file).exists() => {
            return Err(Error::Config(format!("{file}: two ids are given, {fragment:?} and {id:?}")));
        }
        (_, id) => (text, id),
    };
    if !Path::new(file).exists() {
        return Err(Error::Config(format!(
            "{file:?} is neither a file nor a predefined network; predefined: {}",
            PREDEFINED_NAMES.join(", ")
        )));
    }
    let mut records = read_records(file)?;
    let ids = || {
        let first: Vec<&str> = records.iter().take(8).map(|record| record.id.as_str()).collect();
        format!("{}{}", first.join(", "), if records.len() > 8 { ", ..." } else { "" })
    };
    let index = match id {
        Some(id) => records.iter().position(|record| record.id == id).ok_or_else(|| {
            Error::format(file, format!("there is no architecture with the id {id:?}; there are {}", ids()))
        })?,
        None if records.len() == 1 => 0,
        None if records.is_empty() => return Err(Error::format(file, "holds no architecture")),
        None => {
            let count = records.len();
            return Err(Error::format(
                file,
                format!("holds {count} architectures, pick one by its id: {}", ids()),
            ));
        }
    };
    Ok(with_classes(records.swap_remove(index), num_classes))
}

fn with_classes(record: ArchRecord, num_classes: Option<usize>) -> ArchRecord {
    ArchRecord { num_classes: num_classes.unwrap_or(record.num_classes), ..record }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_files_and_ids() {
        let record = resolve("resnet50", None, None).unwrap();
        assert_eq!((record.id.as_str(), record.num_classes), ("named/resnet50", 10));
        assert_eq!(resolve("vit", None, None).unwrap().id, "named/ViT");
        assert_eq!(resolve("resnet50", None, Some(1000)).unwrap().num_classes, 1000);

        let archs = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/archs.json");
        assert_eq!(resolve(&format!("{archs}#train/7"), None, None).unwrap().id, "train/7");
        assert_eq!(resolve(archs, Some("deep/0"), Some(7)).unwrap().num_classes, 7);
        let message = |text: &str, id| resolve(text, id, None).unwrap_err().to_string();
        assert!(message(archs, None).contains("holds 82 architectures"));
        assert!(message(archs, Some("deep/99")).contains("no architecture with the id \"deep/99\""));
        assert!(message(&format!("{archs}#deep/0"), Some("deep/1")).contains("two ids"));
        assert!(message("resnet51", None).contains("wide_resnet50_2"));
        assert!(message("resnet50", Some("a")).contains("predefined"));
    }
}
