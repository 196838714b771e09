#!/bin/bash
# What must hold where the package is installed under a real systemd. It runs in a machine that is made for it: it installs,
# upgrades and purges the package, and writes wherever it likes. How its steps are run is in xtask/vm/src/guest/steps.sh.

# In the order in which they build on each other.
steps='
    the_machine_has_systemd_control_groups_v2_and_apparmor
    proxies_run_before_the_agent_comes
    the_package_installs_and_starts_the_agent
    what_connects_after_the_start_is_counted
    the_unit_is_free_of_errors
    the_agent_runs_as_its_user_and_keeps_one_capability
    upstreams_have_names_also_those_in_home_directories
    root_and_members_of_the_group_ask_the_agent
    a_reload_of_nginx_that_fails_is_taken_back
    nothing_is_refused_by_the_sandbox
    a_reload_takes_a_new_configuration_and_keeps_the_counts
    a_configuration_with_a_fault_changes_nothing
    the_watchdog_restarts_an_agent_that_hangs
    an_upgrade_keeps_an_edited_configuration
    the_agent_stops_at_once
    removal_keeps_the_configuration
    purge_leaves_only_the_user
'

config=/etc/proxytrace/agent.toml
here=$(dirname "$(readlink -f "$0")")

property() {
    systemctl show --value --property "$1" proxytrace
}

is_active() {
    [ "$(property ActiveState)" = active ]
}

# So many requests that need a connect to an address where nobody listens.
ask_for_the_dead() {
    for _ in $(seq "$2"); do
        curl --silent --output /dev/null --max-time 30 "http://127.0.0.1:$1/api/"
    done
}

refused_of_api() {
    has "$1" proxytrace_connect_failures_total 'proxy="nginx.service"' 'upstream="api"' 'cause="refused"'
}

