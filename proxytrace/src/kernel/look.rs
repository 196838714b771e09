//! Looks at connections while they live: runs the program `look` on demand (BPF_PROG_TEST_RUN of a raw tracepoint program, kernel 5.10),
//! over lists of them.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    sync::atomic::{AtomicU64, Ordering},
};

use aya::{
    Ebpf,
    maps::{Map, MapData, MapError},
    programs::RawTracePoint,
};
use memmap2::{MmapMut, MmapOptions};
use proxytrace_ebpf::abi::{Seen, capacity};

use super::Error;

/// The program.
pub(super) const PROGRAM: &str = "look";

/// include/uapi/linux/bpf.h.
const PROG_TEST_RUN: u32 = 10;

/// So many are looked at in one run.
const AT_ONCE: usize = capacity::LOOKED_AT as usize;

/// The part of `union bpf_attr` for runs on demand.
#[repr(C)]
#[derive(Default)]
struct Attributes {
    program: u32,
    result: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    context_size_in: u32,
    context_size_out: u32,
    context_in: u64,
    context_out: u64,
    flags: u32,
    cpu: u32,
}

/// The program and what goes in and out.
pub(super) struct Look {
    program: OwnedFd,
    ids: Mapped,
    found: Mapped,
}

impl Look {
    /// Loads the program.
    ///
    /// # Errors
    /// What the kernel said.
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, Error> {
        let failed = |error: Box<dyn std::error::Error + Send + Sync>| Error::Look(error);
        let program: &mut RawTracePoint = ebpf
            .program_mut(PROGRAM)
            .ok_or_else(|| failed("the object lacks it".into()))?
            .try_into()
            .map_err(|error: aya::programs::ProgramError| failed(error.into()))?;
        if program.fd().is_err() {
            program.load().map_err(|error| failed(error.into()))?;
        }
        let fd = program.fd().map_err(|error| failed(error.into()))?;
        let program = fd.as_fd().try_clone_to_owned().map_err(|error| failed(error.into()))?;
        let look = Self {
            program,
            ids: Mapped::take(ebpf, "LOOKED_AT", size_of::<u64>())?,
            found: Mapped::take(ebpf, "FOUND", size_of::<Seen>())?,
        };
        // Whether the kernel runs it at all shows now.
        look.run(0).map_err(|error| failed(error.into()))?;
        Ok(look)
    }

    /// What is found of connections, by the addresses of their sockets, in their order. Of those that are not taken up any more there is
    /// nothing: at most as many as one run takes are looked at.
    ///
    /// # Errors
    /// What the kernel said.
    pub(super) fn at(&mut self, ids: &[u64]) -> io::Result<Vec<Seen>> {
        let ids = &ids[..ids.len().min(AT_ONCE)];
        for (index, id) in ids.iter().enumerate() {
            self.ids.word(index).store(*id, Ordering::Relaxed);
        }
        self.run(ids.len())?;
        const WORDS: usize = size_of::<Seen>() / size_of::<u64>();
        let seen = |index: usize| {
            let words: [u64; WORDS] =
                std::array::from_fn(|word| self.found.word(index * WORDS + word).load(Ordering::Relaxed));
            Seen::of_words(words)
        };
        Ok((0..ids.len()).map(seen).collect())
    }

    fn run(&self, count: usize) -> io::Result<()> {
        let context = [count as u64];
        let mut attributes = Attributes {
            program: self.program.as_raw_fd().cast_unsigned(),
            context_size_in: size_of_val(&context) as u32,
            context_in: std::ptr::from_ref(&context) as u64,
            ..Attributes::default()
        };
        #[expect(unsafe_code, reason = "no library offers this call")]
        // SAFETY: the attributes hold a pointer to as many bytes as they say, alive until the call returns.
        let result = unsafe {
            libc::syscall(
                libc::SYS_bpf,
                PROG_TEST_RUN,
                std::ptr::from_mut(&mut attributes),
                size_of::<Attributes>(),
            )
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

/// The memory of an array, which the program shares.
struct Mapped(MmapMut);

impl Mapped {
    fn take(ebpf: &mut Ebpf, name: &'static str, value: usize) -> Result<Self, Error> {
        let error = |source| Error::Map { map: name, source };
        let Some(Map::Array(data)) = ebpf.take_map(name) else {
            return Err(error(MapError::InvalidName { name: name.to_owned() }));
        };
        Self::of(&data, AT_ONCE * value).map_err(|source| error(MapError::IoError(source)))
    }

    fn of(data: &MapData, length: usize) -> io::Result<Self> {
        let fd = data.fd().as_fd().as_raw_fd();
        #[expect(unsafe_code, reason = "the kernel changes what is mapped")]
        // SAFETY: it is used as atomic numbers alone.
        let memory = unsafe { MmapOptions::new().len(length).map_mut(fd) }?;
        Ok(Self(memory))
    }

    fn word(&self, index: usize) -> &AtomicU64 {
        let word = &self.0[index * size_of::<u64>()..][..size_of::<u64>()];
        #[expect(unsafe_code, reason = "the kernel changes it at other times")]
        // SAFETY: aligned, as a mapping begins with a page; and whoever else writes it does so while the program runs, which this
        // process waits for.
        unsafe {
            &*word.as_ptr().cast::<AtomicU64>()
        }
    }
}
