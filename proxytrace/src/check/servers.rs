//! Findings about names of servers: those that another server has, and those that no request can have.

use std::collections::{HashMap, HashSet};

use nginx_conf::Directive;

use super::{blocks::Block, finding::Finding, rules, subject::Subject};
use crate::nginx::{
    listen::{Socket, in_words, of_server},
    places::Places,
    version::Version,
};

/// The first nginx whose servers of stream have names.
const NAMES_IN_STREAM: Version = Version::new(1, 25, 5);

/// What cannot be in the name of a host, with what it looks like.
const ODD: [(&str, &str); 4] =
    [("://", "a URL"), ("/", "a path"), (",", "a list with commas"), (":", "a name with a port")];

/// The server that has a name: its number, and where it says so.
type Owner = (usize, String);

pub(super) fn find(subject: &Subject, version: Option<Version>, findings: &mut Vec<Finding>) {
    let places = Places(&subject.config);
    let stream_has_names = version.is_none_or(|version| version >= NAMES_IN_STREAM);
    for context in ["server", "stream-server"] {
        if context == "stream-server" && !stream_has_names {
            continue;
        }
        let mut owners: HashMap<(Socket, String), Owner> = HashMap::new();
        let blocks = subject.blocks();
        for (number, block) in blocks.iter().filter(|block| block.context == context).enumerate() {
            let Some(server) = block.opened_by() else { continue };
            names_of(number, server, block, &places, &mut owners, findings);
        }
        wildcards(context, &blocks, &places, findings);
    }
}

