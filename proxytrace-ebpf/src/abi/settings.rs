//! The settings of the programs.

use super::{owner::Share, record::abi};

abi! {
    /// What userspace sets once, before the programs are loaded.
    pub struct Settings {
        /// The proxy's connect timeout where nothing better is known, in nanoseconds.
        pub connect_timeout_ns: u64,
        /// The numbers of the system calls that open connections on this machine.
        pub connect_syscall: u32,
        /// Likewise, with MSG_FASTOPEN.
        pub sendto_syscall: u32,
        /// Likewise.
        pub sendmsg_syscall: u32,
        /// Whether what each hook sees of traced processes is counted: 0 or 1.
        pub count_seen: u32,
        /// How many entries the tables have that owners share, index [`Share`].
        pub capacity: [u32; Share::SLOTS],
        /// Whether the kernel shows the registers of a thread's system call to programs (`bpf_task_pt_regs`, 5.15): 0 or 1.
        pub has_task_registers: u32,
        /// How long a tick of the kernel's clock (a jiffy) takes, in nanoseconds.
        pub jiffy_ns: u32,
        /// Whether a process can be preempted in the programs of a tracepoint (7.0): 0 or 1.
        pub has_preemptible_tracepoints: u32,
        /// Not used; zero.
        pub reserved: u32,
    }
}
