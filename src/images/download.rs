//! Downloading one file over HTTP; a transfer that breaks off continues where it stopped.
//!
//! In: an address and the path of a partial file. Out: the whole file at that path, its content not yet checked.

use crate::{Error, Result};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::path::Path;
use std::time::Duration;

/// Attempts without a single new byte before giving up.
const ATTEMPTS: u32 = 4;

/// Bytes of a file that are there, and of the whole file if the server says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Download<'a> {
    /// The file's name.
    pub file: &'a str,
    /// Bytes on disk.
    pub have: u64,
    /// Bytes of the whole file.
    pub total: Option<u64>,
}

/// Why a transfer ended.
enum Transfer {
    Complete,
    /// The connection broke, or the server was busy.
    Broken(io::Error),
}

/// Downloads `url` to `part`, continuing the bytes that are there, and fsyncs it.
///
/// # Errors
/// If the server refuses, or after several attempts that bring nothing; `part` stays for a later run.
pub(super) fn download(
    url: &str,
    part: &Path,
    file: &str,
    progress: &mut dyn FnMut(Download<'_>),
) -> Result<()> {
    let agent = agent(url);
    let mut out =
        OpenOptions::new().create(true).append(true).open(part).map_err(Error::io("create", part))?;
    let mut fruitless = 0;
    loop {
        let before = length(&out, part)?;
        match transfer(&agent, url, &mut out, part, file, progress)? {
            Transfer::Complete => return out.sync_all().map_err(Error::io("write", part)),
            Transfer::Broken(reason) => {
                fruitless = if length(&out, part)? > before { 1 } else { fruitless + 1 };
                if fruitless >= ATTEMPTS {
                    return Err(Error::io("download", url)(reason));
                }
                std::thread::sleep(Duration::from_millis(250 << fruitless));
            }
        }
    }
}

fn agent(url: &str) -> ureq::Agent {
    let mut config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        // A compressed transfer would make byte offsets meaningless.
        .accept_encoding("identity")
        .user_agent(concat!("foretell/", env!("CARGO_PKG_VERSION")))
        .timeout_connect(Some(Duration::from_secs(30)))
        .timeout_recv_response(Some(Duration::from_secs(60)))
        .timeout_per_read(Some(Duration::from_secs(60)));
    // A server on this machine is not reached through a proxy.
    let host = url.split_once("://").map_or(url, |(_, rest)| rest);
    if ["127.0.0.1", "localhost", "[::1]"].iter().any(|local| host.starts_with(local)) {
        config = config.proxy(None);
    }
    config.build().new_agent()
}

fn length(out: &File, part: &Path) -> Result<u64> {
    Ok(out.metadata().map_err(Error::io("read", part))?.len())
}

fn transfer(
    agent: &ureq::Agent,
    url: &str,
    out: &mut File,
    part: &Path,
    file: &str,
    progress: &mut dyn FnMut(Download<'_>),
) -> Result<Transfer> {
    let mut have = length(out, part)?;
    let mut request = agent.get(url);
    if have > 0 {
        request = request.header("Range", format!("bytes={have}-"));
    }
    let response = match request.call() {
        Ok(response) => response,
        Err(error @ (ureq::Error::Io(_) | ureq::Error::Timeout(_) | ureq::Error::ConnectionFailed)) => {
            return Ok(Transfer::Broken(error.into_io()));
        }
        Err(error) => return Err(Error::io("download", url)(error.into_io())),
    };
    let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
    let content_range = header("content-range").unwrap_or_default().to_string();
    let content_length: Option<u64> = header("content-length").and_then(|value| value.parse().ok());
    match response.status().as_u16() {
        206 if content_range.starts_with(&format!("bytes {have}-")) => {}
        // All bytes were there already.
        416 if content_range == format!("bytes */{have}") => return Ok(Transfer::Complete),
        // The file at the address is another one, or the server sends whatever part it likes: start anew.
        206 | 416 if have > 0 => {
            restart(out, part)?;
            return Ok(Transfer::Broken(io::Error::other(format!("unusable answer {content_range:?}"))));
        }
        200 => {
            restart(out, part)?;
            have = 0;
        }
        status => {
            let reason = io::Error::other(format!("the server answered {}", response.status()));
            return match status {
                429 | 500..=599 => Ok(Transfer::Broken(reason)),
                _ => Err(Error::io("download", url)(reason)),
            };
        }
    }
    let total = content_length.map(|rest| have + rest);
    let mut body = response.into_body().into_reader();
    let mut buffer = vec![0; 1 << 16];
    loop {
        progress(Download { file, have, total });
        let read = match body.read(&mut buffer) {
            Ok(read) => read,
            Err(error) => return Ok(Transfer::Broken(error)),
        };
        if read == 0 {
            break;
        }
        out.write_all(&buffer[..read]).map_err(Error::io("write", part))?;
        have += read as u64;
    }
    match total {
        Some(total) if have < total => Ok(Transfer::Broken(io::Error::other(format!(
            "the transfer broke off after {have} of {total} bytes"
        )))),
        _ => Ok(Transfer::Complete),
    }
}

fn restart(out: &mut File, part: &Path) -> Result<()> {
    out.set_len(0).and_then(|()| out.rewind()).map_err(Error::io("write", part))
}
