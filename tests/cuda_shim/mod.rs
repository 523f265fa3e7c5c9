//! Runs programs for GPUs on the CPU: their CUDA C++ is compiled by the C++ compiler with `device.hpp` in front.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, LazyLock, Mutex, OnceLock};

use foretell::kernels::program::{Argument, Buffer, Launch, Program, Source};

const DEVICE: &str = include_str!("device.hpp");
const JOB: &str = include_str!("job.hpp");

/// In which order the threads of a block, and the blocks, run between two barriers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    Forward,
    Reverse,
    Random(u32),
}

/// Runs all launches; the outputs, or what the shim found wrong.
pub fn run(program: &Program, inputs: &[&[f32]], order: Order) -> Result<Vec<Vec<f32>>, String> {
    let mut given = inputs.iter();
    let mut buffers: Vec<Vec<u32>> = program
        .buffers
        .iter()
        .map(|buffer| match buffer {
            Buffer::Input(len) => {
                let input = given.next().expect("an input for every input buffer");
                assert_eq!(input.len(), *len);
                input.iter().map(|value| value.to_bits()).collect()
            }
            Buffer::Table(words) => words.to_vec(),
            Buffer::Scratch(len) | Buffer::Output(len) => vec![f32::NAN.to_bits(); *len],
        })
        .collect();
    assert!(given.next().is_none(), "more inputs than input buffers");
    for launch in &program.launches {
        execute(launch, &mut buffers, order)?;
    }
    let outputs = program.buffers.iter().zip(buffers);
    let outputs = outputs.filter(|(buffer, _)| matches!(buffer, Buffer::Output(_)));
    Ok(outputs.map(|(_, words)| words.into_iter().map(f32::from_bits).collect()).collect())
}

/// One launch over the buffers that it names.
pub fn execute(launch: &Launch, buffers: &mut [Vec<u32>], order: Order) -> Result<(), String> {
    let mut named: Vec<usize> = Vec::new();
    let mut arguments = Vec::new();
    for argument in &launch.arguments {
        match *argument {
            Argument::Number(number) => arguments.extend([1, number]),
            Argument::Buffer(buffer) => {
                let at = named.iter().position(|&other| other == buffer).unwrap_or(named.len());
                if at == named.len() {
                    named.push(buffer);
                }
                arguments.extend([0, at as u32]);
            }
        }
    }
    let (order, seed) = match order {
        Order::Forward => (0, 0),
        Order::Reverse => (1, 0),
        Order::Random(seed) => (2, seed),
    };
    let [x, y] = launch.grid;
    let mut job = vec![order, seed, x, y, launch.threads, launch.shared_bytes, named.len() as u32];
    job.extend(named.iter().map(|&buffer| buffers[buffer].len() as u32));
    job.push(launch.arguments.len() as u32);
    job.extend(arguments);
    named.iter().for_each(|&buffer| job.extend(&buffers[buffer]));
    let bytes: Vec<u8> = job.into_iter().flat_map(u32::to_le_bytes).collect();

    let mut child = Command::new(compiled(&launch.source, launch.kernel))
        .arg(launch.kernel)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The program reads all before it writes; where it refuses the job, its message says why.
    let _ = child.stdin.take().unwrap().write_all(&bytes);
    let found = child.wait_with_output().unwrap();
    if !found.status.success() {
        let message = String::from_utf8_lossy(&found.stderr);
        return Err(format!("{}: {} {}", launch.kernel, found.status, message.trim()));
    }
    let mut words = found.stdout.as_chunks::<4>().0.iter().map(|&word| u32::from_le_bytes(word));
    for &buffer in &named {
        buffers[buffer].iter_mut().for_each(|word| *word = words.next().expect("all buffers come back"));
    }
    assert!(words.next().is_none());
    Ok(())
}

/// The program of a source, compiled once; kept in the build folder from run to run.
fn compiled(source: &Source, kernel: &str) -> PathBuf {
    type Slot = Arc<OnceLock<PathBuf>>;
    static PROGRAMS: LazyLock<Mutex<HashMap<u64, Slot>>> = LazyLock::new(Mutex::default);
    let text = source.text();
    // All kernels of a source are in one program; a kernel is `void name(` at the start of a declaration.
    let kernels: Vec<&str> = text
        .split("__global__ void")
        .skip(1)
        .map(|declaration| {
            let bounded =
                declaration.split_once(')').filter(|(bounds, _)| bounds.contains("__launch_bounds__("));
            let named = bounded.map_or(declaration, |(_, rest)| rest);
            named.split_once('(').expect("a kernel has arguments").0.trim()
        })
        .collect();
    assert!(kernels.contains(&kernel), "{}: no kernel {kernel} among {kernels:?}", source.name);
    let entries: String =
        kernels.iter().map(|name| format!("{{\"{name}\", shim::binder({name})}}, ")).collect();
    let program = format!(
        "#include \"device.hpp\"\n#line 1 \"{}\"\n{text}\n#include \"job.hpp\"\n\
         int main(int, char** arguments) {{ return shim::run_job({{{entries}}}, arguments[1]); }}\n",
        source.name,
    );
    let mut hasher = DefaultHasher::new();
    (&program, DEVICE, JOB).hash(&mut hasher);
    let key = hasher.finish();
    let slot = PROGRAMS.lock().unwrap().entry(key).or_default().clone();
    slot.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cuda_shim");
        let binary = folder.join(format!("{key:016x}"));
        if !binary.exists() {
            compile(&program, &folder, &binary);
        }
        binary
    })
    .clone()
}

fn compile(program: &str, folder: &Path, binary: &Path) {
    std::fs::create_dir_all(folder).unwrap();
    let scratch = tempfile::tempdir_in(folder).unwrap();
    for (name, text) in [("device.hpp", DEVICE), ("job.hpp", JOB), ("main.cpp", program)] {
        std::fs::write(scratch.path().join(name), text).unwrap();
    }
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".into());
    let made = scratch.path().join("program");
    let flags = ["-std=c++17", "-O1", "-Wno-unknown-pragmas"];
    // A fiber leaves its stack by longjmp, which the fortified library takes for an error.
    let found = Command::new(&compiler)
        .args(flags)
        .args(["-fno-strict-aliasing", "-U_FORTIFY_SOURCE", "-o"])
        .arg(&made)
        .arg(scratch.path().join("main.cpp"))
        .output()
        .unwrap_or_else(|error| {
            panic!("these tests compile the CUDA kernels with a C++ compiler, but {compiler} cannot be run: {error}")
        });
    assert!(found.status.success(), "{compiler}: {}", String::from_utf8_lossy(&found.stderr));
    std::fs::rename(made, binary).unwrap();
}
