//! Findings about `map`, `geo` and `split_clients`: entries that nginx refuses.

use std::{collections::HashSet, net::Ipv6Addr};

use nginx_conf::Directive;

use super::{
    finding::Finding,
    rules,
    servers::{is_wildcard_or_name, matched},
    subject::Subject,
};
use crate::nginx::{places::Places, size::number, url::ipv4, version::Version};

/// All of something, in hundredths of a percent.
const ALL: u32 = 10_000;

/// The first nginx whose `geo` can be volatile.
const VOLATILE_GEO: Version = Version::new(1, 29, 3);

pub(super) fn find(subject: &Subject, version: Option<Version>, findings: &mut Vec<Finding>) {
    let places = Places(&subject.config);
    for block in subject.blocks().iter().filter(|block| matches!(block.context, "http" | "stream")) {
        for table in block.children {
            let kind = table.name.text.as_str();
            let entry: fn(&Directive, &mut Seen) -> Option<String> = match kind {
                "map" => of_map,
                "geo" => of_geo,
                "split_clients" => of_split,
                _ => continue,
            };
            let target = if kind == "geo" { table.args.last() } else { table.args.get(1) };
            if let Some(target) = target.filter(|word| word.text.len() < 2 || !word.text.starts_with('$')) {
                let what = format!("nginx refuses {kind} to \"{}\": it is no variable", target.text);
                let fix = format!("write ${}", target.text.trim_start_matches('$'));
                findings.push(Finding::new(&rules::BAD_ARGUMENT, &places.line(table), what, fix));
            }
            // Only a geo takes its address out of one variable.
            let source =
                table.arg(0).filter(|text| kind == "geo" && table.args.len() == 2 && !text.starts_with('$'));
            if let Some(source) = source {
                let what = format!("nginx refuses geo of \"{source}\": it is no variable");
                let fix = format!("write ${source}");
                findings.push(Finding::new(&rules::BAD_ARGUMENT, &places.line(table), what, fix));
            }
            let mut seen = Seen { has_ranges: has_ranges(table), version, ..Seen::default() };
            for line in table.children() {
                if let Some(why) = entry(line, &mut seen) {
                    let what = format!("nginx refuses \"{}\" in {kind}: {why}", line.name.text);
                    let fix = "correct or remove the entry";
                    findings.push(Finding::new(&rules::BAD_ARGUMENT, &places.line(line), what, fix));
                }
            }
        }
    }
}

/// What came before an entry.
#[derive(Default)]
struct Seen {
    keys: HashSet<String>,
    parts: u32,
    has_ranges: bool,
    has_hostnames: bool,
    version: Option<Version>,
}

fn has_ranges(geo: &Directive) -> bool {
    geo.children().first().is_some_and(|line| line.name.text == "ranges" && line.args.is_empty())
}

fn of_map(entry: &Directive, seen: &mut Seen) -> Option<String> {
    let key = entry.name.text.as_str();
    match (key, entry.args.len()) {
        ("hostnames", 0) => {
            seen.has_hostnames = true;
            return None;
        }
        ("volatile", 0) => return None,
        (_, 1) => {}
        _ => return Some("it takes one value".to_owned()),
    }
    if key == "include" || key.starts_with('~') {
        return None;
    }
    // A backslash before it takes what it would mean from it.
    let name = key.strip_prefix('\\').unwrap_or(key);
    if seen.has_hostnames && !is_wildcard_or_name(name) {
        return Some("it is no name of a host, and none that begins with *. or ends with .*".to_owned());
    }
    let keys = if key == "default" {
        vec!["default".to_owned()]
    } else if seen.has_hostnames {
        matched(name).into_iter().map(|name| format!("\\{name}")).collect()
    } else {
        vec![format!("\\{}", name.to_ascii_lowercase())]
    };
    let is_there = keys.iter().any(|key| seen.keys.contains(key));
    seen.keys.extend(keys);
    is_there.then(|| "it is there already".to_owned())
}

fn of_geo(entry: &Directive, seen: &mut Seen) -> Option<String> {
    let key = entry.name.text.as_str();
    let value = match (key, entry.args.len()) {
        ("ranges", 0) if !seen.has_ranges => return Some("it must be the first line".to_owned()),
        ("volatile", 0) if seen.version.is_some_and(|own| own < VOLATILE_GEO) => {
            return Some(format!("it came with {VOLATILE_GEO}"));
        }
        ("ranges" | "proxy_recursive" | "volatile", 0) => return None,
        (_, 1) => entry.arg(0)?,
        _ => return Some("it takes one value".to_owned()),
    };
    let network = match key {
        "default" | "include" => return None,
        "delete" => value,
        // An exception of nginx: elsewhere it is no address.
        "255.255.255.255" if !seen.has_ranges => return None,
        "proxy" => return (!is_network(value)).then(|| "it is no network".to_owned()),
        _ => key,
    };
    let is_one = if seen.has_ranges { is_range(network) } else { is_network(network) };
    let needed = if seen.has_ranges { "a range of IPv4 addresses" } else { "a network" };
    (!is_one).then(|| format!("it is not {needed}"))
}

/// Whether that is an address, or a network by its length.
pub(super) fn is_network(text: &str) -> bool {
    let (ip, mask) = text.split_once('/').map_or((text, None), |(ip, mask)| (ip, Some(mask)));
    let longest = match (ipv4(ip), ip.parse::<Ipv6Addr>()) {
        (Some(_), _) => 32,
        (None, Ok(_)) => 128,
        (None, Err(_)) => return false,
    };
    mask.is_none_or(|mask| number(mask).is_some_and(|length| length <= longest))
}

fn is_range(text: &str) -> bool {
    let ends = text.split_once('-').and_then(|(first, last)| Some((ipv4(first)?, ipv4(last)?)));
    ends.is_some_and(|(first, last)| first <= last)
}

fn of_split(entry: &Directive, seen: &mut Seen) -> Option<String> {
    seen.parts = match entry.name.text.as_str() {
        "*" => ALL,
        part => match hundredths(part) {
            Some(part) => seen.parts + part,
            None => return Some("it is not a percentage with at most two decimals".to_owned()),
        },
    };
    (seen.parts > ALL).then(|| "together it is more than 100%".to_owned())
}

fn hundredths(text: &str) -> Option<u32> {
    let text = text.strip_suffix('%')?;
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number(whole) || !is_number(decimals) || decimals.len() > 2 || whole.len() > 3 {
        return None;
    }
    let number = format!("{whole}{decimals:0<2}").parse().ok()?;
    (number > 0).then_some(number)
}
