//! Capabilities: from what the process was given down to what a running trace needs.

use caps::{CapSet, Capability, CapsHashSet, errors::CapsError};

/// What a running trace makes use of, where it was given.
const WHILE_RUNNING: &[Capability] = &[Capability::CAP_SYS_PTRACE];

/// What lets a process read maps where the kernel asks for that although they are open; the first that is there will do.
const TO_READ: &[Capability] = &[Capability::CAP_BPF, Capability::CAP_SYS_ADMIN];

/// What the reader of configurations hands on to the processes that it starts, where it was given.
const TO_LOOK_BELOW_ROOTS: &[Capability] = &[
    Capability::CAP_SYS_PTRACE,
    Capability::CAP_DAC_READ_SEARCH,
    Capability::CAP_SYS_ADMIN,
    Capability::CAP_SETUID,
    Capability::CAP_SETGID,
    Capability::CAP_KILL,
];

/// What the reader of configurations uses itself: the processes that it starts, and may have to end, are other users'; and
/// whose a process is that something is asked about decides who is served next.
const TO_SERVE: &[Capability] = &[Capability::CAP_KILL, Capability::CAP_SYS_PTRACE];

/// What one of those still needs when it is another user: to enter a user namespace, and afterwards to stand for the rights
/// of a process that has them itself.
const TO_BECOME_AN_OWNER: &[Capability] = &[Capability::CAP_SYS_ADMIN, Capability::CAP_DAC_READ_SEARCH];

/// What stands for the rights of a process that may read everything.
const TO_READ_AS_AN_OWNER: &[Capability] = &[Capability::CAP_DAC_READ_SEARCH];

fn those_held(wanted: &[Capability], held: &CapsHashSet) -> CapsHashSet {
    wanted.iter().filter(|capability| held.contains(*capability)).copied().collect()
}

/// Lowers every set of this thread to what the reader hands on, and what it may use now to what it uses itself.
pub(super) fn lower_to_read() -> Result<(), CapsError> {
    let held = caps::read(None, CapSet::Effective)?;
    let kept = those_held(TO_LOOK_BELOW_ROOTS, &held);
    if held.contains(&Capability::CAP_SETPCAP) {
        for capability in caps::all().difference(&kept) {
            // The kernel may be older than the capability.
            if caps::has_cap(None, CapSet::Bounding, *capability)? {
                caps::drop(None, CapSet::Bounding, *capability)?;
            }
        }
    }
    caps::clear(None, CapSet::Ambient)?;
    caps::set(None, CapSet::Effective, &those_held(TO_SERVE, &held))?;
    for set in [CapSet::Inheritable, CapSet::Permitted] {
        caps::set(None, set, &kept)?;
    }
    // A user who is not root keeps none across execve otherwise.
    caps::set(None, CapSet::Ambient, &kept)
}

/// Empties every set of this thread.
pub(super) fn drop_all() -> Result<(), CapsError> {
    if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP)? {
        caps::clear(None, CapSet::Bounding)?;
    }
    [CapSet::Ambient, CapSet::Inheritable, CapSet::Effective, CapSet::Permitted]
        .into_iter()
        .try_for_each(|set| caps::clear(None, set))
}

/// Lowers what this thread may use, and may come to use, to what it takes to enter a user namespace.
pub(super) fn lower_to_enter_a_user_namespace() -> Result<(), CapsError> {
    lower_to(&those_held(TO_BECOME_AN_OWNER, &caps::read(None, CapSet::Permitted)?))
}

/// Lowers every set of this thread to nothing, or to what stands for the rights of a process that may read everything.
pub(super) fn lower_to_owned(reads_everything: bool) -> Result<(), CapsError> {
    let wanted = if reads_everything { TO_READ_AS_AN_OWNER } else { &[] };
    lower_to(&those_held(wanted, &caps::read(None, CapSet::Permitted)?))
}

fn lower_to(kept: &CapsHashSet) -> Result<(), CapsError> {
    caps::clear(None, CapSet::Ambient)?;
    // A change of users may have emptied the effective set: it is as large as the permitted one then.
    caps::set(None, CapSet::Effective, kept)?;
    caps::clear(None, CapSet::Inheritable)?;
    caps::set(None, CapSet::Permitted, kept)
}

/// Lowers every set of this thread, and gives what is left.
pub(super) fn lower(can_read: impl Fn() -> bool) -> Result<CapsHashSet, CapsError> {
    let held = caps::read(None, CapSet::Effective)?;
    // Who may not shrink the bounding set gains nothing by it either: there are no new privileges.
    if held.contains(&Capability::CAP_SETPCAP) {
        caps::clear(None, CapSet::Bounding)?;
    }
    caps::clear(None, CapSet::Ambient)?;
    caps::clear(None, CapSet::Inheritable)?;

    let mut kept = those_held(WHILE_RUNNING, &held);
    caps::set(None, CapSet::Effective, &kept)?;
    if !can_read() {
        kept.extend(TO_READ.iter().find(|capability| held.contains(*capability)));
        caps::set(None, CapSet::Effective, &kept)?;
    }
    caps::set(None, CapSet::Permitted, &kept)?;
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use std::thread;

    use caps::{CapSet, CapsHashSet};

    use super::{TO_READ, WHILE_RUNNING, drop_all, lower};

    /// What is left of what this process has, where maps can be read or cannot. The sets are each thread's own.
    fn check(can_read: bool, expected: impl Fn(&CapsHashSet) -> CapsHashSet + Send + 'static) {
        let lowered = move || {
            let held = caps::read(None, CapSet::Effective).unwrap();
            let kept = lower(|| can_read).unwrap();
            assert_eq!(kept, expected(&held));
            for set in [CapSet::Effective, CapSet::Permitted] {
                assert_eq!(caps::read(None, set).unwrap(), kept, "{set:?}");
            }
            for set in [CapSet::Inheritable, CapSet::Ambient] {
                assert!(caps::read(None, set).unwrap().is_empty(), "{set:?}");
            }
        };
        thread::spawn(lowered).join().unwrap();
    }

    #[test]
    fn a_thread_that_drops_all_holds_nothing() {
        let dropped = || {
            drop_all().unwrap();
            for set in [CapSet::Effective, CapSet::Permitted, CapSet::Inheritable, CapSet::Ambient] {
                assert!(caps::read(None, set).unwrap().is_empty(), "{set:?}");
            }
        };
        thread::spawn(dropped).join().unwrap();
    }

    #[test]
    fn what_is_needed_is_kept_where_it_was_given_and_nothing_else() {
        let running = |held: &CapsHashSet| -> CapsHashSet {
            WHILE_RUNNING.iter().filter(|capability| held.contains(*capability)).copied().collect()
        };
        check(true, running);
        check(false, move |held| {
            let mut kept = running(held);
            kept.extend(TO_READ.iter().find(|capability| held.contains(*capability)));
            kept
        });
    }
}
