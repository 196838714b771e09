//! What the kernel says of the maps and programs of this process, beside each of its descriptors.

use std::{fs, os::fd::RawFd};

const DIRECTORY: &str = "/proc/self/fdinfo";

/// The bytes that the kernel has allocated for the maps and programs that this process has descriptors of.
pub(super) fn memory_of_this_process() -> std::io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(DIRECTORY)? {
        // The descriptor that this very directory is read through is gone when it is asked for.
        let Ok(info) = fs::read_to_string(entry?.path()) else { continue };
        bytes += figure(&info, "memlock:");
    }
    Ok(bytes)
}

/// How often the program behind a descriptor was not run because it was running already.
pub(super) fn times_skipped(descriptor: RawFd) -> u64 {
    let info = fs::read_to_string(format!("{DIRECTORY}/{descriptor}")).unwrap_or_default();
    figure(&info, "recursion_misses:")
}

/// The figure behind `name`, 0 where there is none: other descriptors have none, nor have older kernels.
fn figure(info: &str, name: &str) -> u64 {
    info.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::figure;

    #[test]
    fn the_kernels_figures_are_read() {
        let info = "pos:\t0\nprog_type:\t26\nmemlock:\t8392704\nrecursion_misses:\t3\n";
        assert_eq!((figure(info, "memlock:"), figure(info, "recursion_misses:")), (8_392_704, 3));
        assert_eq!(figure("pos:\t0\nflags:\t02\n", "memlock:"), 0);
    }
}
