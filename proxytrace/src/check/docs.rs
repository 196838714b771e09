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
         that); without it `/etc/nginx/nginx.conf`.\n\n\
         Exit status: 0 where no finding is an error, 1 where one is, 2 where the input may not be read or the call is \
         wrong. What `--against OLD` prints changes nothing in it.\n\n\
         Host names are looked up with the system's resolver, all within 10 s; `--no-resolve` leaves that out. Names \
         that were not checked are listed. `--probe` connects once to each address that something leads to, 64 at a \
         time and all within 60 s, each for `--probe-timeout` (2 s) or the connect timeout in force if that is \
         shorter. Servers that take datagrams are left out.\n\n\
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
                "\n```nginx\n{}\n```\n\n> {}.\n>\n> To fix it: {}.\n",
                text.trim(),
                finding.what,
                finding.fix
            )
            .unwrap();
        }
    }
    page
}

#[test]
fn docs_are_fresh() {
    generated::check("check.md", |_| page());
}
