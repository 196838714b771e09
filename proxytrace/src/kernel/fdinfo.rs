//! What the kernel says of the maps and programs of this process, beside each of its descriptors.

use std::{collections::HashSet, fs, io};

/// Of all of them together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) struct Figures {
    /// The bytes that the kernel has allocated for them.
    pub(super) memory_bytes: u64,
    /// How often it skipped a program because another was running on that CPU; `None` where it does not count that: before 5.12.
    pub(super) recursion_misses: Option<u64>,
}

impl Figures {
    /// Of those that this process has descriptors of.
    ///
    /// # Errors
    /// The kernel does not let this process read that: before 5.14 where it has file capabilities.
    pub(super) fn of_this_process() -> io::Result<Self> {
        let (mut figures, mut counted) = (Self::default(), HashSet::new());
        for entry in fs::read_dir("/proc/self/fdinfo")? {
            // The descriptor that this very directory is read through is gone when it is asked for.
            let Ok(info) = fs::read_to_string(entry?.path()) else { continue };
            figures.add(&info, &mut counted);
        }
        Ok(figures)
    }

    /// Adds those of a descriptor, unless another one of the same map or program was `counted`; of what is neither there are
    /// none.
    fn add(&mut self, info: &str, counted: &mut HashSet<String>) {
        let figure =
            |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok());
        let id = info.lines().find(|line| line.starts_with("map_id:") || line.starts_with("prog_id:"));
        if id.is_some_and(|id| !counted.insert(id.to_owned())) {
            return;
        }
        self.memory_bytes += figure("memlock:").unwrap_or(0);
        if let Some(more) = figure("recursion_misses:") {
            *self.recursion_misses.get_or_insert(0) += more;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::Figures;

    #[test]
    fn the_kernels_figures_are_read_once_for_each_map_and_program() {
        let (mut figures, mut counted) = (Figures::default(), HashSet::new());
        figures.add("pos:\t0\nflags:\t02\n", &mut counted);
        assert_eq!(figures, Figures::default(), "not known is not zero");
        for _descriptor in 0..2 {
            figures.add("pos:\t0\nmap_type:\t1\nmemlock:\t8392704\nmap_id:\t3\n", &mut counted);
        }
        let program = "prog_type:\t2\nmemlock:\t4096\nprog_id:\t3\nrun_cnt:\t0\nrecursion_misses:\t7\n";
        figures.add(program, &mut counted);
        figures.add("prog_type:\t26\nmemlock:\t4096\nprog_id:\t4\nrecursion_misses:\t0\n", &mut counted);
        assert_eq!(figures, Figures { memory_bytes: 8_400_896, recursion_misses: Some(7) });
    }
}
