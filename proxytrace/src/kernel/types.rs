//! What is needed of the kernel's type information (BTF), read before anything is loaded.

use proxytrace_ebpf::offsets::Offsets;

use super::{Error, btf};

/// Checks that the kernel's type information is all that is needed; gives its size in bytes.
///
/// # Errors
/// What is missing.
pub fn check_type_information() -> Result<usize, Error> {
    let types = type_information()?;
    KernelTypes::read(&types)?;
    Ok(types.len())
}

pub(super) fn type_information() -> Result<Vec<u8>, Error> {
    std::fs::read(btf::PATH).map_err(Error::NoBtf)
}

/// What the type information says of the kernel.
#[derive(Debug)]
pub(super) struct KernelTypes {
    pub(super) offsets: Offsets,
    pub(super) has_preemptible_tracepoints: bool,
    /// Whether programs can ask for the registers of a thread's system call (5.15).
    pub(super) has_task_registers: bool,
}

impl KernelTypes {
    pub(super) fn read(data: &[u8]) -> Result<Self, Error> {
        let btf = btf::Btf::parse(data)?;
        if !btf.has_enum_value("BPF_MAP_TYPE_RINGBUF") {
            return Err(Error::KernelTooOld);
        }
        let offsets = Offsets::resolve(|path| btf.offset(path)).map_err(Error::NoMember)?;
        Ok(Self {
            offsets,
            has_preemptible_tracepoints: btf.has_preemptible_tracepoints(),
            has_task_registers: btf.has_enum_value("BPF_FUNC_task_pt_regs"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Error, KernelTypes};

    #[test]
    fn a_kernel_without_ring_buffer_is_too_old() {
        // A header (magic, version 1, flags, its length, where types and strings are) and the empty string.
        let mut btf = vec![0x9f, 0xeb, 1, 0];
        btf.extend([24_u32, 0, 0, 0, 1].into_iter().flat_map(u32::to_le_bytes));
        btf.push(0);
        assert!(matches!(KernelTypes::read(&btf), Err(Error::KernelTooOld)));
    }
}
