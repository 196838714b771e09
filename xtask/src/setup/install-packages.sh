# Installs Debian packages without starting their services, now or at the next boot.
# install-packages "SERVICE..." PACKAGE...
set -eu
services=$1
shift

# invoke-rc.d asks this file before it starts anything; 101 means no. One of the administrator's own stays; one
# that a killed set-up left behind is ours to take away.
policy=/usr/sbin/policy-rc.d
mark='written by cargo xtask setup'
if [ ! -e "$policy" ] || grep -q "$mark" "$policy"; then
    trap 'rm -f "$policy"' EXIT
    trap 'exit 130' HUP INT TERM
    printf '#!/bin/sh\n# %s\nexit 101\n' "$mark" >"$policy"
    chmod 755 "$policy"
fi

DEBIAN_FRONTEND=noninteractive apt-get --quiet=2 --yes --no-install-recommends \
    -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 install "$@" >/dev/null

for service in $services; do
    update-rc.d "$service" disable >/dev/null
done
