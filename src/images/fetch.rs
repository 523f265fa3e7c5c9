//! Fetching whole data sets: from the official addresses, another address, or a folder on this machine.
//!
//! In: the name of a set. Out: a folder that [`open`](super::open) reads. Every file is checked against a known
//! sha256 before the folder appears under its name, all at once; a fetch that was interrupted continues.

use super::download::{Download, download};
use super::fashion::hex;
use crate::{Error, Result};
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// What a file's digest is taken of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verify {
    /// The file as it is.
    Packed,
    /// What gunzip makes of it: mirrors compress the same content differently.
    Unpacked,
}

/// A file to fetch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteFile {
    /// Its name, at the address and in the folder.
    pub file: String,
    /// What the digest and size are taken of.
    pub verify: Verify,
    /// Bytes.
    pub bytes: u64,
    /// Digest, lower-case hexadecimal.
    pub sha256: String,
}

/// A data set that can be fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteSet {
    /// Its name, also of its folder.
    pub name: String,
    /// The files stand below this address.
    pub url: String,
    /// Its files.
    pub files: Vec<RemoteFile>,
    /// If the only file is a `.tar.gz`: the files in it that make up the set, named without their folder.
    pub unpack: Vec<String>,
}

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

/// The set of this name: `fashion-mnist` or `cifar10`.
pub fn remote_set(name: &str) -> Result<RemoteSet> {
    let file = |file: &str, verify, bytes, sha256: &str| RemoteFile {
        file: file.into(),
        verify,
        bytes,
        sha256: sha256.into(),
    };
    let gzip = |name: &str, bytes, sha256| file(&format!("{name}.gz"), Verify::Unpacked, bytes, sha256);
    match name {
        "fashion-mnist" => Ok(RemoteSet {
            name: name.into(),
            url: "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion".into(),
            files: vec![
                gzip(
                    "train-images-idx3-ubyte",
                    47_040_016,
                    "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
                ),
                gzip(
                    "train-labels-idx1-ubyte",
                    60_008,
                    "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
                ),
                gzip(
                    "t10k-images-idx3-ubyte",
                    7_840_016,
                    "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
                ),
                gzip(
                    "t10k-labels-idx1-ubyte",
                    10_008,
                    "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
                ),
            ],
            unpack: Vec::new(),
        }),
        "cifar10" => Ok(RemoteSet {
            name: name.into(),
            url: "https://www.cs.toronto.edu/~kriz".into(),
            files: vec![file(
                "cifar-10-binary.tar.gz",
                Verify::Packed,
                170_052_171,
                "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
            )],
            unpack: (1..=5)
                .map(|n| format!("data_batch_{n}.bin"))
                .chain(["test_batch.bin".into(), "batches.meta.txt".into()])
                .collect(),
        }),
        _ => Err(Error::Config(format!("data set {name}: fashion-mnist and cifar10 can be fetched"))),
    }
}

