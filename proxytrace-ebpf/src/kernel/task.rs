//! A `struct task_struct`: a thread, and whose it is.

use core::{ffi::c_void, marker::PhantomData};

use aya_ebpf::helpers::generated;
use proxytrace_ebpf::abi::Owner;

use super::memory::{Access, Direct, Memory, Probed, offset, read_in, try_read};

/// A `struct task_struct`.
#[derive(Clone, Copy)]
pub(crate) struct Task<A>(*const c_void, PhantomData<A>);

impl<A: Access> Task<A> {
    #[inline(always)]
    pub(crate) fn new(pointer: *const c_void) -> Self {
        Self(pointer, PhantomData)
    }

    /// The thread's own number.
    #[inline(always)]
    pub(crate) fn thread(self) -> u32 {
        A::read(self.0, offset!(task_pid))
    }

    /// The process (thread group) that it belongs to.
    #[inline(always)]
    pub(crate) fn process(self) -> u32 {
        A::read(self.0, offset!(task_tgid))
    }

    /// How it ends, for a task that exits: a status as wait(2) gives it. All threads of a process that ends have the same.
    #[inline(always)]
    pub(crate) fn exit_status(self) -> u32 {
        A::read(self.0, offset!(task_exit_code))
    }

    /// How often it, and those it was forked by, have become another program; the lower half of it.
    #[inline(always)]
    pub(crate) fn exec_id(self) -> u32 {
        A::read(self.0, offset!(task_exec_id))
    }

    /// Its table of open files: a `struct files_struct`.
    #[inline(always)]
    pub(super) fn files(self) -> *const c_void {
        A::read(self.0, offset!(task_files))
    }

    /// Whether it holds the signal back.
    #[inline(always)]
    pub(crate) fn blocks(self, signal: i32) -> bool {
        A::read::<u64>(self.0, offset!(task_blocked)) & bit_of(signal) != 0
    }

    /// Whether its command line is the one that nginx's master gives itself before it starts workers (`ngx_master_process_cycle()`):
    /// `nginx: master process …`, and of a program derived from it another word of five letters. Asked of the current process.
    #[inline(always)]
    pub(crate) fn is_titled_as_master(self) -> bool {
        let memory = A::read::<*const c_void>(self.0, offset!(task_memory));
        let arguments = Probed::read::<u64>(memory, offset!(memory_arguments));
        let title = read_in::<[u8; 8]>(Memory::Caller, arguments + 5);
        title.is_ok_and(|title| title == *b": master")
    }

    /// Whether it will hold the signal back again when it no longer waits for signals. Right while one is delivered.
    #[inline(always)]
    pub(crate) fn will_block(self, signal: i32) -> bool {
        A::read::<u64>(self.0, offset!(task_saved_sigmask)) & bit_of(signal) != 0
    }

    /// Whether it has children: those that this thread has forked, ended ones that it has not waited for among them.
    #[inline(always)]
    pub(crate) fn has_children(self) -> bool {
        let list = self.0.wrapping_byte_add(offset!(task_children) as usize);
        // A ring: where it is empty, its head points to itself.
        try_read::<u64>(list, 0).is_some_and(|first| first != list as u64)
    }

    /// Whether no thread of its process is left, for a task that exits.
    #[inline(always)]
    pub(crate) fn is_last_of_process(self) -> bool {
        let signal = A::read::<*const c_void>(self.0, offset!(task_signal));
        A::read::<u32>(signal, offset!(signal_live)) == 0
    }
}

impl Task<Direct> {
    /// The current thread (5.11).
    #[inline(always)]
    pub(super) fn current_typed() -> Self {
        // SAFETY: a helper call without arguments.
        Self::new(unsafe { generated::bpf_get_current_task_btf() } as *const c_void)
    }
}

impl Task<Probed> {
    /// The current thread.
    #[inline(always)]
    pub(crate) fn current() -> Self {
        // SAFETY: a helper call without arguments.
        Self::new(unsafe { generated::bpf_get_current_task() } as *const c_void)
    }

    /// Whose it is.
    #[inline(always)]
    pub(crate) fn owner(self) -> Owner {
        let credentials = Probed::read::<*const c_void>(self.0, offset!(task_credentials));
        Owner::new(Probed::read(credentials, offset!(credentials_uid)), self.pid_namespace())
    }

    /// The inode number of the pid namespace that it is in: of the innermost that has a number for it.
    #[inline(always)]
    fn pid_namespace(self) -> u32 {
        let pid = Probed::read::<*const c_void>(self.0, offset!(task_pid_numbers));
        let level = Probed::read::<u32>(pid, offset!(pid_level));
        // A `struct upid` ends with the pointer to the namespace.
        let number = offset!(pid_numbers) + level * (offset!(number_namespace) + 8);
        let namespace = Probed::read::<*const c_void>(pid, number + offset!(number_namespace));
        Probed::read(namespace, offset!(pid_namespace_inode))
    }
}

/// The bit of a signal in a `sigset_t`.
#[inline(always)]
const fn bit_of(signal: i32) -> u64 {
    1 << (signal - 1)
}
