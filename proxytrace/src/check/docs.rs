//! docs/check.md, made from the table of rules and the examples; this test keeps it fresh.

use std::fmt::Write as _;

use super::{examples, rules::ALL};
use crate::generated;

fn page() -> String {
    let mut page = String::from(
        "# What `proxytrace check` finds\n\n\
         Made from `proxytrace/src/check/`; a test keeps it fresh (`PROXYTRACE_UPDATE_DOCS=1 cargo test -p proxytrace \
         docs` writes it anew).\n\n\
         `proxytrace check [CONFIG]` reads a configuration with everything that it includes, and reports what would \
         misroute. CONFIG is a file, a directory with an `nginx.conf`, or `-` for what `nginx -T` prints (or a file of \
         that); without it `/etc/nginx/nginx.conf`, and it says so. A part of a configuration, such as a file of \
         sites-enabled, is checked as if the rest stood around it.\n\n\
         Exit status: 0 where no finding is an error, 1 where one is, 2 where the input may not be read or the call is \
         wrong. With `--fail-on warning` a warning ends with 1 too. What `--against OLD` prints changes nothing in it. \
         `-q` leaves notes out.\n\n\
         Host names, those that servers listen at too, are looked up with the system's resolver, all within 10 s; `--no-resolve` leaves that out. Names \
         that were not checked are listed. With `--no-resolve`, and where `CI` is set, nginx is taken to run on another \
         host: a socket that is missing here is a note, a name that does not resolve here a warning. With `--root` the \
         host is another one too.\n\n\
         `--probe` connects once to each address that something leads to, as nginx's workers would: 64 at a time and all \
         within 60 s, each for `--probe-timeout` (2 s) or the connect timeout in force if that is shorter. Where nginx runs \
         with that file, and as the same user as `check`, it does so in the network and with the files of its master; where \
         `check` is root, with the rights of the `user` line (without one, of nginx's own default). The last line says from \
         where. Then it says what the scheme begins with: a ClientHello of TLS (`https://`, `grpcs://`, `suwsgi://`), the \
         preface of HTTP/2 (`grpc://`), a question of FastCGI. What answers in another protocol is `wrong_service`, what says \
         nothing within `--probe-timeout` `no_response`, what closes `closed_before_response` or `reset_before_response`. A \
         FastCGI server may be silent: not each knows the question. Plain HTTP, uwsgi, SCGI, memcached and streams are \
         connected to, and so is everything with `--probe=connect`. Servers that take datagrams, SRV records and what stands \
         in an upstream with `balancer_by_lua` are left out. Names are looked up as nginx does: without IPv6 on the host, for \
         no `::1` (AI_ADDRCONFIG).\n\n\
         What depends on the version of nginx is judged by the one that is installed here (read from the program, which \
         is not run), or by `--nginx-version 1.28.0`. What no version of nginx itself has is another module's: it is not \
         judged, and nothing is said that it could make untrue. A pattern is read, and not compiled; of caches, logs and \
         compression not every value is judged. Sizes of buffers that nothing sets are those of a host whose pages have \
         4 KiB.\n\n\
         In a copy of a tree an absolute `include` still means the live file. That is a warning (`outside`); `--root DIR` \
         reads absolute paths below DIR, `--map OLD=NEW` reads those below OLD from below NEW.\n\n\
         A comment allows a finding in its line, or in the next line that is not a comment; the summary counts those:\n\n\
         ```nginx\n# proxytrace: allow upstream-unused\nupstream later { server 10.0.0.5:8080; }\n```\n\n\
         ## What changes\n\n\
         `--against OLD` prints what changes for a request from OLD to CONFIG, in four groups: the peers of upstreams; \
         where requests go (names, locations and their order, rewrites, returns, targets with scheme and path, maps); \
         which server answers where no name fits; and what requests meet and look like (headers, SNI, timeouts and \
         everything else that is in force). Servers are compared by each name at each address, so that servers that are \
         split, sorted or written in another way change nothing. \"upstreams and their addresses do not change\" is said \
         where something else does; \"nothing changes for requests\" where nothing does. Logging, buffers of the kernel and \
         paths of temporary files are left out. What holds where nothing is written depends on the version: since 1.29.7 \
         nginx keeps 32 connections of each upstream, speaks HTTP/1.1 and sends no `Connection: close`, so that a line which \
         says so changes nothing there. In a part of a configuration, upstreams, maps and what stands outside of servers \
         are compared too, as whatever uses them is elsewhere. Texts are shown as they stand, but for `(hidden)`: users and \
         passwords of URLs, `secure_link_secret`, and values of headers, variables and parameters whose names call them \
         secret, such as `Authorization` and `token`.\n\n\
         `--format json` prints one object, described by [check.schema.json](check.schema.json).\n\n\
         ## Kinds of findings\n\n\
         | id | severity | what |\n|---|---|---|\n",
    );
    for rule in ALL {
        writeln!(page, "| [`{0}`](#{0}) | {1} | {2} |", rule.id, rule.severity.name(), rule.about).unwrap();
    }
    for rule in ALL {
        write!(page, "\n## {}\n\n{}: {}.\n", rule.id, rule.severity.name(), rule.about).unwrap();
        if let Some((_, text)) = examples::EXAMPLES.iter().find(|(id, _)| *id == rule.id) {
            let finding =
                examples::findings(text).into_iter().find(|finding| finding.rule.id == rule.id).unwrap();
            write!(
                page,
                "\n```nginx\n{}\n```\n\n> {}.\n>\n> To fix it: {}\n",
                text.trim(),
                finding.what,
                if finding.fix.ends_with('?') { finding.fix } else { finding.fix + "." }
            )
            .unwrap();
        }
    }
    page.push_str(COMPARED);
    for ([name, debian, current, gixy, found], _) in examples::planted() {
        // Most of them have an upstream that nothing leads to, which is not the mistake.
        let found: Vec<_> = found.split(", ").filter(|id| *id != "upstream-unused").collect();
        let found = if found.is_empty() { "-".to_owned() } else { found.join(", ") };
        writeln!(page, "| {name} | {debian} | {current} | {gixy} | {found} |").unwrap();
    }
    page
}

const COMPARED: &str = "\n## Mistakes, and what finds them\n\n\
    The configurations are in `proxytrace/src/check/planted.txt`. `nginx -t` is that of Debian 12 (1.22.1) and of 1.31.5; \
    gixy-ng is 0.2.59 with what it says of every configuration left out, and so is `upstream-unused` here. `-`: nothing \
    finds it, so far.\n\n\
    | mistake | `nginx -t`, 1.22.1 | `nginx -t`, 1.31.5 | gixy-ng | `proxytrace check` |\n|---|---|---|---|---|\n";

#[test]
fn docs_are_fresh() {
    generated::check("check.md", |_| page());
}
