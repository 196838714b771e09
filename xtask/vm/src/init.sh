#!/usr/bin/busybox sh
# The first process of a virtual machine. It does what each line of /vm/plan says, reports it to the host in lines that
# begin with "vm:", and switches the machine off. The modules are in /vm/modules, numbered in their order.

export PATH=/usr/sbin:/usr/bin HOME=/ TMPDIR=/tmp
export PROXYTRACE_BIN=/usr/bin/proxytrace PROXYTRACE_SKIP_IS_FAILURE=1
# An emulated processor is slow, and stands still for half a minute when its host has more urgent things to do.
export PROXYTRACE_TEST_SCALE=10 PROXYTRACE_TEST_PATIENCE=20

mount_at() {
    mkdir -p "$2" && mount -t "$1" "$1" "$2"
}
mount_at proc /proc
mount_at sysfs /sys
mount_at devtmpfs /dev
# It is there where the programs were built below it: nothing may be mounted over them.
[ -e /tmp ] || mount_at tmpfs /tmp
mount_at tmpfs /run
mount_at cgroup2 /sys/fs/cgroup
mount_at bpf /sys/fs/bpf
mount_at securityfs /sys/kernel/security
mount_at tracefs /sys/kernel/tracing
chmod 1777 /tmp
mkdir -p /run/netns
for module in /vm/modules/*; do
    [ ! -e "$module" ] || insmod "$module" || echo "vm: cannot load $module"
done
ip link set lo up
# The firmware has left something in its line.
echo
echo "vm: kernel $(uname -rv)"

# Programs by kprobe and by tracepoint count exactly only where the kernel is not preempted: docs/kernel-notes.md, "Recursion misses". Where
# that can be chosen, it is not while these are forced.
preemption=
prefer_preemption_for() {
    mount_at debugfs /sys/kernel/debug
    switch=/sys/kernel/debug/sched/preempt
    if [ -e "$switch" ]; then
        [ -n "$preemption" ] || preemption=$(sed 's/.*(\(.*\)).*/\1/' "$switch")
        case $1 in
        *=kprobe* | *=tracepoint*) echo voluntary >"$switch" ;;
        *) echo "$preemption" >"$switch" ;;
        esac
        echo "vm: preemption: $(cat "$switch")"
    fi
    umount /sys/kernel/debug
}

stories_under() {
    profile=$1 forced=$2
    prefer_preemption_for "$forced"
    export RUST_TEST_THREADS=$3
    shift 3
    echo "vm: begin $profile"
    # What the profile before it forced.
    unset PROXYTRACE_HOOK_VIA PROXYTRACE_TEST_HOOK_VIA
    [ "$forced" = - ] || export PROXYTRACE_HOOK_VIA="$forced" PROXYTRACE_TEST_HOOK_VIA="$forced"
    proxytrace doctor --json >/tmp/doctor
    status=$?
    echo "vm: doctor $(cat /tmp/doctor)"
    echo "vm: doctor ended with $status"
    stories "$@" 2>&1
    echo "vm: stories ended with $?"
}

refusal() {
    echo "vm: begin refusal"
    proxytrace trace --duration 1 >/tmp/refusal 2>&1
    status=$?
    cat /tmp/refusal
    echo "vm: refused with $status"
}

while read -r what arguments; do
    # One word each: neither profiles nor filters have blanks in them.
    # shellcheck disable=SC2086
    "$what" $arguments </dev/null
done </vm/plan
echo "vm: end"
poweroff -f
