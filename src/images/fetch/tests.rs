use super::*;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// An HTTP server on this machine that serves one content at every path.
struct Server {
    url: String,
    /// The `Range` of every request so far, empty where there was none.
    ranges: Arc<Mutex<Vec<String>>>,
}

#[derive(Clone, Copy, PartialEq)]
enum Manner {
    /// As it should be.
    Right,
    /// The first answer breaks off after this many bytes.
    BreaksOff(usize),
    /// No ranges: always the whole file; the first answer breaks off as above.
    NoRanges(usize),
    /// No such file.
    NotFound,
}

fn serve(content: Vec<u8>, manner: Manner) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/data", listener.local_addr().unwrap());
    let ranges = Arc::new(Mutex::new(Vec::new()));
    let seen = ranges.clone();
    std::thread::spawn(move || {
        for (n, stream) in listener.incoming().enumerate() {
            answer(stream.unwrap(), &content, manner, n == 0, &seen);
        }
    });
    Server { url, ranges }
}

fn answer(mut stream: TcpStream, content: &[u8], manner: Manner, first: bool, seen: &Mutex<Vec<String>>) {
    let mut range = String::new();
    for line in BufReader::new(stream.try_clone().unwrap()).lines() {
        let line = line.unwrap().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("range: bytes=") {
            range = value.to_string();
        }
    }
    seen.lock().unwrap().push(range.clone());
    let start: usize = match manner {
        Manner::NoRanges(_) => 0,
        _ => range.trim_end_matches('-').parse().unwrap_or(0),
    };
    let size = content.len();
    let head = match manner {
        Manner::NotFound => "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n".to_string(),
        _ if start >= size => {
            format!("HTTP/1.1 416 No\r\nContent-Range: bytes */{size}\r\nContent-Length: 0\r\n")
        }
        _ if start == 0 => format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n"),
        _ => format!(
            "HTTP/1.1 206 Partial\r\nContent-Range: bytes {start}-{}/{size}\r\nContent-Length: {}\r\n",
            size - 1,
            size - start
        ),
    };
    write!(stream, "{head}Connection: close\r\n\r\n").unwrap();
    let end = match manner {
        Manner::NotFound => start.min(size),
        Manner::BreaksOff(after) | Manner::NoRanges(after) if first => after,
        _ => size,
    };
    if start < end {
        stream.write_all(&content[start..end]).unwrap();
    }
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

fn content() -> Vec<u8> {
    (0..200_000u32).map(|i| (i.wrapping_mul(i) % 251) as u8).collect()
}

/// A set of one file, checked after gunzip.
fn one_file(url: &str, content: &[u8]) -> RemoteSet {
    let file = RemoteFile {
        file: "numbers.gz".into(),
        verify: Verify::Unpacked,
        bytes: content.len() as u64,
        sha256: hex(&Sha256::digest(content)),
    };
    RemoteSet { name: "numbers".into(), url: url.into(), files: vec![file], unpack: Vec::new() }
}

#[test]
fn a_set_is_downloaded_and_appears_whole() {
    let packed = gzip(&content());
    let server = serve(packed.clone(), Manner::Right);
    let root = tempfile::tempdir().unwrap();
    let set = one_file(&server.url, &content());
    let mut last = None;
    let place = fetch_set(&set, root.path(), &mut |at| last = Some((at.file.to_string(), at.have, at.total)))
        .unwrap();
    assert_eq!(place, root.path().join("numbers"));
    assert_eq!(fs::read(place.join("numbers.gz")).unwrap(), packed);
    assert_eq!(last, Some(("numbers.gz".into(), packed.len() as u64, Some(packed.len() as u64))));
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1, "nothing else is left");
    assert_eq!(fs::read_dir(&place).unwrap().count(), 1, "nothing else is left");
    fetch_set(&set, root.path(), &mut |_| {}).unwrap();
    assert_eq!(*server.ranges.lock().unwrap(), [""], "what is there is not fetched again");
}

#[test]
fn a_transfer_that_breaks_off_continues() {
    let packed = gzip(&content());
    for manner in [Manner::BreaksOff(70_000), Manner::NoRanges(70_000)] {
        let server = serve(packed.clone(), manner);
        let root = tempfile::tempdir().unwrap();
        let place = fetch_set(&one_file(&server.url, &content()), root.path(), &mut |_| {}).unwrap();
        assert_eq!(fs::read(place.join("numbers.gz")).unwrap(), packed);
        assert_eq!(*server.ranges.lock().unwrap(), ["", "70000-"]);
    }
}

#[test]
fn a_later_run_continues_an_interrupted_one() {
    let packed = gzip(&content());
    for already in [50_000, packed.len()] {
        let server = serve(packed.clone(), Manner::Right);
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join(".numbers.partial")).unwrap();
        fs::write(root.path().join(".numbers.partial/numbers.gz.part"), &packed[..already]).unwrap();
        let place = fetch_set(&one_file(&server.url, &content()), root.path(), &mut |_| {}).unwrap();
        assert_eq!(fs::read(place.join("numbers.gz")).unwrap(), packed);
        assert_eq!(*server.ranges.lock().unwrap(), [format!("{already}-")]);
    }
}

