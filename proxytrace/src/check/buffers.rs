//! Findings about buffers of answers whose sizes do not fit each other, so that nginx refuses them: `proxy_buffer_size 64k` alone is one.

use std::collections::HashSet;

use nginx_conf::Directive;

use super::{blocks::Block, finding::Finding, rules, subject::Subject};
use crate::nginx::{places::Places, size};

/// What passes requests on and keeps answers in buffers.
const PASSES: [&str; 4] = ["proxy", "fastcgi", "uwsgi", "scgi"];

/// Where sizes are in force: nginx judges them in each of these.
const CONTEXTS: [&str; 2] = ["server", "location"];

/// A page of memory, which a buffer is where nothing says more.
const PAGE: u64 = 4_096;

/// How many buffers there are where nothing says so.
const BUFFERS: u64 = 8;

pub(super) fn find(subject: &Subject, findings: &mut Vec<Finding>) {
    // What stands around a part may have the other sizes.
    if !subject.is_whole() {
        return;
    }
    let places = Places(&subject.config);
    let mut said = HashSet::new();
    for block in subject.blocks().iter().filter(|block| CONTEXTS.contains(&block.context)) {
        for pass in PASSES {
            let Some((line, what, fix)) = Sizes::of(block, pass).and_then(|sizes| sizes.refused()) else {
                continue;
            };
            // What a block hands down is said once.
            let place = places.line(line);
            if said.insert((place.clone(), what.clone())) {
                findings.push(Finding::new(&rules::BAD_ARGUMENT, &place, what, fix));
            }
        }
    }
}

/// A size that is in force, with the line that says so.
type Written<'a> = Option<(&'a Directive, u64)>;

/// Those that are in force in a block.
struct Sizes<'a> {
    pass: &'a str,
    first: Written<'a>,
    buffers: Option<&'a Directive>,
    number: u64,
    each: u64,
    busy: Written<'a>,
    /// Of temporary files: at once, and in all.
    files: [Written<'a>; 2],
}

impl<'a> Sizes<'a> {
    /// `None` where nothing is written, or what is written is none: that is a finding by itself.
    fn of(block: &Block<'a>, pass: &'a str) -> Option<Self> {
        let line = |end: &str| block.in_force(&format!("{pass}_{end}")).last().copied();
        let sized = |end: &str, read: fn(&str) -> Option<u64>| match line(end) {
            Some(line) => Some(Some((line, read(line.arg(0)?)?))),
            None => Some(None),
        };
        let buffers = line("buffers");
        let (number, each) = match buffers {
            Some(line) => (size::number(line.arg(0)?)?, size::size(line.arg(1)?)?),
            None => (BUFFERS, PAGE),
        };
        Some(Self {
            pass,
            first: sized("buffer_size", size::size)?,
            buffers,
            number,
            each,
            busy: sized("busy_buffers_size", size::size)?,
            files: [sized("temp_file_write_size", size::size)?, sized("max_temp_file_size", size::offset)?],
        })
    }

