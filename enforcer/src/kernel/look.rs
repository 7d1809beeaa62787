//! What the kernel has of a file that this process holds open: the numbers by which its programs know the file again. stat(2) says others where
//! file systems lie over one another.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use aya::Ebpf;
use aya::maps::{Array, Map, MapData};
use aya::programs::{ProgramFd, RawTracePoint};
use enforcer_common::files::Looked;

use super::files::map_error;
use super::{KernelError, failed, from_pin, pin_error, take};

const LOOK: &str = "look";
const LOOKED: &str = "LOOKED";

/// The program that looks, and where it says what it saw.
pub struct Look {
    program: ProgramFd,
    looked: Mutex<Array<MapData, Looked>>,
}

impl std::fmt::Debug for Look {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Look")
    }
}

impl Look {
    /// Loads and pins.
    pub(super) fn load(ebpf: &mut Ebpf, pins: &Path) -> Result<Self, KernelError> {
        let program = ebpf.program_mut(LOOK).ok_or(KernelError::Missing(LOOK))?;
        let program: &mut RawTracePoint = program.try_into().map_err(failed(LOOK))?;
        program.load().map_err(failed(LOOK))?;
        let path = pins.join(LOOK);
        program.pin(&path).map_err(pin_error(&path))?;
        let program = held(program)?;
        let looked = take(ebpf, LOOKED)?;
        let path = pins.join("maps").join(LOOKED);
        looked.pin(&path).map_err(pin_error(&path))?;
        Self::with(program, looked)
    }

    /// What an earlier enforcer pinned.
    pub(super) fn adopt(pins: &Path) -> Result<Self, KernelError> {
        let path = pins.join(LOOK);
        let program = RawTracePoint::from_pin(&path).map_err(pin_error(&path))?;
        let program = held(&program)?;
        let looked = from_pin(&pins.join("maps"), LOOKED)?;
        Self::with(
            program,
            Map::from_map_data(looked).map_err(map_error(LOOKED))?,
        )
    }

    fn with(program: ProgramFd, looked: Map) -> Result<Self, KernelError> {
        let looked = looked.try_into().map_err(map_error(LOOKED))?;
        Ok(Self {
            program,
            looked: Mutex::new(looked),
        })
    }

    /// What is open there.
    ///
    /// # Errors
    /// The kernel does not run the program, or the program could not look.
    pub fn at(&self, file: &impl AsFd) -> Result<Looked, KernelError> {
        // One at a time: there is one place for what was seen.
        let looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        let refused = |source| KernelError::Query { hook: LOOK, source };
        match run(&self.program, file.as_fd().as_raw_fd() as u64).map_err(refused)? {
            0 => looked.get(&0, 0).map_err(map_error(LOOKED)),
            _ => Err(refused(io::Error::other("it cannot be read"))),
        }
    }
}

fn held(program: &RawTracePoint) -> Result<ProgramFd, KernelError> {
    let held = program.fd().map_err(failed(LOOK))?.try_clone();
    held.map_err(|source| KernelError::Query { hook: LOOK, source })
}

/// Runs a raw tracepoint's program here and now, with this one argument (BPF_PROG_TEST_RUN, kernel net/bpf/test_run.c,
/// `bpf_prog_test_run_raw_tp`). aya has no call for it.
fn run(program: &ProgramFd, argument: u64) -> io::Result<u32> {
    const BPF_PROG_TEST_RUN: libc::c_long = 10;
    #[repr(C)]
    #[derive(Default)]
    struct RunAttr {
        program: u32,
        returned: u32,
        data: [u32; 2],
        data_at: [u64; 2],
        repeat: u32,
        duration: u32,
        context_size: u32,
        context_out: u32,
        context: u64,
        context_out_at: u64,
        flags: u32,
        cpu: u32,
        batch: u32,
        _pad: u32,
    }
    let context = [argument];
    let mut attr = RunAttr {
        program: program.as_fd().as_raw_fd() as u32,
        context_size: size_of_val(&context) as u32,
        context: (&raw const context) as u64,
        ..RunAttr::default()
    };
    // SAFETY: the attribute and the context that it points to live across the call; sizes say how much there is.
    let status = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_PROG_TEST_RUN,
            &raw mut attr,
            size_of::<RunAttr>(),
        )
    };
    match status {
        0 => Ok(attr.returned),
        _ => Err(io::Error::last_os_error()),
    }
}