#[test]
fn a_longer_partial_file_of_something_else_is_dropped() {
    let packed = gzip(&content());
    let server = serve(packed.clone(), Manner::Right);
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join(".numbers.partial")).unwrap();
    fs::write(root.path().join(".numbers.partial/numbers.gz.part"), vec![7; packed.len() + 10]).unwrap();
    let place = fetch_set(&one_file(&server.url, &content()), root.path(), &mut |_| {}).unwrap();
    assert_eq!(fs::read(place.join("numbers.gz")).unwrap(), packed);
}

#[test]
fn wrong_content_is_refused_and_never_appears() {
    let mut wrong = content();
    wrong[1000] ^= 1;
    let cut = gzip(&content())[..5000].to_vec();
    let cases = [
        (gzip(&wrong), "sha256 unpacked"),
        (gzip(&content()[1..]), "200000 bytes unpacked expected, found 199999"),
        (gzip(&[content(), vec![1]].concat()), "200000 bytes unpacked expected, found more"),
        (cut, "damaged or cut off gzip data"),
        (b"<html>moved</html>".to_vec(), "damaged or cut off gzip data"),
    ];
    for (served, reason) in cases {
        let server = serve(served, Manner::Right);
        let root = tempfile::tempdir().unwrap();
        let error = fetch_set(&one_file(&server.url, &content()), root.path(), &mut |_| {}).unwrap_err();
        assert!(error.to_string().contains(reason) && error.to_string().contains("numbers.gz"), "{error}");
        assert!(!root.path().join("numbers").exists());
        assert!(!root.path().join(".numbers.partial/numbers.gz.part").exists(), "a next run starts anew");
    }
}

#[test]
fn a_server_without_the_file_is_named() {
    let server = serve(content(), Manner::NotFound);
    let root = tempfile::tempdir().unwrap();
    let error =
        fetch_set(&one_file(&server.url, &content()), root.path(), &mut |_| {}).unwrap_err().to_string();
    assert!(error.contains(&format!("cannot download {}/numbers.gz", server.url)), "{error}");
    assert!(error.contains("404"), "{error}");
}

#[test]
fn a_set_is_copied_from_a_folder_with_the_same_checks() {
    let (from, root) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let set = one_file("unused", &content());
    let error = copy_set(&set, from.path(), root.path()).unwrap_err().to_string();
    assert!(error.contains("cannot read") && error.contains("numbers.gz"), "{error}");
    fs::write(from.path().join("numbers.gz"), gzip(b"something else")).unwrap();
    let error = copy_set(&set, from.path(), root.path()).unwrap_err().to_string();
    assert!(error.contains("200000 bytes unpacked expected, found 14"), "{error}");
    assert!(!root.path().join("numbers").exists());
    fs::write(from.path().join("numbers.gz"), gzip(&content())).unwrap();
    let place = copy_set(&set, from.path(), root.path()).unwrap();
    assert_eq!(fs::read(place.join("numbers.gz")).unwrap(), gzip(&content()));
}

#[test]
fn an_archive_is_unpacked_to_the_files_of_the_set() {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, body) in [("inner/readme.html", "no"), ("inner/a.bin", "first"), ("b.bin", "second")] {
        let mut header = tar::Header::new_gnu();
        header.set_size(body.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        tar.append_data(&mut header, name, body.as_bytes()).unwrap();
    }
    let archive = gzip(&tar.into_inner().unwrap());
    let (from, root) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(from.path().join("set.tar.gz"), &archive).unwrap();
    let file = RemoteFile {
        file: "set.tar.gz".into(),
        verify: Verify::Packed,
        bytes: archive.len() as u64,
        sha256: hex(&Sha256::digest(&archive)),
    };
    let unpack = |files: &[&str]| files.iter().map(|file| file.to_string()).collect();
    let mut set = RemoteSet {
        name: "set".into(),
        url: String::new(),
        files: vec![file],
        unpack: unpack(&["a.bin", "b.bin", "c.bin"]),
    };
    let error = copy_set(&set, from.path(), root.path()).unwrap_err().to_string();
    assert!(error.contains("not in it: [\"c.bin\"]"), "{error}");
    set.unpack = unpack(&["a.bin", "b.bin"]);
    let place = copy_set(&set, from.path(), root.path()).unwrap();
    assert_eq!(fs::read_to_string(place.join("a.bin")).unwrap(), "first");
    assert_eq!(fs::read_to_string(place.join("b.bin")).unwrap(), "second");
    assert_eq!(fs::read_dir(&place).unwrap().count(), 2);
}

#[test]
fn two_processes_do_not_fetch_the_same_set_at_once() {
    let root = tempfile::tempdir().unwrap();
    let staging = root.path().join(".numbers.partial");
    fs::create_dir(&staging).unwrap();
    let lock = File::create(staging.join(".lock")).unwrap();
    lock.lock().unwrap();
    let error = copy_set(&one_file("", &content()), root.path(), root.path()).unwrap_err().to_string();
    assert!(error.contains("another process is fetching"), "{error}");
}

#[test]
fn only_known_sets_can_be_fetched() {
    assert_eq!(remote_set("fashion-mnist").unwrap().files.len(), 4);
    assert_eq!(remote_set("cifar10").unwrap().unpack.len(), 7);
    let error = remote_set("imagenet").unwrap_err().to_string();
    assert!(error.contains("imagenet: fashion-mnist and cifar10 can be fetched"), "{error}");
}
