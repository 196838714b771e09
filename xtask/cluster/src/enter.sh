# Mounts what programs in the root directory $1 need, and at the second word of each further pair the first. Then it stays, so that others
# can enter the namespaces that it was started in.
set -e
root=$1
shift
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
# Of its own network namespace, or that of the host.
mount -t sysfs sysfs "$root/sys"
mount --rbind /sys/fs/cgroup "$root/sys/fs/cgroup"
mount --rbind /dev "$root/dev"
mount -t tmpfs tmpfs "$root/run"
mount -t tmpfs tmpfs "$root/tmp"
while [ $# -gt 0 ]; do
    mkdir -p "$root$2"
    mount --bind "$1" "$root$2"
    shift 2
done
ip link set lo up
# Not chroot: whoever joined the mount namespace of a container would come out above it.
mkdir -p "$root/before"
cd "$root"
pivot_root . before
umount --lazy /before
echo ready
exec sleep infinity
