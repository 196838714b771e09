//! What kind of file system a file is on, as the kernel alone says it.
//!
//! statfs(2) would ask the file system itself, and behind FUSE that is a program of whoever mounted it. So a file's mount is
//! looked up by its id in mountinfo.

use std::{
    cell::RefCell,
    collections::HashMap,
    fs::File,
    io::{self, BufRead as _, BufReader},
};

use rustix::fs::Statx;

/// No more of one mountinfo is read, in bytes: some 50 000 mounts.
const MAX_MOUNTINFO: u64 = 8 << 20;

/// `STATX_MNT_ID` (include/uapi/linux/stat.h), since Linux 5.8.
pub(super) const STATX_MNT_ID: u32 = 0x1000;

/// Kinds of file systems on which no configuration is kept, and what to open a file there does.
const REFUSED: &[(&str, &str)] = &[
    ("autofs", "would mount what it stands for"),
    ("bpf", "shows the kernel, no files"),
    ("binfmt_misc", "shows the kernel, no files"),
    ("cgroup", "shows the kernel, no files"),
    ("cgroup2", "shows the kernel, no files"),
    ("configfs", "shows the kernel, no files"),
    ("debugfs", "shows the kernel, no files"),
    ("devpts", "is a terminal"),
    ("devtmpfs", "is a device"),
    ("efivarfs", "shows the firmware, no files"),
    ("fuse", "asks a program of whoever mounted it"),
    ("fuseblk", "asks a program of whoever mounted it"),
    ("mqueue", "is a queue"),
    ("nsfs", "is a namespace"),
    ("proc", "shows processes, this one among them"),
    ("pstore", "shows the kernel, no files"),
    ("securityfs", "shows the kernel, no files"),
    ("selinuxfs", "shows the kernel, no files"),
    ("sysfs", "shows the kernel, no files"),
    ("tracefs", "shows the kernel, no files"),
];

/// Mounts of a process, by id.
#[derive(Debug, Default)]
pub(super) struct Mounts {
    /// Tables that were not needed yet, the likeliest last.
    unread: RefCell<Vec<File>>,
    kinds: RefCell<HashMap<u64, String>>,
}

impl Mounts {
    /// From mountinfo files, the likeliest first. One shows no mount above the root directory of its process, so it takes
    /// that of another process to know what a changed root directory (chroot) itself is on.
    pub(super) fn new(mut tables: Vec<File>) -> Self {
        tables.reverse();
        Self { unread: RefCell::new(tables), kinds: RefCell::default() }
    }

    /// Fails where `file` is on something that no configuration is kept on, or where that is not known.
    pub(super) fn check(&self, file: &Statx) -> io::Result<()> {
        if file.stx_mask & STATX_MNT_ID == 0 {
            return Err(io::Error::other("the kernel does not say what it is mounted on"));
        }
        let id = file.stx_mnt_id;
        while !self.kinds.borrow().contains_key(&id) {
            let Some(table) = self.unread.borrow_mut().pop() else {
                return Err(io::Error::other("it is on a mount that mountinfo does not show"));
            };
            self.kinds.borrow_mut().extend(kinds(table));
        }
        let kinds = self.kinds.borrow();
        let kind = kinds.get(&id).map_or("", String::as_str);
        // A kind of FUSE is written behind a dot.
        let family = kind.split('.').next().unwrap_or(kind);
        match REFUSED.iter().find(|(refused, _)| *refused == family) {
            Some((_, why)) => Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                format!("it is on {kind}, where a file {why}: files there are not opened"),
            )),
            None => Ok(()),
        }
    }
}

/// The id of each mount of a mountinfo (proc_pid_mountinfo(5)), and its kind.
fn kinds(table: impl io::Read) -> HashMap<u64, String> {
    let lines = BufReader::new(table.take(MAX_MOUNTINFO)).split(b'\n').map_while(Result::ok);
    let kind = |line: Vec<u8>| {
        // Names of directories are not UTF-8 for sure; their blanks are escaped.
        let line = String::from_utf8_lossy(&line);
        let (fields, of_file_system) = line.split_once(" - ")?;
        let id = fields.split(' ').next()?.parse().ok()?;
        Some((id, of_file_system.split(' ').next()?.to_owned()))
    };
    lines.filter_map(kind).collect()
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use rustix::fs::{AtFlags, StatxFlags, statx};

    use super::{Mounts, kinds};

    #[test]
    fn mountinfo_has_the_kind_of_each_mount() {
        let text = "\
36 35 98:0 /mnt1 /mnt\\0402 rw,noatime master:1 - ext3 /dev/root rw,errors=continue
37 36 0:44 / /home/me/x rw - fuse.sshfs host:/ rw
38 36 0:45 / /\u{e4} - / rw shared:2 master:3 - tmpfs none rw
junk
";
        let kinds = kinds(text.as_bytes());
        let kind = |id| kinds.get(&id).map(String::as_str);
        assert_eq!((kind(36), kind(37), kinds.len()), (Some("ext3"), Some("fuse.sshfs"), 3));
    }

    #[test]
    fn what_is_no_file_system_for_configurations_is_refused_and_the_rest_is_not() {
        let mounts = Mounts::new(vec![
            File::open("/proc/self/mountinfo").unwrap(),
            File::open("/proc/1/mountinfo").unwrap(),
        ]);
        let check = |path: &str| {
            let file = File::open(path).unwrap();
            let mask = StatxFlags::BASIC_STATS | StatxFlags::MNT_ID;
            let about = statx(&file, "", AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC, mask).unwrap();
            mounts.check(&about).map_err(|error| error.to_string())
        };
        assert!(check("/proc/self/environ").unwrap_err().contains("it is on proc"));
        assert!(check("/sys/kernel").unwrap_err().contains("it is on sysfs"));
        assert_eq!(check(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")), Ok(()));
    }

    #[test]
    fn a_mount_that_no_table_shows_is_refused() {
        let file = File::open("/").unwrap();
        let about = statx(&file, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID).unwrap();
        assert!(Mounts::default().check(&about).unwrap_err().to_string().contains("mountinfo does not show"));
    }
}
