# Before the parts of the cluster are started, in the root.
set -e
rm -rf /var/lib/cluster /var/lib/kubelet /var/log/containers /var/lib/cni
mkdir -p /var/lib/cluster/log /etc/cni/net.d /etc/containerd /run/containerd
cp /repo/xtask/cluster/src/config/network.conflist /etc/cni/net.d/10-pods.conflist
openssl genrsa -out /var/lib/cluster/accounts.key 2048 2>/dev/null
echo 'token,admin,1,"system:masters"' >/var/lib/cluster/tokens.csv

# The node's own network, which leads nowhere.
ip link add node type veth peer name nowhere
ip addr add 10.9.9.1/24 dev node
ip link set node up
ip link set nowhere up
ip route add default dev node
echo 1 >/proc/sys/net/ipv4/ip_forward

# A kubelet insists on writing these, which are the machine's: it gets files of its own.
for file in vm/overcommit_memory vm/panic_on_oom kernel/panic kernel/panic_on_oops kernel/keys/root_maxkeys kernel/keys/root_maxbytes; do
    cp "/proc/sys/$file" "/tmp/${file##*/}"
    mount --bind "/tmp/${file##*/}" "/proc/sys/$file"
done
