//! What a configuration declares, in parts of a bounded size: a configuration of anybody's may name any number of addresses, and
//! a line that is too long to be read would be lost as a whole. Pure.

use std::{collections::BTreeMap, mem, sync::Arc};

use crate::model::{Body, Declaration, Declared, HostName, Record, Upstream};

/// What a part takes at most, in bytes, beside what every record has.
const MAX_PART: usize = 256 << 10;

/// So many parts are written of one declaration, and read: what it takes in memory is bounded by that.
const MAX_PARTS: u32 = 64;

/// The records to write for one: itself, or the parts that it consists of.
pub(super) fn split(record: &Record) -> Vec<Record> {
    let Body::Declared(declaration) = &record.body else { return vec![record.clone()] };
    let Declared { upstreams, is_open, is_followed } = &declaration.declared;
    let empty = || Declared { upstreams: BTreeMap::new(), is_open: *is_open, is_followed: *is_followed };
    let mut parts = Parts { all: vec![empty()], size: 0, left_out: 0, empty: empty() };
    let all = upstreams.iter().flat_map(|(name, upstream)| {
        upstream.addresses.iter().map(move |(address, place)| (name, upstream, address, place))
    });
    for (name, upstream, address, place) in all {
        let (is_backup, is_down) = (upstream.backups.contains(address), upstream.down.contains(address));
        let directive = upstream.directive.as_deref().map_or(0, written);
        let shown = written(&address.to_string());
        let takes = written(name)
            + shown
            + written(place)
            + directive
            + shown * (usize::from(is_backup) + usize::from(is_down));
        if let Some(declared) = parts.upstream(name, takes) {
            declared.addresses.insert(address.clone(), Arc::clone(place));
            declared.directive.clone_from(&upstream.directive);
            declared.is_stream = upstream.is_stream;
            if is_backup {
                declared.backups.insert(address.clone());
            }
            if is_down {
                declared.down.insert(address.clone());
            }
        }
    }
    let hosts = upstreams
        .iter()
        .flat_map(|(name, upstream)| upstream.names.iter().map(move |host| (name, upstream, host)));
    for (name, upstream, host) in hosts {
        let directive = upstream.directive.as_deref().map_or(0, written);
        let takes = written(name) + written(&host.name) + written(&host.place) + directive + of_now(host);
        if let Some(declared) = parts.upstream(name, takes) {
            declared.directive.clone_from(&upstream.directive);
            declared.is_stream = upstream.is_stream;
            declared.names.push(host.clone());
        }
    }
    let Parts { all: mut parts, size, mut left_out, .. } = parts;
    let mut size = size;
    // An upstream without an address is declared as well.
    for name in upstreams.iter().filter(|(_, upstream)| is_empty(upstream)).map(|(name, _)| name) {
        match parts.last_mut() {
            Some(part) if size + written(name) <= MAX_PART => {
                size += written(name);
                part.upstreams.entry(Arc::clone(name)).or_default();
            }
            _ => left_out += 1,
        }
    }
    let last = parts.len() as u32 - 1;
    let record_of = |(part, declared)| {
        let of = declaration.of.clone();
        let left_out = if part == last { declaration.left_out + left_out } else { 0 };
        let declaration = Declaration { of, declared, part, more: part < last, left_out };
        Record { time: record.time, body: Body::Declared(declaration) }
    };
    (0..).zip(parts).map(record_of).collect()
}

fn is_empty(upstream: &Upstream) -> bool {
    upstream.addresses.is_empty() && upstream.names.is_empty()
}

/// Parts while they are made.
struct Parts {
    all: Vec<Declared>,
    /// What the last one takes.
    size: usize,
    left_out: u64,
    empty: Declared,
}

impl Parts {
    /// The upstream in the part that has room for so many bytes more; `None` where none has.
    fn upstream(&mut self, name: &Arc<str>, takes: usize) -> Option<&mut Upstream> {
        let is_full = self.size + takes > MAX_PART;
        if takes > MAX_PART || (self.all.len() as u32 == MAX_PARTS && is_full) {
            self.left_out += 1;
            return None;
        }
        if is_full {
            self.all.push(self.empty.clone());
            self.size = 0;
        }
        self.size += takes;
        Some(self.all.last_mut()?.upstreams.entry(Arc::clone(name)).or_default())
    }
}

/// What is known of a name takes so much at most.
fn of_now(host: &HostName) -> usize {
    const MEMBERS: usize = 128;
    const ADDRESS: usize = 48;
    let addresses = host.now.as_ref().map_or(0, |now| now.addresses.len() + now.before.len());
    MEMBERS + addresses * ADDRESS
}

/// What a text takes at most as JSON, with what stands around it.
fn written(text: &str) -> usize {
    const AROUND: usize = 24;
    const ESCAPE: usize = "\\ud800\\udc00".len();
    let of_char = |c: char| if c.is_ascii_graphic() && !matches!(c, '"' | '\\') { 1 } else { ESCAPE };
    AROUND + text.chars().map(of_char).sum::<usize>()
}