# One of root, whose configuration is partly in a home directory; one of a user, whose home is closed to others.
proxies_run_before_the_agent_comes() {
    mkdir -p /home/site
    cat >/home/site/pages.conf <<-'END'
	upstream pages { server 127.0.0.1:8081; }
	END
    cat >/etc/nginx/conf.d/shop.conf <<-'END'
	upstream api { server 127.0.0.1:9 max_fails=0; }
	include /home/site/pages.conf;
	server {
	    listen 127.0.0.1:8080;
	    location /api/ { proxy_pass http://api; }
	    location / { proxy_pass http://pages; }
	}
	server { listen 127.0.0.1:8081; return 200 "page\n"; }
	END
    systemctl restart nginx

    useradd --create-home keeper
    cat >/home/keeper/nginx.conf <<-'END'
	daemon off;
	pid /home/keeper/nginx.pid;
	error_log stderr;
	events {}
	http {
	    access_log off;
	    client_body_temp_path /home/keeper/body;
	    proxy_temp_path /home/keeper/proxy;
	    fastcgi_temp_path /home/keeper/fastcgi;
	    uwsgi_temp_path /home/keeper/uwsgi;
	    scgi_temp_path /home/keeper/scgi;
	    upstream till { server 127.0.0.1:9 max_fails=0; }
	    server { listen 127.0.0.1:8090; location / { proxy_pass http://till; } }
	}
	END
    chown keeper: /home/keeper/nginx.conf
    chmod 600 /home/keeper/nginx.conf
    chmod 700 /home/keeper
    systemd-run --quiet --unit keeper --uid keeper --gid keeper /usr/sbin/nginx -c /home/keeper/nginx.conf
    within_patience curl --silent --output /dev/null http://127.0.0.1:8090/
    [ "$(curl --silent http://127.0.0.1:8080/)" = page ]
}

the_package_installs_and_starts_the_agent() {
    dpkg --install "$here/package.deb"
    is_active
    [ "$(systemctl is-enabled proxytrace)" = enabled ]
    [ "$(property Type)" = notify ]
    proxytrace --version
}

# The installation comes back when the agent has said that it is ready, so nothing may be missed from here on.
what_connects_after_the_start_is_counted() {
    ask_for_the_dead 8080 3
    within_patience refused_of_api 3
    within_patience curl --silent --fail --output /dev/null http://127.0.0.1:9947/readyz
}

the_unit_is_free_of_errors() {
    local said
    said=$(systemd-analyze verify --man=no proxytrace.service 2>&1)
    [ -z "$said" ] || fail "$said"
}

the_agent_runs_as_its_user_and_keeps_one_capability() {
    local status
    status=/proc/$(property MainPID)/status
    grep --extended-regexp '^(Uid|CapPrm|CapEff|CapBnd|NoNewPrivs|Seccomp):' "$status"
    [ "$(awk '/^Uid:/ { print $3 }' "$status")" = "$(id --user proxytrace)" ]
    # CAP_SYS_PTRACE
    [ "$(awk '/^CapEff:/ { print $2 }' "$status")" = 0000000000080000 ]
    [ "$(awk '/^NoNewPrivs:/ { print $2 }' "$status")" = 1 ]
    [ "$(stat --format %U /run/proxytrace /var/lib/proxytrace | sort --unique)" = proxytrace ]
    [ "$(stat --format '%a %U %G' /run/proxytrace/agent.sock)" = '660 proxytrace proxytrace' ]
    [ "$(stat --format '%a %U %G' /var/lib/proxytrace/history.0)" = '640 proxytrace proxytrace' ]
    { proxytrace status --json || true; } | grep --quiet '"source":"agent"'
}

upstreams_have_names_also_those_in_home_directories() {
    curl --silent --output /dev/null http://127.0.0.1:8080/
    within_patience has 1 proxytrace_connects_established_total 'proxy="nginx.service"' 'upstream="pages"'
    ask_for_the_dead 8090 2
    within_patience has 2 proxytrace_connect_failures_total 'proxy="keeper.service"' 'upstream="till"' 'cause="refused"'
    has 1 proxytrace_names_ready 'proxy="nginx.service"'
    has 1 proxytrace_names_ready 'proxy="keeper.service"'
}

# That it is the agent which answers; the status is 1 where something is wrong.
asks_the_agent() {
    local said
    said=$(setpriv --reuid "$1" --regid "$1" --init-groups proxytrace status --json) || [ $? = 1 ] || return
    grep --quiet '"source":"agent"' <<<"$said"
}

# By the socket in its runtime directory.
root_and_members_of_the_group_ask_the_agent() {
    [ "$(stat --format '%a %U %G' /run/proxytrace/agent.sock)" = '660 proxytrace proxytrace' ]
    proxytrace status || [ $? = 1 ]
    within_patience asks_the_agent root
    ! asks_the_agent keeper || fail 'a stranger was answered'
    usermod --append --groups proxytrace keeper
    within_patience asks_the_agent keeper
}

# By the drop-in of deploy/guard, with the files changed before it is called.
a_reload_of_nginx_that_fails_is_taken_back() {
    local port=/etc/nginx/conf.d/guarded.conf
    mkdir -p /etc/systemd/system/nginx.service.d
    cp "$here/guard.conf" /etc/systemd/system/nginx.service.d/
    systemctl daemon-reload
    cat >"$port" <<-'END'
	upstream guarded { server 127.0.0.1:8081; }
	server { listen 127.0.0.1:8091; location / { proxy_pass http://guarded; } }
	END
    nginx -s reload
    sleep 3
    # This one makes the copy.
    systemctl reload nginx
    sleep 3
    sed -i 's/8081/8082/' "$port"
    ! systemctl reload nginx || fail 'a wrong port was taken'
    grep 'server 127.0.0.1:8081;' "$port"
    [ "$(curl --silent http://127.0.0.1:8091/)" = page ]
    journalctl --unit nginx --output cat --no-pager | grep 'it was taken back'
    echo '# a change that works' >>"$port"
    systemctl reload nginx
    tail --lines 1 "$port" | grep 'a change that works'
    [ "$(systemctl show --value --property ActiveState nginx)" = active ]
    rm -r /etc/systemd/system/nginx.service.d
    systemctl daemon-reload
}

nothing_is_refused_by_the_sandbox() {
    local said
    # Findings are about the proxies, which are meant to fail.
    said=$(journalctl --unit proxytrace --output cat --no-pager | grep --extended-regexp '\b(WARN|ERROR)\b|panicked' | grep --invert-match ' finding: ' || true)
    [ -z "$said" ] || fail "$said"
}

routes_are_off() {
    [ "$(curl --silent --output /dev/null --write-out '%{http_code}' http://127.0.0.1:9947/routes)" = 404 ]
}

config_is_loaded() {
    has "$1" proxytrace_agent_config_last_reload_successful
}

a_reload_takes_a_new_configuration_and_keeps_the_counts() {
    local before
    before=$(property MainPID)
    curl --silent --fail --output /dev/null http://127.0.0.1:9947/routes
    printf '\n# An edit of the administrator.\nno-routes = true\n' >>"$config"
    systemctl reload proxytrace
    within_patience routes_are_off
    config_is_loaded 1
    is_active
    [ "$(property MainPID)" = "$before" ]
    ask_for_the_dead 8080 1
    within_patience refused_of_api 4
}

a_configuration_with_a_fault_changes_nothing() {
    local before
    before=$(property MainPID)
    cp "$config" /root/agent.toml
    printf 'no-such-key = 1\n' >>"$config"
    systemctl reload proxytrace
    within_patience config_is_loaded 0
    is_active
    [ "$(property MainPID)" = "$before" ]
    cp /root/agent.toml "$config"
    systemctl reload proxytrace
    within_patience config_is_loaded 1
    refused_of_api 4
}

was_restarted() {
    is_active && [ "$(property NRestarts)" -gt 0 ] && [ "$(property MainPID)" != "$1" ]
}

the_watchdog_restarts_an_agent_that_hangs() {
    local before
    before=$(property MainPID)
    kill -STOP "$before"
    within_patience was_restarted "$before"
    journalctl --unit proxytrace --output cat --no-pager | grep 'Watchdog timeout'
    ask_for_the_dead 8080 1
    within_patience refused_of_api 1
}

an_upgrade_keeps_an_edited_configuration() {
    local before
    before=$(property MainPID)
    # Its default configuration is another one, so dpkg would ask; there is nobody to answer.
    dpkg --force-confdef --force-confold --install "$here/newer.deb" </dev/null
    grep 'An edit of the administrator' "$config"
    [ -e "$config.dpkg-dist" ]
    is_active
    [ "$(property MainPID)" != "$before" ]
    ask_for_the_dead 8080 1
    within_patience refused_of_api 1
}

the_agent_stops_at_once() {
    systemctl stop proxytrace
    # After TimeoutStopSec= it would have been killed, and this were "timeout".
    [ "$(property Result)" = success ]
    [ ! -e /run/proxytrace ]
}

removal_keeps_the_configuration() {
    dpkg --remove proxytrace
    [ -e "$config" ] && [ -d /var/lib/proxytrace ]
    [ "$(property ActiveState)" = inactive ]
    [ ! -e /usr/bin/proxytrace ]
}

purge_leaves_only_the_user() {
    local left
    dpkg --purge proxytrace
    systemctl daemon-reload
    [ "$(property LoadState)" = not-found ]
    left=$(find /etc /usr /var /run -name '*proxytrace*' -not -path '/run/systemd/*' -not -path '/var/log/*' -not -path '/var/lib/dpkg/*')
    [ -z "$left" ] || fail "$left"
    id proxytrace
}

. "$here/steps.sh"
