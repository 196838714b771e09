#!/bin/bash
# What must hold where AppArmor confines containers: the chart's pod, run by a kubelet without a cluster, with the annotation of the
# chart and with the profile that a container engine gives by default. It runs in a machine that is made for it; how its steps are run is in
# xtask/vm/src/guest/steps.sh.

# In the order in which they build on each other.
steps='
    the_machine_has_systemd_control_groups_v2_and_apparmor
    an_engine_has_the_images
    a_kubelet_runs_a_pod_with_nginx
    the_pod_of_the_chart_is_ready
    it_is_not_confined_by_apparmor
    the_pod_is_called_by_its_name_on_the_word_of_the_host
    the_nginx_of_the_node_has_named_upstreams
    the_doctor_sees_everything
    it_ends_when_its_manifest_goes
    the_same_pod_is_ready_under_the_default_profile
    it_is_confined_by_apparmor
    what_the_profile_takes_away_is_not_claimed
    the_doctor_names_the_profile_and_what_lifts_it
'

here=$(dirname "$(readlink -f "$0")")
pods=/etc/kubernetes/pods

# The first process of that name in a pod.
in_a_pod() {
    local pid
    for pid in $(pgrep --exact "$1"); do
        if grep --quiet kubepods "/proc/$pid/cgroup"; then
            echo "$pid"
            return
        fi
    done
    fail "no $1 runs in a pod"
}

in_the_network_of() {
    local pid
    pid=$(in_a_pod "$1")
    shift
    nsenter --target "$pid" --net -- "$@"
}

# A scrape, for the functions that read it; so there is one in each step that asks.
scrape() {
    in_the_network_of proxytrace curl --silent --fail --max-time 30 http://127.0.0.1:9947/metrics
}

counted() {
    scrape | grep --extended-regexp "^proxytrace_connect_failures_total\{.*proxy=\"$1\".*upstream=\"$2\".*cause=\"refused\".* [1-9]" ||
        fail "not counted for $1: $(scrape | grep '^proxytrace_\(proxy_info\|connect_failures_total\)' | grep --invert-match ' 0$')"
}

is_ready() {
    in_the_network_of proxytrace curl --silent --fail --max-time 30 http://127.0.0.1:9947/readyz
}

ask_both() {
    in_the_network_of nginx curl --silent --output /dev/null --max-time 30 http://127.0.0.1:8080/
    curl --silent --output /dev/null --max-time 30 http://127.0.0.1:8080/
}

doctor() {
    local container
    container=$(ctr --namespace k8s.io containers list | awk '/proxytrace/ { print $1; exit }')
    ctr --namespace k8s.io tasks exec --exec-id "doctor$RANDOM" "$container" /proxytrace doctor
}

profile_of_the_agent() {
    cat "/proc/$(in_a_pod proxytrace)/attr/current"
}

an_engine_has_the_images() {
    mkdir -p /etc/containerd /etc/cni/net.d
    cp "$here/containerd.toml" /etc/containerd/config.toml
    cp "$here/network.conflist" /etc/cni/net.d/10-pods.conflist
    systemctl restart containerd
    within_patience ctr --namespace k8s.io images list
    for image in "$here"/*.tar; do
        ctr --namespace k8s.io images import "$image"
    done
}

# The node's own nginx has the same configuration.
a_kubelet_runs_a_pod_with_nginx() {
    cp "$here/nginx.conf" /etc/nginx/nginx.conf
    mkdir -p /run/systemd/system/nginx.service.d
    printf '[Service]\nType=exec\nExecStart=\nExecStart=/usr/sbin/nginx\nExecStartPre=\n' >/run/systemd/system/nginx.service.d/config.conf
    systemctl daemon-reload
    systemctl restart nginx

    # The node's own network, which leads nowhere.
    ip link add node type dummy
    ip addr add 10.9.9.1/24 dev node
    ip link set node up
    ip route add default dev node
    mkdir -p "$pods"
    cp "$here/edge.json" "$pods"
    systemd-run --quiet --unit kubelet --property Delegate=yes "$here/kubelet" --config="$here/kubelet.yaml" \
        --container-runtime=remote --container-runtime-endpoint=unix:///run/containerd/containerd.sock \
        --hostname-override=node1 --node-ip=10.9.9.1
    within_patience in_the_network_of nginx curl --silent --output /dev/null http://127.0.0.1:8080/
}

the_pod_of_the_chart_is_ready() {
    cp "$here/unconfined.json" "$pods/agent.json"
    within_patience is_ready
}

it_is_not_confined_by_apparmor() {
    [ "$(profile_of_the_agent)" = unconfined ] || fail "$(profile_of_the_agent)"
}

the_pod_is_called_by_its_name_on_the_word_of_the_host() {
    ask_both
    within_patience counted shop/edge-node1/nginx api
}

the_nginx_of_the_node_has_named_upstreams() {
    within_patience counted nginx.service api
}

the_doctor_sees_everything() {
    doctor
}

the_agent_is_gone() {
    ! in_a_pod proxytrace
}

it_ends_when_its_manifest_goes() {
    rm "$pods/agent.json"
    within_patience the_agent_is_gone
}

the_same_pod_is_ready_under_the_default_profile() {
    cp "$here/default.json" "$pods/agent.json"
    within_patience is_ready
}

it_is_confined_by_apparmor() {
    [ "$(profile_of_the_agent)" = 'cri-containerd.apparmor.d (enforce)' ] || fail "$(profile_of_the_agent)"
}

# A name that the host vouches for has no @; upstreams of what cannot be read are unknown.
what_the_profile_takes_away_is_not_claimed() {
    ask_both
    within_patience counted nginx.service unknown
    within_patience counted '[^"]*@[0-9a-f]{12}' '[^"]*'
    ! counted shop/edge-node1/nginx api
}

the_doctor_names_the_profile_and_what_lifts_it() {
    local said
    if said=$(doctor); then
        fail "everything is seen: $said"
    fi
    echo "$said"
    grep --quiet 'cri-containerd.apparmor.d' <<<"$said"
    grep --quiet 'container.apparmor.security.beta.kubernetes.io' <<<"$said"
}

. "$here/steps.sh"
