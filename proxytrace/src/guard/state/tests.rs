//! What is found again, and by whom.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{Busy, Store};
use crate::guard::{
    files::{Listing, Written, restore},
    group::Group,
};

fn block_on<T>(task: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(task)
}

fn open(state: &Path, directory: Option<&Path>) -> anyhow::Result<Store> {
    block_on(Store::open(state, directory, Duration::from_millis(1)))
}

fn unfinished(state: &Path, directory: Option<&Path>) -> anyhow::Result<Option<PathBuf>> {
    let store = block_on(Store::of_unfinished(state, directory, directory, Duration::from_millis(1)))?;
    Ok(store.and_then(|store| store.unfinished().unwrap()?.journal.directory))
}

/// A change of that directory whose guard was killed.
fn leave(state: &Path, directory: &Path) {
    let store = open(state, Some(directory)).unwrap();
    store.begin(None, &["nginx".to_owned()], None, &Written::default()).unwrap();
}

fn directories(temporary: &Path) -> [PathBuf; 3] {
    ["one", "one/inner", "two"].map(|name| {
        let directory = temporary.join("all").join(name);
        fs::create_dir_all(&directory).unwrap();
        directory
    })
}

#[test]
fn what_a_killed_guard_left_is_found_and_put_back() {
    let temporary = tempfile::tempdir().unwrap();
    let (state, directory) = (temporary.path().join("state"), temporary.path().join("nginx \u{e4}"));
    fs::create_dir(&directory).unwrap();
    fs::write(directory.join("a\u{e4} b"), "before").unwrap();
    let written = Written::default();
    {
        let store = open(&state, Some(&directory)).unwrap();
        assert!(open(&state, Some(&directory)).unwrap_err().is::<Busy>());
        assert!(store.unfinished().unwrap().is_none());
        let mut change = store.begin(None, &["nginx".to_owned()], None, &written).unwrap();
        fs::write(directory.join("a\u{e4} b"), "after").unwrap();
        change.made(Listing::of(&directory, &written).unwrap()).unwrap();
    }
    assert_eq!(fs::metadata(&state).unwrap().permissions().mode() & 0o777, 0o700);
    let store = open(&state, Some(&directory)).unwrap();
    let change = store.unfinished().unwrap().unwrap();
    assert_eq!(change.journal.directory.as_deref(), Some(&*directory));
    assert!(!change.is_of_earlier_start());
    let restored = restore(&directory, &change.kept(), change.after().unwrap(), None, &written).unwrap();
    assert_eq!(restored.put_back.len(), 1);
    assert_eq!(fs::read_to_string(directory.join("a\u{e4} b")).unwrap(), "before");
    change.end().unwrap();
    assert!(store.unfinished().unwrap().is_none());
}

#[test]
fn a_change_of_one_directory_is_nothing_to_guards_of_another() {
    let temporary = tempfile::tempdir().unwrap();
    let state = temporary.path().join("state");
    let [one, inner, two] = directories(temporary.path());
    leave(&state, &one);
    assert!(open(&state, Some(&two)).unwrap().in_the_way().unwrap().is_none());
    assert!(open(&state, None).unwrap().in_the_way().unwrap().is_none());
    for directory in [&one, &inner, &temporary.path().join("all")] {
        let change = open(&state, Some(directory)).unwrap().in_the_way().unwrap().unwrap();
        assert_eq!(change.journal.directory.as_deref(), Some(&*one));
    }
    // Of several that were left, one is taken up at a time.
    assert_eq!(unfinished(&state, None).unwrap().as_deref(), Some(&*one));
    assert_eq!(unfinished(&state, Some(&two)).unwrap(), None);
    leave(&state, &two);
    let several = unfinished(&state, None).unwrap_err().to_string();
    assert!(
        several.starts_with("2 changes were not ended; say which one is meant by --rollback-files: /"),
        "{several}"
    );
    assert_eq!(unfinished(&state, Some(&two)).unwrap().as_deref(), Some(&*two));
}

#[test]
fn guards_of_other_directories_do_not_wait_for_each_other() {
    let temporary = tempfile::tempdir().unwrap();
    let state = temporary.path().join("state");
    let [one, inner, two] = directories(temporary.path());
    let _of_one = open(&state, Some(&one)).unwrap();
    let of_two = open(&state, Some(&two)).unwrap();
    for directory in [Some(&*inner), one.parent(), None] {
        let busy = open(&state, directory).unwrap_err();
        assert!(busy.is::<Busy>() && busy.to_string().contains(&std::process::id().to_string()), "{busy}");
    }
    drop(of_two);
    open(&state, Some(&two)).unwrap();
}