/// Downloads a set to `root/NAME` and returns that folder; one that is there already is left as it is.
pub fn fetch_set(set: &RemoteSet, root: &Path, progress: &mut dyn FnMut(Download<'_>)) -> Result<PathBuf> {
    assemble(set, root, &mut |file, part| {
        download(&format!("{}/{}", set.url.trim_end_matches('/'), file.file), part, &file.file, progress)
    })
}

/// Copies a set from folder `from` to `root/NAME`, with the same checks as [`fetch_set`].
pub fn copy_set(set: &RemoteSet, from: &Path, root: &Path) -> Result<PathBuf> {
    assemble(set, root, &mut |file, part| {
        let source = from.join(&file.file);
        let mut input = File::open(&source).map_err(Error::io("read", &source))?;
        let mut output = File::create(part).map_err(Error::io("create", part))?;
        io::copy(&mut input, &mut output).map_err(Error::io("copy", &source))?;
        output.sync_all().map_err(Error::io("write", part))
    })
}

/// Gets each file with `get(file, partial path)`, checks it, and moves the whole folder to its place.
fn assemble(
    set: &RemoteSet,
    root: &Path,
    get: &mut dyn FnMut(&RemoteFile, &Path) -> Result<()>,
) -> Result<PathBuf> {
    let place = root.join(&set.name);
    if place.exists() {
        return Ok(place);
    }
    let staging = root.join(format!(".{}.partial", set.name));
    fs::create_dir_all(&staging).map_err(Error::io("create", &staging))?;
    let lock_path = staging.join(".lock");
    let lock = File::create(&lock_path).map_err(Error::io("create", &lock_path))?;
    if lock.try_lock().is_err() {
        return Err(Error::Config(format!("{}: another process is fetching this set", staging.display())));
    }
    // The other process may have finished between the two looks.
    if place.exists() {
        return Ok(place);
    }
    for file in &set.files {
        let whole = staging.join(&file.file);
        if whole.exists() {
            continue;
        }
        let part = staging.join(format!("{}.part", file.file));
        get(file, &part)?;
        if let Err(error) = verify(file, &part) {
            fs::remove_file(&part).map_err(Error::io("remove", &part))?;
            return Err(error);
        }
        fs::rename(&part, &whole).map_err(Error::io("rename", &part))?;
    }
    if !set.unpack.is_empty() {
        for file in &set.files {
            let archive = staging.join(&file.file);
            unpack(&archive, &set.unpack, &staging)?;
            fs::remove_file(&archive).map_err(Error::io("remove", &archive))?;
        }
    }
    fs::remove_file(&lock_path).map_err(Error::io("remove", &lock_path))?;
    fs::rename(&staging, &place).map_err(Error::io("rename", &staging))?;
    File::open(root).and_then(|folder| folder.sync_all()).map_err(Error::io("write", root))?;
    Ok(place)
}

fn verify(file: &RemoteFile, part: &Path) -> Result<()> {
    let opened = File::open(part).map_err(Error::io("read", part))?;
    let mut reader: Box<dyn Read> = match file.verify {
        Verify::Packed => Box::new(opened),
        Verify::Unpacked => Box::new(flate2::read::MultiGzDecoder::new(io::BufReader::new(opened))),
    };
    let what = if file.verify == Verify::Unpacked { " unpacked" } else { "" };
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    let mut bytes = 0;
    loop {
        let read = reader
            .read(&mut buffer)
            .map_err(|error| Error::format(part, format!("damaged or cut off gzip data: {error}")))?;
        hash.update(&buffer[..read]);
        bytes += read as u64;
        if read == 0 || bytes > file.bytes {
            break;
        }
    }
    if bytes != file.bytes {
        let found = if bytes > file.bytes { "more".to_string() } else { bytes.to_string() };
        return Err(Error::format(part, format!("{} bytes{what} expected, found {found}", file.bytes)));
    }
    let found = hex(&hash.finalize());
    if found != file.sha256 {
        return Err(Error::format(part, format!("sha256{what} {} expected, found {found}", file.sha256)));
    }
    Ok(())
}

/// Takes the `wanted` files out of a `.tar.gz`, whatever folder they stand in there.
fn unpack(archive: &Path, wanted: &[String], to: &Path) -> Result<()> {
    let damaged = |error: io::Error| Error::format(archive, format!("damaged archive: {error}"));
    let file = File::open(archive).map_err(Error::io("read", archive))?;
    let mut tar = tar::Archive::new(flate2::read::MultiGzDecoder::new(io::BufReader::new(file)));
    let mut missing: Vec<&String> = wanted.iter().collect();
    for entry in tar.entries().map_err(damaged)? {
        let mut entry = entry.map_err(damaged)?;
        let name = entry.path().map_err(damaged)?.file_name().map(|name| name.to_string_lossy().into_owned());
        let Some(at) = missing.iter().position(|wanted| Some(*wanted) == name.as_ref()) else { continue };
        let path = to.join(missing.swap_remove(at));
        let mut out = File::create(&path).map_err(Error::io("create", &path))?;
        io::copy(&mut entry, &mut out).map_err(damaged)?;
        out.sync_all().map_err(Error::io("write", &path))?;
    }
    if !missing.is_empty() {
        missing.sort();
        return Err(Error::format(archive, format!("these files are not in it: {missing:?}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