    /// The line to blame, why, and what to do.
    fn refused(&self) -> Option<(&'a Directive, String, String)> {
        let Self { pass, number, each, .. } = *self;
        if let Some(line) = self.buffers.filter(|_| number < 2) {
            let what = format!("nginx refuses {number} {pass}_buffers: it needs two");
            return Some((line, what, format!("write {pass}_buffers {BUFFERS} {}", shown(each))));
        }
        let largest = self.first.map_or(PAGE, |(_, size)| size).max(each);
        let default = if self.buffers.is_none() { ", of which nothing is written" } else { "" };
        let all = format!("{number} {pass}_buffers of {}{default}", shown(each));
        if let Some((line, busy)) = self.busy.filter(|(_, busy)| *busy < largest) {
            let what = format!(
                "nginx refuses {pass}_busy_buffers_size {}: a buffer has {}",
                shown(busy),
                shown(largest)
            );
            return Some((line, what, format!("write {} or more", shown(largest))));
        }
        // Two of the largest are busy where nothing says otherwise.
        let busy = self.busy.map_or(largest.saturating_mul(2), |(_, busy)| busy);
        if busy > each.saturating_mul(number - 1) {
            let fits = busy.div_ceil(largest).saturating_add(1).max(4);
            let fix = format!("write {pass}_buffers {fits} {}", shown(largest));
            let too_much = format!("more than all but one of {all}");
            let (line, what) = match (self.busy, self.first.filter(|(_, first)| *first > each)) {
                (Some((line, _)), _) => {
                    (line, format!("{pass}_busy_buffers_size {}: it is {too_much}", shown(busy)))
                }
                (None, Some((line, first))) => {
                    (line, format!("{pass}_buffer_size {}: twice of it is {too_much}", shown(first)))
                }
                (None, None) => {
                    (self.buffers?, format!("{all}: all but one of them must hold {}", shown(busy)))
                }
            };
            return Some((line, format!("nginx refuses {what}"), fix));
        }
        let (line, bytes) = self.files.iter().enumerate().find_map(|(index, written)| {
            // No file at all is right.
            written.filter(|(_, bytes)| *bytes < largest && !(index == 1 && *bytes == 0))
        })?;
        let what =
            format!("nginx refuses {} {}: a buffer has {}", line.name.text, shown(bytes), shown(largest));
        Some((line, what, format!("write {} or more", shown(largest))))
    }
}

/// As one writes it.
fn shown(bytes: u64) -> String {
    match bytes {
        0 => "0".to_owned(),
        bytes if bytes.is_multiple_of(1 << 20) => format!("{}m", bytes >> 20),
        bytes if bytes.is_multiple_of(1 << 10) => format!("{}k", bytes >> 10),
        bytes => bytes.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use crate::check::examples;

    #[test]
    fn sizes_of_buffers_fit_each_other() {
        let check = |lines: &str, expected: Option<&str>| {
            let text = format!("http {{ {lines} server {{ location / {{ }} }} }}");
            let said: Vec<_> = examples::findings(&text).into_iter().map(|found| found.what).collect();
            assert_eq!(said.first().map(String::as_str), expected, "{lines}");
            assert!(said.len() < 2, "{said:?}");
        };
        check(
            "proxy_buffer_size 64k;",
            Some(
                "nginx refuses proxy_buffer_size 64k: twice of it is more than all but one of 8 proxy_buffers of 4k, of which nothing is written",
            ),
        );
        check("fastcgi_buffers 1 8k;", Some("nginx refuses 1 fastcgi_buffers: it needs two"));
        check(
            "uwsgi_buffers 2 8k;",
            Some("nginx refuses 2 uwsgi_buffers of 8k: all but one of them must hold 16k"),
        );
        check(
            "scgi_busy_buffers_size 64k;",
            Some(
                "nginx refuses scgi_busy_buffers_size 64k: it is more than all but one of 8 scgi_buffers of 4k, of which nothing is written",
            ),
        );
        check(
            "proxy_busy_buffers_size 1k;",
            Some("nginx refuses proxy_busy_buffers_size 1k: a buffer has 4k"),
        );
        check(
            "proxy_max_temp_file_size 1k;",
            Some("nginx refuses proxy_max_temp_file_size 1k: a buffer has 4k"),
        );
        for lines in [
            "proxy_buffer_size 128k; proxy_buffers 4 256k; proxy_busy_buffers_size 256k;",
            "proxy_buffer_size 8k;",
            "proxy_buffers 3 4k;",
            "proxy_max_temp_file_size 0;",
            "fastcgi_buffers 16 16k; fastcgi_buffer_size 32k;",
        ] {
            check(lines, None);
        }
    }

    #[test]
    fn sizes_are_handed_down_and_are_judged_in_servers() {
        let check = |text: &str, expected: &[&str]| assert_eq!(examples::ids(text), expected, "{text}");
        check("http { proxy_buffer_size 64k; }", &[]);
        check("http { proxy_buffer_size 64k; server { proxy_buffers 4 64k; location / { } } }", &[]);
        check(
            "http { proxy_buffers 4 64k; server { location / { proxy_buffer_size 64k; } location /b { proxy_buffers 8 4k; proxy_buffer_size 64k; } } }",
            &["bad-argument"],
        );
        check("server { proxy_buffer_size 64k; }", &["part"]);
    }
}
