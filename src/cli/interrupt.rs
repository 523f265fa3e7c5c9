//! Ctrl-C: the first press asks the running command to stop at the next safe point, the second ends it at once.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

static STOP: AtomicBool = AtomicBool::new(false);
static INSTALLED: OnceLock<()> = OnceLock::new();

/// Exit code of a program ended by Ctrl-C.
pub const INTERRUPTED: u8 = 130;

/// The flag that becomes true at the first Ctrl-C (or termination request); installs the handler once.
pub fn stop_flag() -> &'static AtomicBool {
    INSTALLED.get_or_init(|| {
        let installed = ctrlc::set_handler(|| {
            if STOP.swap(true, Ordering::Relaxed) {
                std::process::exit(INTERRUPTED.into());
            }
            eprintln!("\nstopping at the next safe point; press Ctrl-C again to end at once");
        });
        if let Err(error) = installed {
            eprintln!("warning: Ctrl-C cannot be caught ({error}); it will end the program at once");
        }
    });
    &STOP
}