#[test]
fn what_was_begun_before_the_machine_started_again_is_known_as_that() {
    let temporary = tempfile::tempdir().unwrap();
    let state = temporary.path().join("state");
    let [one, ..] = directories(temporary.path());
    leave(&state, &one);
    let store = open(&state, Some(&one)).unwrap();
    let journal = store.path.join("change/journal.json");
    let text = fs::read_to_string(&journal).unwrap();
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    assert!(text.contains(boot.trim()), "{text}");
    fs::write(&journal, text.replace(boot.trim(), "00000000-0000-4000-8000-000000000000")).unwrap();
    assert!(store.unfinished().unwrap().unwrap().is_of_earlier_start());
}

#[test]
fn nothing_is_left_of_a_copy_that_failed() {
    let temporary = tempfile::tempdir().unwrap();
    let gone = temporary.path().join("gone");
    let store = open(&temporary.path().join("state"), Some(&gone)).unwrap();
    assert!(store.begin(None, &[], None, &Written::default()).is_err());
    assert!(store.unfinished().unwrap().is_none());
    assert!(!store.path.join("change").exists());
}

#[test]
fn copies_are_not_kept_in_what_is_put_back() {
    let temporary = tempfile::tempdir().unwrap();
    let [one, inner, _] = directories(temporary.path());
    std::os::unix::fs::symlink(&inner, temporary.path().join("link")).unwrap();
    for state in [one.join("state"), temporary.path().join("link/state/more"), one.clone()] {
        let refused = open(&state, Some(&one)).unwrap_err().to_string();
        assert!(refused.contains("choose another --state"), "{refused}");
    }
    assert!(!one.join("state").exists());
    open(&one.join("state"), Some(&inner)).unwrap();
}

#[test]
fn a_directory_that_is_there_keeps_its_mode_and_must_not_be_open_to_others() {
    let temporary = tempfile::tempdir().unwrap();
    let [one, ..] = directories(temporary.path());
    let state = temporary.path().join("state");
    fs::create_dir(&state).unwrap();
    let with_mode = |mode| {
        fs::set_permissions(&state, fs::Permissions::from_mode(mode)).unwrap();
        let opened = open(&state, Some(&one));
        assert_eq!(fs::metadata(&state).unwrap().permissions().mode() & 0o7777, mode);
        opened
    };
    with_mode(0o755).unwrap();
    for mode in [0o777, 0o1777, 0o770] {
        let refused = format!("{:#}", with_mode(mode).unwrap_err());
        assert!(refused.contains("others may write there: choose another --state"), "{refused}");
    }
}

#[test]
fn how_a_program_leaves_the_directory_is_not_known_while_it_runs() {
    let temporary = tempfile::tempdir().unwrap();
    let state = temporary.path().join("state");
    let [one, ..] = directories(temporary.path());
    let written = Written::default();
    let store = open(&state, Some(&one)).unwrap();
    let mut change = store.begin(None, &[], None, &written).unwrap();
    change.made(Listing::of(&one, &written).unwrap()).unwrap();
    change.runs(Some(Group::of(std::process::id()))).unwrap();
    let left = store.unfinished().unwrap().unwrap();
    assert!(left.after().is_none() && left.journal.program.is_some());
    change.made(Listing::of(&one, &written).unwrap()).unwrap();
    let left = store.unfinished().unwrap().unwrap();
    assert!(left.after().is_some() && left.journal.program.is_none());
}

#[test]
fn a_change_is_found_by_the_link_that_led_there() {
    let temporary = tempfile::tempdir().unwrap();
    let state = temporary.path().join("state");
    let [one, _, two] = directories(temporary.path());
    let link = temporary.path().join("current");
    std::os::unix::fs::symlink(&one, &link).unwrap();
    let given = |directory: &Path| open(&state, Some(directory)).unwrap().given(Some(link.clone()));
    given(&one).begin(None, &[], None, &Written::default()).unwrap();
    fs::remove_file(&link).unwrap();
    std::os::unix::fs::symlink(&two, &link).unwrap();
    let of = |given: &Path| {
        block_on(Store::of_unfinished(&state, Some(&two), Some(given), Duration::ZERO)).unwrap()
    };
    assert!(of(&two).is_none());
    let change = of(&link).unwrap().unfinished().unwrap().unwrap();
    assert_eq!(change.journal.directory.as_deref(), Some(&*one));
    assert!(given(&two).in_the_way().unwrap().is_some());
    assert!(open(&state, Some(&two)).unwrap().in_the_way().unwrap().is_none());
}
