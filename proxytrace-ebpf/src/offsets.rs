//! Where members lie in the running kernel's structures.
//!
//! Rust emits no CO-RE relocations, so userspace looks the offsets up in the kernel's BTF and puts them into a
//! read-only global before the programs are loaded; the verifier then treats them as constants.

#![expect(unsafe_code, reason = "the offsets cross to the kernel as bytes")]

/// Declares the offsets once: the table, its poisoned default and the list that userspace resolves.
macro_rules! offsets {
    ($($field:ident: [$($path:literal),+],)+) => {
        /// Offsets in bytes, see [`Offsets::MEMBERS`] for what each is of.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(C)]
        #[expect(missing_docs, reason = "named structure_member, and spelled out in MEMBERS")]
        pub struct Offsets { $(pub $field: u32,)+ }

        // SAFETY: C layout, only u32: no padding, every pattern valid.
        unsafe impl crate::abi::record::Abi for Offsets {}

        impl Offsets {
            /// No offset known: a load at one of these is refused by the verifier or faults, it never misreads.
            pub const POISON: Self = Self { $($field: u32::MAX,)+ };

            /// For each offset its name and the places to look for it, `structure.member[.member][+bytes]`; the first
            /// that the kernel has is taken (the registers of a system call are named differently on arm64).
            pub const MEMBERS: &[(&str, &[&str])] = &[$((stringify!($field), &[$($path),+]),)+];

            /// Fills the table from `find`, or names what was not found.
            ///
            /// # Errors
            /// The name of the first member that `find` has none of the places for.
            pub fn resolve(find: impl Fn(&str) -> Option<u32>) -> Result<Self, &'static str> {
                Ok(Self { $($field: [$($path),+].into_iter().find_map(&find).ok_or(concat!($($path, " "),+))?,)+ })
            }
        }
    };
}

offsets! {
    sock_family: ["sock_common.skc_family"],
    sock_state: ["sock_common.skc_state"],
    sock_remote_port: ["sock_common.skc_dport"],
    sock_remote_v4: ["sock_common.skc_daddr"],
    sock_local_v4: ["sock_common.skc_rcv_saddr"],
    sock_remote_v6: ["sock_common.skc_v6_daddr"],
    sock_local_v6: ["sock_common.skc_v6_rcv_saddr"],
    sock_protocol: ["sock.sk_protocol"],
    sock_error: ["sock.sk_err"],
    sock_soft_error: ["sock.sk_err_soft"],
    sock_owned: ["sock.sk_lock.owned"],
    sock_socket: ["sock.sk_socket"],
    sock_backlog: ["sock.sk_max_ack_backlog"],
    sock_user_data: ["sock.sk_user_data"],
    sock_error_queue: ["sock.sk_error_queue"],
    queue_newest: ["sk_buff_head.prev"],
    packet_cb: ["sk_buff.cb"],
    cb_error: ["sock_exterr_skb.ee"],
    error_origin: ["sock_extended_err.ee_origin"],
    inet_local_port: ["inet_sock.inet_sport"],
    tcp_timer: ["inet_connection_sock.icsk_pending"],
    tcp_timer_ends: ["inet_connection_sock.icsk_retransmit_timer.expires", "sock.tcp_retransmit_timer.expires"],
    tcp_bytes_sent: ["tcp_sock.bytes_sent"],
    tcp_bytes_received: ["tcp_sock.bytes_received"],
    tcp_retransmits: ["tcp_sock.total_retrans"],
    tcp_timeouts: ["inet_connection_sock.icsk_retransmits"],
    tcp_sent_at: ["tcp_sock.lsndtime"],
    tcp_received_at: ["inet_connection_sock.icsk_ack.lrcvtime"],
    tcp_heard_at: ["tcp_sock.rcv_tstamp"],
    tcp_busy_since: ["tcp_sock.chrono_start"],
    tcp_acknowledged: ["tcp_sock.snd_una"],
    tcp_sent: ["tcp_sock.snd_nxt"],
    tcp_written: ["tcp_sock.write_seq"],
    tcp_window_from: ["tcp_sock.snd_wl1"],
    tcp_expected: ["tcp_sock.rcv_nxt"],
    tcp_confirmed: ["tcp_sock.rcv_wup"],
    tcp_read: ["tcp_sock.copied_seq"],
    tcp_data_segments: ["tcp_sock.data_segs_out"],
    tcp_segments_received: ["tcp_sock.segs_in"],
    tcp_data_segments_in: ["tcp_sock.data_segs_in"],
    tcp_segment: ["tcp_sock.mss_cache"],
    tcp_round_trip: ["tcp_sock.srtt_us"],
    task_pid: ["task_struct.pid"],
    task_tgid: ["task_struct.tgid"],
    task_signal: ["task_struct.signal"],
    task_files: ["task_struct.files"],
    task_memory: ["task_struct.mm"],
    memory_arguments: ["mm_struct.arg_start"],
    task_exit_code: ["task_struct.exit_code"],
    task_exec_id: ["task_struct.self_exec_id"],
    task_blocked: ["task_struct.blocked"],
    task_saved_sigmask: ["task_struct.saved_sigmask"],
    signal_live: ["signal_struct.live"],
    task_children: ["task_struct.children"],
    task_credentials: ["task_struct.real_cred"],
    credentials_uid: ["cred.uid"],
    task_pid_numbers: ["task_struct.thread_pid"],
    pid_level: ["pid.level"],
    pid_numbers: ["pid.numbers"],
    number_namespace: ["upid.ns"],
    pid_namespace_inode: ["pid_namespace.ns.inum"],
    files_table: ["files_struct.fdt"],
    table_files: ["fdtable.fd"],
    table_size: ["fdtable.max_fds"],
    file_private: ["file.private_data"],
    socket_state: ["socket.state"],
    socket_type: ["socket.type"],
    socket_file: ["socket.file"],
    socket_sock: ["socket.sk"],
    registers_number: ["pt_regs.orig_ax", "pt_regs.syscallno"],
    registers_first: ["pt_regs.di", "pt_regs.regs"],
    registers_second: ["pt_regs.si", "pt_regs.regs+8"],
    registers_third: ["pt_regs.dx", "pt_regs.regs+16"],
    registers_fourth: ["pt_regs.r10", "pt_regs.regs+24"],
    registers_fifth: ["pt_regs.r8", "pt_regs.regs+32"],
    registers_sixth: ["pt_regs.r9", "pt_regs.regs+40"],
}
