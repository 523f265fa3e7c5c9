//! `foretell data`: fetch image sets, look at them, and make the bundled slice.

use super::output::print;
use crate::Error;
use crate::images::{self, DataSet, Download, ImageSet, OpenOptions, RemoteSet};
use anyhow::Context;
use clap::Subcommand;
use indicatif::{ProgressBar, ProgressStyle};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Fetch image sets and look at them.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Fetch a full set, check it and put it where its name finds it.
    Fetch {
        /// fashion-mnist or cifar10.
        set: String,
        /// A folder that holds the set's files, or another address to download them from.
        #[arg(long, value_name = "DIR|URL")]
        from: Option<String>,
        /// Folder of data sets [default: $XDG_DATA_HOME/foretell or ~/.local/share/foretell].
        #[arg(long, value_name = "DIR")]
        to: Option<PathBuf>,
    },
    /// Show counts, classes and statistics of a set.
    Show {
        /// fashion-mnist, fashion-mnist-slice, cifar10, or a folder.
        data: String,
        /// Write a picture with ten validation images of each class.
        #[arg(long, value_name = "FILE")]
        png: Option<PathBuf>,
        /// Height and width that images of image folders are resized to.
        #[arg(long, default_value_t = 32)]
        size: usize,
        /// Share of the training images that are kept back for validation.
        #[arg(long, value_name = "SHARE")]
        validation: Option<f64>,
    },
    /// Make the slice of Fashion-MNIST that is part of the program.
    Slice {
        /// Folder of the full set.
        #[arg(long, value_name = "DIR")]
        from: PathBuf,
        /// Folder to write to.
        #[arg(long, value_name = "DIR")]
        to: PathBuf,
    },
}

/// Runs the command.
pub fn run(args: Args) -> anyhow::Result<()> {
    match args.command {
        Command::Fetch { set, from, to } => fetch(&set, from, to),
        Command::Show { data, png, size, validation } => {
            let options = OpenOptions { size, validation_share: validation, ..OpenOptions::default() };
            let opened = images::open_with(&data, &options)?;
            if let Some(path) = png {
                images::contact_sheet(&opened.validation, 10, &path)?;
                eprintln!("picture written to {}", path.display());
            }
            print(&describe(&opened))
        }
        Command::Slice { from, to } => Ok(images::write_slice(&from, &to)?),
    }
}

fn fetch(name: &str, from: Option<String>, to: Option<PathBuf>) -> anyhow::Result<()> {
    let mut set = images::remote_set(name)?;
    let root = to.map_or_else(images::default_root, Ok)?;
    let present = root.join(&set.name).exists();
    let is_address = |from: &str| from.starts_with("http://") || from.starts_with("https://");
    let place = match from {
        Some(folder) if !is_address(&folder) => images::copy_set(&set, folder.as_ref(), &root)?,
        address => {
            set.url = address.unwrap_or(set.url);
            download(&set, &root)?
        }
    };
    if present {
        eprintln!("{} was there already; remove it to fetch it again", place.display());
    }
    let data = images::open_with(&place.display().to_string(), &OpenOptions::default())?;
    print(&describe(&data))
}

fn download(set: &RemoteSet, root: &Path) -> anyhow::Result<PathBuf> {
    let bar = ProgressBar::no_length().with_style(ProgressStyle::with_template(
        "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}",
    )?);
    let fetched = images::fetch_set(set, root, &mut |at: Download<'_>| {
        if bar.message() != at.file {
            bar.set_message(at.file.to_string());
            bar.reset_eta();
        }
        if let Some(total) = at.total {
            bar.set_length(total);
        }
        bar.set_position(at.have);
    });
    bar.finish_and_clear();
    match fetched {
        Err(error @ Error::Io { action: "download", .. }) => {
            Err(error).context("the download is not finished (the same command continues it)")
        }
        other => Ok(other?),
    }
}

/// Counts, geometry, constants and classes, a line each.
fn describe(data: &DataSet) -> String {
    let images_of =
        |set: Option<&Arc<ImageSet>>| set.map_or("none".into(), |set| format!("{} images", set.len()));
    let [channels, height, width] = data.validation.stored_shape();
    let [batch_channels, batch_height, batch_width] = data.validation.batch_shape();
    let constants = data.normalisation();
    let rows = [
        ("name", data.name.clone()),
        ("source", data.source.clone()),
        ("training", images_of(data.train.as_ref())),
        ("validation", images_of(Some(&data.validation))),
        ("test", images_of(data.test.as_ref())),
        (
            "images",
            format!(
                "{channels}x{height}x{width}, in batches {batch_channels}x{batch_height}x{batch_width} \
                 (channels x height x width)"
            ),
        ),
        ("mean", format!("{:?}", constants.mean)),
        ("sd", format!("{:?}", constants.sd)),
        ("classes", format!("{}, with so many validation images:", data.classes().len())),
    ];
    let mut text: String = rows.iter().map(|(name, value)| format!("{name:<11} {value}\n")).collect();
    let mut counts = vec![0; data.classes().len()];
    for &label in data.validation.labels() {
        counts[label as usize] += 1;
    }
    for (label, (class, count)) in data.classes().iter().zip(counts).enumerate() {
        text += &format!("  {label:3} {class:20} {count:6}\n");
    }
    text
}
