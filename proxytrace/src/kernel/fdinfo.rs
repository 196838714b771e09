//! What the kernel says of the maps and programs of this process, beside each of its descriptors.

use std::fs;

/// The bytes that the kernel has allocated for the maps and programs that this process has descriptors of.
pub(super) fn memory_of_this_process() -> std::io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir("/proc/self/fdinfo")? {
        // The descriptor that this very directory is read through is gone when it is asked for.
        let Ok(info) = fs::read_to_string(entry?.path()) else { continue };
        bytes += memlock(&info);
    }
    Ok(bytes)
}

/// The figure in a descriptor's lines; nothing but maps and programs has one.
fn memlock(info: &str) -> u64 {
    info.lines().find_map(|line| line.strip_prefix("memlock:")?.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::memlock;

    #[test]
    fn the_kernels_figure_is_read() {
        assert_eq!(memlock("pos:\t0\nmap_type:\t1\nmemlock:\t8392704\nmap_id:\t17\n"), 8_392_704);
        assert_eq!(memlock("pos:\t0\nflags:\t02\n"), 0);
    }
}