/// Puts parts together again.
#[derive(Debug, Default)]
pub(super) struct Joined(Option<Declaration>);

/// What a part makes of those before it.
pub(super) enum Part {
    /// That was the last one.
    Whole(Declaration),
    /// There are more.
    Waits,
    /// One before it is missing, or there are too many: it says nothing by itself.
    Useless,
}

impl Joined {
    /// Takes the next part.
    pub(super) fn take(&mut self, part: Declaration) -> Part {
        let before = self.0.take();
        let mut whole = match before {
            Some(mut whole)
                if whole.of == part.of && whole.part + 1 == part.part && part.part < MAX_PARTS =>
            {
                for (name, upstream) in part.declared.upstreams {
                    let declared = whole.declared.upstreams.entry(name).or_default();
                    declared.addresses.extend(upstream.addresses);
                    declared.backups.extend(upstream.backups);
                    declared.down.extend(upstream.down);
                    declared.names.extend(upstream.names);
                    declared.is_stream |= upstream.is_stream;
                    declared.directive = upstream.directive.or(declared.directive.take());
                }
                Declaration { part: part.part, more: part.more, left_out: part.left_out, ..whole }
            }
            _ if part.part == 0 => part,
            _ => return Part::Useless,
        };
        if whole.more {
            self.0 = Some(whole);
            return Part::Waits;
        }
        whole.part = 0;
        Part::Whole(whole)
    }

    /// Whether parts wait for one that has not come. They are forgotten.
    pub(super) fn is_broken_off(&mut self) -> bool {
        mem::take(&mut self.0).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::{Joined, MAX_PART, MAX_PARTS, Part, split};
    use crate::model::{Body, Declaration, Declared, Generation, Record, Upstream};

    fn record(upstreams: usize, name: &str) -> Record {
        let upstream = |n: usize| {
            let address = format!("10.{}.{}.{}:80", n >> 16 & 255, n >> 8 & 255, n & 255).parse().unwrap();
            (
                format!("{name}{n}").into(),
                Upstream { addresses: [(address, "/etc/nginx.conf:1".into())].into(), ..Upstream::default() },
            )
        };
        let mut declared =
            Declared { upstreams: (0..upstreams).map(upstream).collect(), ..Declared::default() };
        declared.upstreams.insert("without".into(), Upstream::default());
        let of = Generation { proxy: "nginx".into(), pid: 7, number: 2 };
        let declaration = Declaration { of, declared, part: 0, more: false, left_out: 0 };
        Record { time: "2026-11-22T06:39:51Z".parse().unwrap(), body: Body::Declared(declaration) }
    }

    fn declaration(record: &Record) -> &Declaration {
        match &record.body {
            Body::Declared(declaration) => declaration,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_split_is_whole_again_when_it_is_joined() {
        for (upstreams, name) in [(0, "u"), (3, "u"), (20_000, "u"), (3000, "\u{1b}\u{202e}ä")] {
            let whole = record(upstreams, name);
            let parts = split(&whole);
            assert_eq!(parts.len() > 1, upstreams > 1000, "{} parts", parts.len());
            let mut joined = Joined::default();
            let mut found = None;
            for part in &parts {
                assert!(serde_json::to_string(part).unwrap().len() < MAX_PART + 1000);
                match joined.take(declaration(part).clone()) {
                    Part::Whole(declaration) => found = Some(declaration),
                    Part::Waits => assert!(declaration(part).more),
                    Part::Useless => panic!("a part is useless"),
                }
            }
            assert_eq!(found.as_ref(), Some(declaration(&whole)));
            assert!(!joined.is_broken_off());
        }
    }

    #[test]
    fn however_much_is_declared_there_is_a_bound_and_what_is_left_out_is_counted() {
        let name = "u".repeat(4000);
        let mut whole = record(5000, &name);
        if let Body::Declared(declaration) = &mut whole.body {
            declaration.declared.upstreams.insert("x".repeat(MAX_PART).into(), Upstream::default());
        }
        let parts = split(&whole);
        assert_eq!(parts.len(), MAX_PARTS as usize);
        let kept: usize = parts.iter().map(|part| declaration(part).declared.upstreams.len()).sum();
        let left_out = declaration(parts.last().unwrap()).left_out;
        assert_eq!(kept as u64 + left_out, 5002);
        assert!(left_out > 500, "{left_out}");
    }

    #[test]
    fn parts_of_which_one_is_missing_say_nothing() {
        let parts = split(&record(20_000, "u"));
        let mut joined = Joined::default();
        assert!(matches!(joined.take(declaration(&parts[1]).clone()), Part::Useless));
        assert!(matches!(joined.take(declaration(&parts[0]).clone()), Part::Waits));
        assert!(matches!(joined.take(declaration(&parts[2]).clone()), Part::Useless));
        assert!(!joined.is_broken_off());
        assert!(matches!(joined.take(declaration(&parts[0]).clone()), Part::Waits));
        assert!(joined.is_broken_off());
    }
}
