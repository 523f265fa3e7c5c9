//! Where fetched data sets lie.

use crate::{Error, Result};
use std::path::PathBuf;

/// Folder of fetched sets: `$XDG_DATA_HOME/foretell`, else `~/.local/share/foretell`.
pub fn default_root() -> Result<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("XDG_DATA_HOME")
        .or_else(|| set("HOME").map(|home| home.join(".local/share")))
        .map(|folder| folder.join("foretell"))
        .ok_or_else(|| {
            Error::Config(
                "neither XDG_DATA_HOME nor HOME is set; name the folder of data sets with --to".into(),
            )
        })
}