/// Names that nginx refuses where it chooses by them: where several servers listen at an address.
fn wildcards(context: &str, blocks: &[Block<'_>], places: &Places<'_>, findings: &mut Vec<Finding>) {
    let servers = || blocks.iter().filter(|block| block.context == context);
    let sockets_of = |server: &Directive| -> HashSet<Socket> {
        of_server(server, context == "server").into_iter().flat_map(|(listen, _)| listen.sockets).collect()
    };
    let mut bad = servers()
        .flat_map(|block| {
            let server = block.opened_by();
            let words =
                block.named("server_name").flat_map(|line| line.args.iter().map(move |word| (line, word)));
            words.filter_map(move |(line, word)| Some((server?, line, word.text.as_str())))
        })
        // Those that it refuses anyway are findings of the line.
        .filter(|(_, _, name)| !name.starts_with('*') || name.len() > 2 && name.starts_with("*."))
        .filter(|(_, _, name)| !name.starts_with('~') && !is_wildcard_or_name(name))
        .peekable();
    if bad.peek().is_none() {
        return;
    }
    let mut number_at: HashMap<Socket, usize> = HashMap::new();
    for server in servers().filter_map(Block::opened_by) {
        for socket in sockets_of(server) {
            *number_at.entry(socket).or_default() += 1;
        }
    }
    for (server, line, name) in bad {
        let shared = sockets_of(server).into_iter().filter(|socket| number_at.get(socket) > Some(&1)).min();
        let Some(socket) = shared else { continue };
        let what =
            format!("nginx refuses the server name \"{name}\" at {socket}, where several servers listen");
        let fix = "write *.example.org or www.example.*, with one * at the end, or a pattern behind ~";
        findings.push(Finding::new(&rules::BAD_ARGUMENT, &places.line(line), what, fix));
    }
}

/// Whether nginx takes it for a name of a host, or for one that begins with `.` or `*.` or ends with `.*`.
pub(super) fn is_wildcard_or_name(name: &str) -> bool {
    let stars = name.matches('*').count();
    let is_wildcard = name.len() > 2 && (name.starts_with("*.") || name.ends_with(".*"));
    !name.contains("..")
        && (stars == 0 || stars == 1 && (is_wildcard || name.len() > 1 && name.starts_with('.')))
}

fn names_of(
    number: usize,
    server: &Directive,
    block: &Block<'_>,
    places: &Places<'_>,
    owners: &mut HashMap<(Socket, String), Owner>,
    findings: &mut Vec<Finding>,
) {
    let mut names: Vec<_> = block
        .named("server_name")
        .flat_map(|directive| directive.args.iter().map(move |word| (word.text.as_str(), directive)))
        .collect();
    for (name, directive) in &names {
        odd(name, &places.line(directive), findings);
    }
    if names.is_empty() {
        names.push(("", server));
    }
    let sockets: Vec<_> = of_server(server, block.context == "server")
        .into_iter()
        .flat_map(|(listen, _)| listen.sockets)
        .collect();
    for (written, directive) in names {
        let place = places.line(directive);
        let mut first: Option<(Owner, Vec<&Socket>)> = None;
        for socket in &sockets {
            for name in matched(written) {
                let owner = owners.entry((socket.clone(), name)).or_insert_with(|| (number, place.clone()));
                let is_other = owner.0 != number || owner.1 != place;
                let sockets = &mut first.get_or_insert_with(|| (owner.clone(), Vec::new())).1;
                if is_other && sockets.last() != Some(&socket) {
                    sockets.push(socket);
                }
            }
        }
        let is_twice_here = block
            .named("server_name")
            .flat_map(|line| &line.args)
            .filter(|word| word.text.eq_ignore_ascii_case(written))
            .count()
            > 1;
        twice(number, written, &place, first, findings, is_twice_here);
    }
}

/// Says that another has a name, unless no request can have it anyway.
fn twice(
    number: usize,
    name: &str,
    place: &str,
    first: Option<(Owner, Vec<&Socket>)>,
    findings: &mut Vec<Finding>,
    is_twice_here: bool,
) {
    if name.bytes().all(|byte| !byte.is_ascii_alphanumeric()) && !name.is_empty() {
        return;
    }
    let shown = if name.is_empty() {
        "requests without a name".to_owned()
    } else {
        format!("requests for \"{name}\"")
    };
    match first {
        Some(((owner, first), sockets)) if !sockets.is_empty() && owner != number => {
            let at = in_words(&sockets);
            let what = format!("{shown} at {at} never come here: {first} has that name already");
            let fix = "rename or remove one of them";
            findings.push(Finding::new(&rules::SERVER_NAME_TWICE, place, what, fix));
        }
        _ if is_twice_here => {
            let what = format!("\"{name}\" is twice in this server: once is enough");
            findings
                .push(Finding::new(&rules::SERVER_NAME_TWICE, place, what, "remove one of them").into_note());
        }
        _ => {}
    }
}

/// The keys under which nginx keeps a name: `.example.org` stands for two.
pub(super) fn matched(name: &str) -> Vec<String> {
    if name.starts_with('~') {
        return vec![name.to_owned()];
    }
    let name = name.to_ascii_lowercase();
    match name.strip_prefix('.') {
        Some(rest) => vec![rest.to_owned(), format!("*{name}")],
        None => vec![name],
    }
}

fn odd(name: &str, place: &str, findings: &mut Vec<Finding>) {
    if name.starts_with('~') {
        return;
    }
    if let Some((_, looks)) = ODD.iter().find(|(sign, _)| name.contains(sign)) {
        let what = format!(
            "no request is for the host \"{name}\", which looks like {looks}: another server answers"
        );
        let fix = "write names alone, with spaces between them";
        findings.push(Finding::new(&rules::SERVER_NAME_ODD, place, what, fix));
    }
}

#[cfg(test)]
mod tests {
    use crate::check::examples;

    #[test]
    fn a_star_stands_at_an_end_where_nginx_chooses_by_names() {
        let check = |name: &str, expected: &[&str]| {
            let several = format!(
                "http {{ server {{ listen 80; server_name {name}; }} server {{ listen *:80; server_name b; }} }}"
            );
            assert_eq!(examples::ids(&several), expected, "{name}");
            // It chooses by no name where one server listens alone.
            let alone = several.replace("*:80", "10.0.0.5:80");
            assert_eq!(examples::ids(&alone), [""; 0], "{name}");
        };
        for name in ["www.*.org", "a*", "www*.example.org", "a..b", "*.a.*", "*.*.a", "..a"] {
            check(name, &["bad-argument"]);
        }
        for name in ["*.a.org", ".a.org", "www.a.*", "a.org.", "~^a*$", "a", "$hostname"] {
            check(name, &[]);
        }
    }
}
