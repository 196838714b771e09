//! The hooks: each a kernel prototype and one line. How a program reaches kernel memory ([`Direct`] or [`Probed`]) is
//! the only thing that differs between the ways to attach the same hook.

#![expect(
    clippy::needless_pass_by_value,
    reason = "the macros that make programs of them ask for this signature"
)]

use core::ffi::c_void;

use aya_ebpf::{
    macros::{btf_tracepoint, fentry, kprobe},
    programs::{BtfTracePointContext, FEntryContext, ProbeContext},
};

use crate::{
    connect,
    kernel::{Access, Direct, Probed, Registers, Sock, Task, setting, tcp},
    process, stream,
};

#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// `sched_process_fork(struct task_struct *parent, struct task_struct *child)`
#[btf_tracepoint(function = "sched_process_fork")]
fn process_fork(ctx: BtfTracePointContext) {
    process::forked(Task::<Direct>::new(ctx.arg(0)), Task::<Direct>::new(ctx.arg(1)));
}

/// `sched_process_exec(struct task_struct *p, pid_t old_pid, struct linux_binprm *bprm)`
#[btf_tracepoint(function = "sched_process_exec")]
fn process_exec(_ctx: BtfTracePointContext) {
    process::executed();
}

/// `sched_process_exit(struct task_struct *p)`, with `bool group_dead` behind it from 6.16 on
#[btf_tracepoint(function = "sched_process_exit")]
fn process_exit(ctx: BtfTracePointContext) {
    process::exited(Task::<Direct>::new(ctx.arg(0)));
}

/// `signal_deliver(int sig, struct kernel_siginfo *info, struct k_sigaction *ka)`
#[btf_tracepoint(function = "signal_deliver")]
fn signal_deliver(ctx: BtfTracePointContext) {
    process::signalled(ctx.arg(0));
}

/// `sys_enter(struct pt_regs *regs, long id)`
#[btf_tracepoint(function = "sys_enter")]
fn syscall_enter(ctx: BtfTracePointContext) {
    if ctx.arg::<u64>(1) == u64::from(setting!(connect_syscall)) {
        let registers = Registers::new(ctx.arg(0));
        connect::entered(registers.first() as u32, registers.second(), registers.third() as u32);
    }
}

/// `sys_exit(struct pt_regs *regs, long ret)`
#[btf_tracepoint(function = "sys_exit")]
fn syscall_exit(ctx: BtfTracePointContext) {
    if Registers::new(ctx.arg(0)).number() == setting!(connect_syscall) {
        connect::returned(ctx.arg(1));
    }
}

/// `inet_sock_set_state(const struct sock *sk, const int oldstate, const int newstate)`
#[btf_tracepoint(function = "inet_sock_set_state")]
fn sock_set_state(ctx: BtfTracePointContext) {
    changed(Sock::<Direct>::new(ctx.arg(0)), ctx.arg(1), ctx.arg(2), true);
}

/// The same once more. From 6.1 on the kernel skips a program that is already running on the same CPU
/// (kernel/trace/bpf_trace.c, `prog->active`). A transition in a process's own context, its connect() or close(), can
/// be interrupted by the one of another socket, its SYN-ACK or RST, whose end would then be missed. Such an
/// interruption skips one of the two programs and runs the other, and these interruptions do not nest. Everything
/// behind them takes what it settles out of its table, and so does nothing the second time.
#[btf_tracepoint(function = "inet_sock_set_state")]
fn sock_set_state_again(ctx: BtfTracePointContext) {
    changed(Sock::<Direct>::new(ctx.arg(0)), ctx.arg(1), ctx.arg(2), false);
}

/// `tcp_retransmit_skb(const struct sock *sk, const struct sk_buff *skb)`, with `int err` behind it from 6.17 on
#[btf_tracepoint(function = "tcp_retransmit_skb")]
fn tcp_retransmit(ctx: BtfTracePointContext) {
    connect::retransmitted(Sock::<Direct>::new(ctx.arg(0)));
}

/// `tcp_destroy_sock(struct sock *sk)`
#[btf_tracepoint(function = "tcp_destroy_sock")]
fn tcp_destroy(ctx: BtfTracePointContext) {
    let sock = Sock::<Direct>::new(ctx.arg(0));
    connect::destroyed(sock);
    stream::destroyed(sock);
}

/// `int tcp_connect(struct sock *sk)`
#[fentry(function = "tcp_connect")]
fn tcp_connect_fentry(ctx: FEntryContext) {
    connect::started(Sock::<Direct>::new(ctx.arg(0)), false);
}

/// `int tcp_connect(struct sock *sk)`
#[kprobe(function = "tcp_connect")]
fn tcp_connect_kprobe(ctx: ProbeContext) {
    connect::started(Sock::<Probed>::new(ctx.arg::<*const c_void>(0).unwrap_or_default()), false);
}

/// Sorts the transitions; most sockets of the host take others, and leave here.
#[inline(always)]
fn changed<A: Access>(sock: Sock<A>, from: i32, to: i32, first: bool) {
    if !sock.is_tcp() {
        return;
    }
    match (from, to) {
        (tcp::CLOSE, tcp::SYN_SENT) => connect::started(sock, first),
        (tcp::SYN_SENT | tcp::SYN_RECV, tcp::ESTABLISHED) => connect::established(sock),
        (tcp::SYN_SENT, tcp::SYN_RECV) => {} // both ends began at once: the handshake goes on
        // To CLOSE; or, given up when both ends had begun at once, to FIN_WAIT1.
        (tcp::SYN_SENT | tcp::SYN_RECV, _) => connect::closed(sock),
        (tcp::ESTABLISHED, tcp::CLOSE_WAIT) => stream::closed_by_upstream(sock),
        (tcp::ESTABLISHED, _) => stream::ended(sock),
        (tcp::CLOSE_WAIT, _) => stream::ended_in_silence(sock),
        _ => {}
    }
}

/// Nothing can panic: the verifier refuses what it cannot see the end of.
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
