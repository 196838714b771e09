//! The programs: each a kernel prototype and one line. How a program is attached, and so reaches kernel memory
//! ([`Direct`] or [`Probed`]), is the only thing that differs between the ways to attach the same hook.

#![expect(unsafe_code, reason = "the kernel looks for the licence in a section of its own")]
#![expect(
    clippy::needless_pass_by_value,
    reason = "the macros that make programs of them ask for this signature"
)]

use core::ffi::c_void;

use aya_ebpf::{
    macros::{btf_tracepoint, fentry, fexit, kprobe, kretprobe, raw_tracepoint, tracepoint},
    programs::{
        BtfTracePointContext, FEntryContext, FExitContext, ProbeContext, RawTracePointContext,
        RetProbeContext, TracePointContext,
    },
};
use proxytrace_ebpf::{
    abi::{Call, Process, Transition, exit_signal},
    hooks::Place,
};

use crate::{
    attempt, connect,
    earlier::{self, OpenFile},
    handled, handshake,
    helpers::setting,
    kernel::{Access, Arguments, Direct, Probed, Registers, Sock, Task, result_of_call, tcp},
    look, process, stream,
};

#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// The two programs of a tracepoint, with one body: as a BTF tracepoint, where the verifier knows the types of the
/// arguments, and as a raw tracepoint, where they are mere numbers.
macro_rules! tracepoint {
    ($(#[$doc:meta])* $typed:ident, $raw:ident: |$ctx:ident, $access:ident| $body:block) => {
        $(#[$doc])*
        #[btf_tracepoint]
        fn $typed($ctx: BtfTracePointContext) {
            type $access = Direct;
            $body
        }

        $(#[$doc])*
        #[raw_tracepoint]
        fn $raw($ctx: RawTracePointContext) {
            type $access = Probed;
            $body
        }
    };
}

tracepoint! {
    /// `sched_process_fork(struct task_struct *parent, struct task_struct *child)`
    process_fork, process_fork_raw: |ctx, A| {
        process::forked(Task::<A>::new(ctx.arg(0)), Task::<A>::new(ctx.arg(1)));
    }
}

tracepoint! {
    /// The same once more: see `sock_set_state_third`. Who misses a fork misses all that the child does.
    process_fork_again, process_fork_again_raw: |ctx, A| {
        process::forked(Task::<A>::new(ctx.arg(0)), Task::<A>::new(ctx.arg(1)));
    }
}

tracepoint! {
    /// `sched_process_exec(struct task_struct *p, pid_t old_pid, struct linux_binprm *bprm)`
    process_exec, process_exec_raw: |_ctx, _A| {
        process::executed();
    }
}

tracepoint! {
    /// The same once more: see `sock_set_state_third`.
    process_exec_again, process_exec_again_raw: |_ctx, _A| {
        process::executed();
    }
}

tracepoint! {
    /// `sched_process_exit(struct task_struct *p)`, with `bool group_dead` behind it from 6.16 on
    process_exit, process_exit_raw: |ctx, A| {
        exited(Task::<A>::new(ctx.arg(0)));
    }
}

tracepoint! {
    /// The same once more.
    process_exit_again, process_exit_again_raw: |ctx, A| {
        exited(Task::<A>::new(ctx.arg(0)));
    }
}

tracepoint! {
    /// `signal_deliver(int sig, struct kernel_siginfo *info, struct k_sigaction *ka)`
    signal_deliver, signal_deliver_raw: |ctx, _A| {
        process::signalled(ctx.arg(0), Process::SIGNALLED);
    }
}

tracepoint! {
    /// The same once more.
    signal_deliver_again, signal_deliver_again_raw: |ctx, _A| {
        process::signalled(ctx.arg(0), Process::SIGNALLED_AGAIN);
    }
}

tracepoint! {
    /// `sys_enter(struct pt_regs *regs, long id)`
    syscall_enter, syscall_enter_raw: |ctx, A| {
        connect_entered(Registers::<A>::new(ctx.arg(0)), ctx.arg::<u64>(1) as u32, Call::ENTERED);
    }
}

tracepoint! {
    /// The same once more, where it can be preempted: see `sock_set_state_third`.
    syscall_enter_again, syscall_enter_again_raw: |ctx, A| {
        connect_entered(Registers::<A>::new(ctx.arg(0)), ctx.arg::<u64>(1) as u32, Call::ENTERED_AGAIN);
    }
}

tracepoint! {
    /// `sys_exit(struct pt_regs *regs, long ret)`
    syscall_exit, syscall_exit_raw: |ctx, A| {
        connect_returned(Registers::<A>::new(ctx.arg(0)), ctx.arg(1));
    }
}

tracepoint! {
    /// The same once more.
    syscall_exit_again, syscall_exit_again_raw: |ctx, A| {
        connect_returned(Registers::<A>::new(ctx.arg(0)), ctx.arg(1));
    }
}

/// A thread exits: first what it was in the middle of, also where another thread of its process, that ends at the same time, has
/// taken the process out already.
#[inline(always)]
fn exited<A: Access>(task: Task<A>) {
    let (pid, status) = (task.process(), task.exit_status());
    let thread = (u64::from(pid) << 32) | u64::from(task.thread());
    connect::thread_exited(thread, exit_signal(status) != 0);
    process::exited(task, pid, status);
}

#[inline(always)]
fn connect_entered<A: Access>(registers: Registers<A>, number: u32, program: u32) {
    if let Some(opening) = registers.opening(number)
        && let Some(arguments) = Arguments::of_syscall(opening, registers)
    {
        connect::entered(arguments, program);
    }
}

#[inline(always)]
fn connect_returned<A: Access>(registers: Registers<A>, result: i64) {
    if registers.opening(registers.number()).is_some() {
        connect::returned(result);
    }
}

/// connect(), as an event of perf. The kernel lets one program of that kind run at a time on a CPU, and none while a process there is in a
/// system call on a BPF map: a duplicate would be skipped with the first. Not at sends: a program there would run for each request of a
/// client or a proxy that writes with send().
#[tracepoint]
fn call_enter(_ctx: TracePointContext) {
    // The record is too short for the address, so the arguments come from where the kernel keeps them (5.15).
    connect_entered(Registers::<Direct>::of_current(), setting!(connect_syscall), Call::ENTERED);
}

/// It returns.
#[tracepoint]
fn call_exit(ctx: TracePointContext) {
    connect::returned(result_of_call(&ctx));
}

/// `int __sys_connect_file(struct file *file, struct sockaddr_storage *address, int addrlen, int file_flags)`
#[fentry]
fn connect_fentry(ctx: FEntryContext) {
    connect::entered(Arguments::of_function(ctx.arg(0), ctx.arg(1), ctx.arg(2)), Call::ENTERED);
}

/// The same once more. A program by trampoline can be preempted: when another process comes here on the same CPU
/// meanwhile, the kernel skips the program that is still running (kernel/bpf/trampoline.c,
/// `__bpf_prog_enter_recur`), and runs its duplicate. Whichever comes second finds the work done.
#[fentry]
fn connect_fentry_again(ctx: FEntryContext) {
    connect::entered(Arguments::of_function(ctx.arg(0), ctx.arg(1), ctx.arg(2)), Call::ENTERED_AGAIN);
}

/// A third time: on 7.3 under a storm both were missed in 1 of 1000 calls.
#[fentry]
fn connect_fentry_third(ctx: FEntryContext) {
    connect::entered(Arguments::of_function(ctx.arg(0), ctx.arg(1), ctx.arg(2)), Call::ENTERED_THIRD);
}

/// The same. The result stands behind the arguments; the helper for it is there from 5.17 on only. Calls that are in it
/// while another program is attached here or detached return unseen (kernel/bpf/trampoline.c, `bpf_tramp_image_put`).
#[fexit]
fn connect_fexit(ctx: FExitContext) {
    connect::returned(i64::from(ctx.arg::<i32>(4)));
}

/// The same once more.
#[fexit]
fn connect_fexit_again(ctx: FExitContext) {
    connect::returned(i64::from(ctx.arg::<i32>(4)));
}

/// A third time.
#[fexit]
fn connect_fexit_third(ctx: FExitContext) {
    connect::returned(i64::from(ctx.arg::<i32>(4)));
}

/// The same.
#[kprobe]
fn connect_kprobe(ctx: ProbeContext) {
    if let (Some(file), Some(address), Some(length)) = (ctx.arg(0), ctx.arg(1), ctx.arg(2)) {
        connect::entered(Arguments::of_function(file, address, length), Call::ENTERED);
    }
}

/// The same. Where more calls are in it than the kernel sets places aside (as few as one a CPU), this misses returns.
#[kretprobe]
fn connect_kretprobe(ctx: RetProbeContext) {
    connect::returned(i64::from(ctx.ret::<i32>()));
}

/// `int __inet_stream_connect(struct socket *sock, struct sockaddr *address, int length, int flags, int is_sendmsg)`: where
/// sends connect as well. What connect() itself brings here has been seen before.
#[fentry]
fn send_fentry(ctx: FEntryContext) {
    if ctx.arg::<i32>(4) != 0
        && let Some(arguments) = Arguments::of_send(ctx.arg(0), ctx.arg(1), ctx.arg(2))
    {
        connect::entered(arguments, Call::ENTERED);
    }
}

/// The same.
#[fexit]
fn send_fexit(ctx: FExitContext) {
    connect::send_returned(i64::from(ctx.arg::<i32>(5)));
}

/// The same.
#[kprobe]
fn send_kprobe(ctx: ProbeContext) {
    if ctx.arg::<i32>(4).is_some_and(|is_sendmsg| is_sendmsg != 0)
        && let (Some(socket), Some(address), Some(length)) = (ctx.arg(0), ctx.arg(1), ctx.arg(2))
        && let Some(arguments) = Arguments::of_send(socket, address, length)
    {
        connect::entered(arguments, Call::ENTERED);
    }
}

/// The same.
#[kretprobe]
fn send_kretprobe(ctx: RetProbeContext) {
    connect::send_returned(i64::from(ctx.ret::<i32>()));
}

tracepoint! {
    /// `inet_sock_set_state(const struct sock *sk, const int oldstate, const int newstate)`
    sock_set_state, sock_set_state_raw: |ctx, A| {
        changed(Sock::<A>::new(ctx.arg(0)), ctx.arg(1), ctx.arg(2), Turn::First);
    }
}

tracepoint! {
    /// The same once more. From 6.1 on the kernel skips a program that is already running on the same CPU
    /// (kernel/trace/bpf_trace.c, `prog->active`). A transition in a process's own context, its connect() or close(),
    /// can be interrupted by the one of another socket, its SYN-ACK or RST, whose end would then be missed. Such an
    /// interruption skips one of the two programs and runs the other, and these interruptions do not nest. Everything
    /// behind them takes what it settles out of its table, and so does nothing the second time.
    sock_set_state_again, sock_set_state_again_raw: |ctx, A| {
        let turn = if setting!(has_preemptible_tracepoints) == 0 { Turn::Last } else { Turn::Between };
        changed(Sock::<A>::new(ctx.arg(0)), ctx.arg(1), ctx.arg(2), turn);
    }
}

tracepoint! {
    /// A third and a fourth time. From 7.0 on tracepoints can be preempted (include/linux/tracepoint.h, SRCU), and a process
    /// that is preempted in a program keeps it from everybody on that CPU until it goes on. In a storm on an emulated
    /// processor each program is so missed in 3 of 100 transitions, two in 1 of 1000, and four practically never.
    sock_set_state_third, sock_set_state_third_raw: |ctx, A| {
        changed(Sock::<A>::new(ctx.arg(0)), ctx.arg(1), ctx.arg(2), Turn::Between);
    }
}

tracepoint! {
    /// See the third.
    sock_set_state_fourth, sock_set_state_fourth_raw: |ctx, A| {
        changed(Sock::<A>::new(ctx.arg(0)), ctx.arg(1), ctx.arg(2), Turn::Last);
    }
}

tracepoint! {
    /// `tcp_retransmit_skb(const struct sock *sk, const struct sk_buff *skb)`, with `int err` behind it from 6.17 on
    tcp_retransmit, tcp_retransmit_raw: |ctx, A| {
        handshake::retransmitted(Sock::<A>::new(ctx.arg(0)));
    }
}

tracepoint! {
    /// `tcp_destroy_sock(struct sock *sk)`
    tcp_destroy, tcp_destroy_raw: |ctx, A| {
        handshake::destroyed(Sock::<A>::new(ctx.arg(0)));
    }
}

/// Attached nowhere: userspace runs it, with the number of connections that it has listed.
#[raw_tracepoint]
fn look(ctx: RawTracePointContext) {
    look::look(ctx.arg(0));
}

/// An iterator over the open files of all tasks, which userspace runs once. The library has no macro for those.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
extern "C" fn earlier_connection(context: *const OpenFile) -> i32 {
    earlier::found(context);
    0
}

/// `int tcp_connect(struct sock *sk)`
#[fentry]
fn tcp_connect_fentry(ctx: FEntryContext) {
    handshake::started(Sock::<Direct>::new(ctx.arg(0)), Place::TcpConnect);
}

/// The same.
#[kprobe]
fn tcp_connect_kprobe(ctx: ProbeContext) {
    if let Some(sock) = ctx.arg::<*const c_void>(0) {
        handshake::started(Sock::<Probed>::new(sock), Place::TcpConnect);
    }
}

/// Of the programs that see the same transition.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    First,
    Between,
    Last,
}

/// Sorts the transitions; most sockets of the host take others, and leave here. So do those that were accepted, when they are established:
/// nobody has a descriptor of them yet.
///
/// What the first program has handled to its end, those that come after it leave alone. It says so in a slot of its CPU, which it empties
/// before it begins; so where it is skipped because it is being run already, the slot is empty.
#[inline(always)]
fn changed<A: Access>(sock: Sock<A>, from: i32, to: i32, turn: Turn) {
    let is_ours = match from {
        tcp::CLOSE => to == tcp::SYN_SENT,
        tcp::SYN_RECV => to != tcp::ESTABLISHED || sock.is_held(),
        tcp::SYN_SENT | tcp::ESTABLISHED | tcp::CLOSE_WAIT => true,
        _ => false,
    };
    if !is_ours || !sock.is_tcp() {
        return;
    }
    let transition = Transition { sock: sock.id(), from: from as u32, to: to as u32 };
    if turn == Turn::First {
        handled::begin();
        sort(sock, from, to, Place::State);
        handled::end(transition);
    } else if setting!(count_seen) != 0 || !handled::is(transition, turn == Turn::Last) {
        sort(sock, from, to, Place::StateAgain);
    }
}

#[inline(always)]
fn sort<A: Access>(sock: Sock<A>, from: i32, to: i32, place: Place) {
    match (from, to) {
        (tcp::CLOSE, tcp::SYN_SENT) => handshake::started(sock, place),
        (tcp::SYN_SENT | tcp::SYN_RECV, tcp::ESTABLISHED) => attempt::established(sock),
        (tcp::SYN_SENT, tcp::SYN_RECV) => {} // both ends began at once: the handshake goes on
        // To CLOSE; or, given up when both ends had begun at once, to FIN_WAIT1.
        (tcp::SYN_SENT | tcp::SYN_RECV, _) => handshake::closed(sock),
        (tcp::ESTABLISHED | tcp::CLOSE_WAIT, _) => stream::left(sock, from, to),
        _ => {}
    }
}

/// Nothing can panic: the verifier refuses what it cannot see the end of.
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
