//! What the proxies are configured to do, and how what happens is written down, so that both sides can be compared.

use std::time::Duration;

use proxytrace_tests::backend::Manner;
use proxytrace_tests::nginx::server;
use proxytrace_tests::proxytrace::Record;

use super::{CLOSES, RESETS};

/// A port at which nobody hears of a connect.
pub(super) const BLACK_HOLE: u16 = 9000;

/// Who listens at all addresses of 127.0.0.0/8.
pub(super) const BACKENDS: &[(u16, Manner)] = &[
    (9001, Manner::Answer),
    (9002, Manner::AnswerAndClose),
    (9003, Manner::CloseUnanswered),
    (9004, Manner::ResetUnanswered),
    (9005, CLOSES),
    (9006, RESETS),
    (9007, Manner::AnswerAfter(Duration::from_millis(2500))),
    (9008, Manner::AnswerAfter(Duration::from_millis(60))),
    (9009, Manner::ResetMidAnswer),
    (9010, Manner::Answer),
    (9011, Manner::Answer),
    (9012, Manner::Answer),
    (9013, Manner::Answer),
    (9014, Manner::Answer),
    (9016, Manner::Answer),
];

/// Where nobody listens.
const REFUSED: u16 = 9099;

/// A path that clients ask for.
#[derive(Clone, Copy)]
pub(super) struct Asked {
    pub(super) path: &'static str,
    /// How often, among all.
    pub(super) weight: usize,
    /// Clients may leave before the answer.
    pub(super) may_be_left: bool,
}

const fn asked(path: &'static str, weight: usize) -> Asked {
    Asked { path, weight, may_be_left: false }
}

pub(super) const PATHS: [Asked; 28] = [
    asked("/well", 20),
    asked("/closing", 10),
    asked("/kept", 20),
    asked("/kept-closed", 12),
    asked("/kept-reset", 12),
    asked("/refused", 6),
    asked("/some-refused", 8),
    asked("/backup", 6),
    asked("/unanswered", 6),
    asked("/reset", 6),
    Asked { path: "/black-hole", weight: 3, may_be_left: true },
    Asked { path: "/slow", weight: 3, may_be_left: true },
    Asked { path: "/moment", weight: 8, may_be_left: false },
    asked("/unix", 8),
    asked("/no-socket", 5),
    asked("/unlistened", 5),
    asked("/shared", 6),
    asked("/rotating", 10),
    asked("/names", 16),
    asked("/fixed", 10),
    asked("/mid-answer", 4),
    asked("/prohibited", 3),
    asked("/unreachable", 3),
    asked("/invalid", 3),
    asked("/full", 4),
    asked("/six", 6),
    asked("/outer-resolver", 8),
    asked("/own-resolver", 8),
];

/// Routes that lead nowhere.
pub(super) const ROUTES: [&str; 3] =
    ["prohibit 198.51.100.0/24", "unreachable 203.0.113.0/24", "blackhole 192.0.2.0/24"];

/// Where a name server of an upstream's own listens.
pub(super) const OWN_RESOLVER: u16 = 5301;

pub(super) struct Mixture {
    /// Where sockets of backends are.
    pub(super) sockets: String,
    /// Whether `resolve` stands in upstreams.
    pub(super) follows_names: bool,
    /// Whether connections are kept unless it is said otherwise. A reset in the middle of an answer is none then that is told.
    pub(super) keeps: bool,
}

impl Mixture {
    pub(super) fn socket(&self, name: &str) -> String {
        format!("{}/{name}", self.sockets)
    }

