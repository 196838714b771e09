# Runs the steps of a script, which sources this at its end. Without an argument it runs every step, in the order of $steps,
# and reports each to the host in lines that begin with "smoke:"; with the name of a step it runs that one, and its status
# says how it went.

patience=300

fail() {
    echo "$*" >&2
    return 1
}

# Tries a command until it succeeds. An emulated machine is slow, and stands still when its host has more urgent things to do.
within_patience() {
    local deadline=$((SECONDS + patience))
    until why=$("$@" 2>&1); do
        [ "$SECONDS" -lt "$deadline" ] || fail "not within $patience s: $*: $why"
        sleep 0.5
    done
}

# The sum of a metric over the series that have all of these labels; "none" where there is no such series.
metric() {
    local name=$1
    shift
    curl --silent --fail --max-time 30 http://127.0.0.1:9947/metrics | awk -v name="$name" -v labels="$*" '
        BEGIN { wanted = split(labels, label, " ") }
        index($0, name "{") == 1 || index($0, name " ") == 1 {
            for (i = 1; i <= wanted; i++) if (!index($0, label[i])) next
            sum += $NF
            seen = 1
        }
        END { print seen ? sum : "none" }'
}

has() {
    local expected=$1 found
    shift
    found=$(metric "$@")
    [ "$found" = "$expected" ] || fail "$* is $found, not $expected"
}

# A step of every script.
the_machine_has_systemd_control_groups_v2_and_apparmor() {
    [ "$(cat /proc/1/comm)" = systemd ]
    [ "$(stat --file-system --format %T /sys/fs/cgroup)" = cgroup2fs ]
    [ "$(cat /sys/module/apparmor/parameters/enabled)" = Y ]
    grep --quiet '(enforce)' /sys/kernel/security/apparmor/profiles
}

if [ $# -gt 0 ]; then
    set -euo pipefail
    "$1"
    exit
fi

echo "smoke: kernel $(uname -rv), $(systemctl --version | head --lines 1)"
for step in $steps; do
    began=$SECONDS
    if output=$(bash "$0" "$step" 2>&1); then
        verdict=passed
    else
        verdict=failed
    fi
    # Lines of others never begin with ours.
    [ -z "$output" ] || echo "$output" | sed 's/^/    /'
    echo "smoke: $verdict $step $((SECONDS - began)) s"
    [ "$verdict" = passed ] || journalctl --no-pager --lines 60 | sed 's/^/    /'
done
echo "smoke: end"
