//! What is put back, what is left, and what leads nowhere.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink},
    path::Path,
};

use super::{Kept, Listing, Restored, Written, XattrFlags, fsetxattr, restore};
use crate::guard::files::keep;

struct Scene {
    temporary: tempfile::TempDir,
    kept: Kept,
}

impl Scene {
    /// A directory with a file, a link and a directory with a file, which was copied.
    fn new() -> Self {
        let temporary = tempfile::tempdir().unwrap();
        let directory = temporary.path().join("nginx");
        fs::create_dir_all(directory.join("conf.d")).unwrap();
        for (name, text) in [("nginx.conf", "main"), ("conf.d/api.conf", "api"), ("conf.d/same.conf", "api")]
        {
            fs::write(directory.join(name), text).unwrap();
        }
        fs::set_permissions(directory.join("nginx.conf"), fs::Permissions::from_mode(0o640)).unwrap();
        symlink("conf.d/api.conf", directory.join("link")).unwrap();
        let kept = keep(&directory, &temporary.path().join("contents"), &Written::default()).unwrap();
        Self { temporary, kept }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.temporary.path().join("nginx").join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    fn listing(&self) -> Listing {
        Listing::of(&self.path(""), &Written::default()).unwrap()
    }

    fn restore(&self, after: &Listing) -> Restored {
        let taken = self.temporary.path().join("taken");
        restore(&self.path(""), &self.kept, after, Some(&taken), &Written::default()).unwrap()
    }
}

fn names(paths: &[std::path::PathBuf]) -> Vec<&str> {
    paths.iter().map(|path| path.to_str().unwrap()).collect()
}

#[test]
fn everything_is_put_back_as_it_was() {
    let scene = Scene::new();
    let modified = fs::metadata(scene.path("nginx.conf")).unwrap().mtime();
    scene.write("nginx.conf", "other");
    fs::set_permissions(scene.path("nginx.conf"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::remove_file(scene.path("link")).unwrap();
    symlink("elsewhere", scene.path("link")).unwrap();
    fs::remove_dir_all(scene.path("conf.d")).unwrap();
    scene.write("conf.d", "a file in its place");
    fs::create_dir(scene.path("new")).unwrap();
    scene.write("new/more.conf", "more");
    let after = scene.listing();
    assert_eq!(after.differing(&scene.kept.listing).count(), 7);
    let restored = scene.restore(&after);
    assert_eq!(scene.listing(), scene.kept.listing, "{restored:?}");
    assert_eq!(restored.left, Vec::<std::path::PathBuf>::new());
    assert_eq!(restored.failed, Vec::new());
    assert_eq!(names(&restored.removed), ["new/more.conf", "new"]);
    let put_back = ["conf.d", "conf.d/api.conf", "conf.d/same.conf", "link", "nginx.conf"];
    assert_eq!(names(&restored.put_back), put_back);
    assert_eq!(fs::metadata(scene.path("nginx.conf")).unwrap().mtime(), modified);
    let taken = scene.temporary.path().join("taken");
    assert_eq!(fs::read_to_string(taken.join("nginx.conf")).unwrap(), "other");
    assert_eq!(fs::read_to_string(taken.join("new/more.conf")).unwrap(), "more");
    // A second time there is nothing to do.
    assert_eq!(scene.restore(&scene.listing()), Restored::default());
}

#[test]
fn owners_and_attributes_are_kept() {
    let temporary = tempfile::tempdir().unwrap();
    let directory = temporary.path().join("nginx");
    fs::create_dir(&directory).unwrap();
    let (file, link) = (directory.join("key"), directory.join("link"));
    fs::write(&file, "secret").unwrap();
    symlink("key", &link).unwrap();
    let set = |value: &[u8]| {
        let file = fs::File::open(&file).unwrap();
        fsetxattr(&file, "user.origin", value, XattrFlags::empty())
    };
    // Whoever is no root may not give files away, and a file system may have no attributes.
    let may_give_away = std::os::unix::fs::chown(&file, Some(33), Some(33)).is_ok();
    let has_attributes = set(b"vault\0").is_ok();
    if may_give_away {
        std::os::unix::fs::lchown(&link, Some(33), Some(33)).unwrap();
    }
    let kept = keep(&directory, &temporary.path().join("contents"), &Written::default()).unwrap();
    // As a deploy does that knows nothing of them.
    for path in [&file, &link] {
        fs::remove_file(path).unwrap();
    }
    fs::write(&file, "secret").unwrap();
    symlink("key", &link).unwrap();
    let after = Listing::of(&directory, &Written::default()).unwrap();
    let expected = if may_give_away { 2 } else { usize::from(has_attributes) };
    assert_eq!(after.differing(&kept.listing).count(), expected);
    let restored = restore(&directory, &kept, &after, None, &Written::default()).unwrap();
    assert_eq!((restored.put_back.len(), restored.failed.len()), (expected, 0), "{restored:?}");
    assert_eq!(Listing::of(&directory, &Written::default()).unwrap(), kept.listing);
    if has_attributes {
        set(b"somebody else").unwrap();
        let restored = restore(&directory, &kept, &after, None, &Written::default()).unwrap();
        assert_eq!(restored.left.len(), 1, "an attribute is a change as well: {restored:?}");
    }
}

#[test]
fn what_somebody_else_changed_is_left() {
    let scene = Scene::new();
    scene.write("nginx.conf", "the change");
    scene.write("conf.d/api.conf", "the change");
    scene.write("added.conf", "the change");
    fs::create_dir(scene.path("dir")).unwrap();
    let after = scene.listing();
    scene.write("conf.d/api.conf", "somebody else");
    scene.write("added.conf", "somebody else");
    scene.write("dir/file", "somebody else");
    scene.write("conf.d/same.conf", "somebody else");
    scene.write("theirs.conf", "somebody else");
    let restored = scene.restore(&after);
    assert_eq!(names(&restored.left), ["dir", "added.conf", "conf.d/api.conf"]);
    assert_eq!(names(&restored.put_back), ["nginx.conf"]);
    assert!(restored.removed.is_empty() && restored.failed.is_empty(), "{restored:?}");
    let read = |name: &str| fs::read_to_string(scene.path(name)).unwrap();
    assert_eq!(read("nginx.conf"), "main");
    for name in ["conf.d/api.conf", "added.conf", "dir/file", "conf.d/same.conf", "theirs.conf"] {
        assert_eq!(read(name), "somebody else", "{name}");
    }
}

#[test]
fn no_link_leads_out_of_the_directory() {
    let scene = Scene::new();
    scene.write("conf.d/api.conf", "the change");
    let after = scene.listing();
    let outside = scene.temporary.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("api.conf"), "the change").unwrap();
    fs::remove_dir_all(scene.path("conf.d")).unwrap();
    symlink(&outside, scene.path("conf.d")).unwrap();
    let restored = scene.restore(&after);
    assert_eq!(fs::read_to_string(outside.join("api.conf")).unwrap(), "the change", "{restored:?}");
    assert_eq!(names(&restored.left), ["conf.d/api.conf"]);
}

#[test]
fn a_copy_that_was_changed_is_not_put_back() {
    let scene = Scene::new();
    scene.write("nginx.conf", "the change");
    let after = scene.listing();
    for copy in fs::read_dir(scene.temporary.path().join("contents")).unwrap() {
        fs::write(copy.unwrap().path(), "forged").unwrap();
    }
    let restored = scene.restore(&after);
    assert_eq!(restored.failed, [(Path::new("nginx.conf").to_owned(), "its copy was changed".to_owned())]);
    assert_eq!(fs::read_to_string(scene.path("nginx.conf")).unwrap(), "the change");
    assert_eq!(scene.listing().differing(&after).count(), 0, "no temporary file is left");
}

#[test]
fn what_somebody_writes_to_is_left_alone() {
    let scene = Scene::new();
    let open = |name: &str| fs::OpenOptions::new().append(true).create(true).open(scene.path(name)).unwrap();
    let mut log = open("log");
    let written = Written::of([std::process::id()]);
    let kept = keep(&scene.path(""), &scene.temporary.path().join("others"), &written).unwrap();
    scene.write("nginx.conf", "the change");
    log.write_all(b"a line").unwrap();
    // The change adds one, and writes elsewhere than to the first.
    let mut new = open("new.log");
    let written = Written::of([std::process::id()]);
    let after = Listing::of(&scene.path(""), &written).unwrap();
    drop(log);
    new.write_all(b"a line").unwrap();
    let restored = restore(&scene.path(""), &kept, &after, None, &Written::default()).unwrap();
    assert_eq!(names(&restored.put_back), ["nginx.conf"]);
    assert_eq!(names(&restored.written), ["log", "new.log"]);
    assert!(
        restored.removed.is_empty() && restored.left.is_empty() && restored.failed.is_empty(),
        "{restored:?}"
    );
    for name in ["log", "new.log"] {
        assert_eq!(fs::read_to_string(scene.path(name)).unwrap(), "a line", "{name}");
    }
}