    /// The configuration after so many reloads: upstreams are called something else in each.
    pub(super) fn configuration(&self, number: usize) -> String {
        let Self { sockets, follows_names, keeps } = self;
        let keeps_none = if *keeps { "keepalive 0;" } else { "" };
        let pool = |name: &str, servers: &str| format!("upstream {name}{number} {{ {servers} }}\n");
        let to = |path: &str, target: &str| format!("location {path} {{ proxy_pass http://{target}; }}\n");
        let own = |path: &str, name: &str| to(path, &format!("{name}{number}"));
        let upstreams = [
            pool("well", "server 127.0.0.1:9001;"),
            pool("closing", "server 127.0.0.1:9002;"),
            pool("kept", "server 127.0.0.2:9001; server 127.0.0.3:9001; keepalive 4;"),
            pool("closes", "server 127.0.0.1:9005 max_fails=0; keepalive 4;"),
            pool("resets", "server 127.0.0.1:9006 max_fails=0; keepalive 4;"),
            pool("refused", &format!("server 127.0.0.1:{REFUSED} max_fails=0;")),
            pool("some", &format!("server 127.0.0.2:{REFUSED} max_fails=0; server 127.0.0.4:9001;")),
            pool("backup", &format!("server 127.0.0.3:{REFUSED} max_fails=0; server 127.0.0.5:9001 backup;")),
            pool("unanswered", "server 127.0.0.1:9003 max_fails=0;"),
            pool("reset", "server 127.0.0.1:9004 max_fails=0;"),
            pool("hole", &format!("server 127.0.0.1:{BLACK_HOLE} max_fails=0;")),
            pool("slow", "server 127.0.0.1:9007 max_fails=0;"),
            pool("moment", "server 127.0.0.1:9008;"),
            pool("unix", &format!("server unix:{sockets}/well;")),
            pool("gone", &format!("server unix:{sockets}/gone max_fails=0;")),
            pool("deaf", &format!("server unix:{sockets}/unlistened max_fails=0;")),
            pool("first", "server 127.0.0.6:9001;"),
            pool("second", "server 127.0.0.6:9001;"),
            pool("fixed", "server fixed.test:9014;"),
            pool("half", &format!("server 127.0.0.1:9009 max_fails=0; {keeps_none}")),
            pool("prohibited", "server 198.51.100.1:80 max_fails=0;"),
            pool("unreachable", "server 203.0.113.1:80 max_fails=0;"),
            pool("invalid", "server 192.0.2.1:80 max_fails=0;"),
            pool("full", &format!("server unix:{sockets}/full max_fails=0;")),
            pool("six", "server [::1]:9015;"),
        ]
        .concat();
        let followed = |name: &str, resolver: &str, otherwise: &str| match follows_names {
            true => {
                pool(name, &format!("zone {name}{number} 64k; {resolver} server backend.test:9016 resolve;"))
            }
            false => pool(name, &format!("server {otherwise}:9001;")),
        };
        let own_resolver = format!("resolver 127.0.0.1:{OWN_RESOLVER} valid=1s ipv6=off;");
        let upstreams =
            [upstreams, followed("outer", "", "127.0.0.7"), followed("own", &own_resolver, "127.0.0.8")]
                .concat();
        let locations = [
            own("/well", "well"),
            own("/closing", "closing"),
            own("/kept", "kept"),
            own("/kept-closed", "closes"),
            own("/kept-reset", "resets"),
            own("/refused", "refused"),
            own("/some-refused", "some"),
            own("/backup", "backup"),
            own("/unanswered", "unanswered"),
            own("/reset", "reset"),
            own("/black-hole", "hole"),
            format!("location /slow {{ proxy_read_timeout 1s; proxy_pass http://slow{number}; }}\n"),
            own("/moment", "moment"),
            own("/unix", "unix"),
            own("/no-socket", "gone"),
            own("/unlistened", "deaf"),
            own("/shared", "first"),
            own("/second", "second"),
            "location /rotating { set $to rotating.test; proxy_pass http://$to:9010; }\n".to_owned(),
            "location /names { proxy_pass http://$name; }\n".to_owned(),
            own("/fixed", "fixed"),
            own("/mid-answer", "half"),
            own("/prohibited", "prohibited"),
            own("/unreachable", "unreachable"),
            own("/invalid", "invalid"),
            own("/full", "full"),
            own("/six", "six"),
            own("/outer-resolver", "outer"),
            own("/own-resolver", "own"),
        ]
        .concat();
        format!(
            "log_format judge '$connection $proxy_host';\n\
             error_log {{dir}}/debug.log debug;\n\
             resolver 127.0.0.1 valid=1s ipv6=off; resolver_timeout 5s;\n\
             split_clients $request_id $name {{ 25% one.test:9011; 25% two.test:9011; 25% alias.test:9013; * moving.test:9012; }}\n\
             proxy_http_version 1.1; proxy_set_header Connection ''; proxy_connect_timeout 1200ms;\n\
             {upstreams}{}",
            server(&format!("access_log {{dir}}/access.log judge;\n{locations}"))
        )
    }
}

/// A record as both sides write it; `None` for one that nginx says nothing of.
pub(super) fn words(record: &Record) -> Option<String> {
    let Record { kind, proxy, pid, generation, upstream, address, .. } = record;
    let at = || format!("{proxy} {pid} {generation} {kind} {upstream} {address}");
    Some(match &**kind {
        // It is cancelled, and the SYN was lost.
        "connect" if record.outcome == "given_up" => format!("{} cancelled 0", at()),
        "connect" => format!("{} {} {}", at(), record.outcome, record.errno.unwrap_or(0)),
        "broken" => format!("{} {}", at(), record.cause),
        "reload" => format!("{proxy} {pid} {generation} reload {}", record.result),
        "worker_started" => format!("{proxy} {pid} {generation} {kind}"),
        "worker_exited" => format!(
            "{proxy} {pid} {generation} {kind} {} {}",
            record.signal.unwrap_or(0),
            record.code.unwrap_or(0)
        ),
        _ => return None,
    })
}
