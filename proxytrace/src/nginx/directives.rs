//! Every directive of nginx itself: where it may stand, how many arguments it takes, and of what kind its value is. The table was made
//! from the sources of nginx 1.18.0 to 1.31.5 and has what any of them takes.

use std::{collections::HashMap, sync::LazyLock};

use super::version::Version;

/// By line: name, contexts, numbers of arguments, kind of the value, the first and the last version; `-` is all.
const TABLE: &str = include_str!("directives.tsv");

static KNOWN: LazyLock<HashMap<&'static str, Vec<Known>>> = LazyLock::new(|| {
    let mut known: HashMap<_, Vec<_>> = HashMap::new();
    for line in TABLE.lines() {
        if let Some((name, one)) = Known::read(line) {
            known.entry(name).or_default().push(one);
        }
    }
    known
});

/// A directive where it may stand.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    contexts: &'static str,
    args: &'static str,
    pub(crate) kind: Kind,
    since: Option<Version>,
    until: Option<Version>,
}

/// Of what kind its only argument is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It has a block.
    Block,
    /// `on` or `off`.
    Flag,
    /// Digits.
    Number,
    /// A size, such as 8k or 1g.
    Offset,
    /// A time in seconds.
    Seconds,
    /// A size, such as 8k or 1m.
    Size,
    /// Whatever it is: it is taken once.
    Text,
    /// A time in milliseconds.
    Time,
    /// Whatever it is.
    Other,
}

/// All that is known of a directive; nothing where it is none of nginx's own.
pub(crate) fn of(name: &str) -> &'static [Known] {
    KNOWN.get(name).map(Vec::as_slice).unwrap_or_default()
}

/// The names of all directives that may stand in a context.
pub(crate) fn names_in(context: &str) -> impl Iterator<Item = &'static str> {
    KNOWN.iter().filter(move |(_, known)| known.iter().any(|one| one.is_in(context))).map(|(name, _)| *name)
}

impl Known {
    fn read(line: &'static str) -> Option<(&'static str, Self)> {
        let mut columns = line.split('\t');
        let name = columns.next()?;
        let (contexts, args) = (columns.next()?, columns.next()?);
        let kind = match columns.next()? {
            "block" => Kind::Block,
            "flag" => Kind::Flag,
            "number" => Kind::Number,
            "offset" => Kind::Offset,
            "seconds" => Kind::Seconds,
            "size" => Kind::Size,
            "text" => Kind::Text,
            "time" => Kind::Time,
            _ => Kind::Other,
        };
        let mut version = || columns.next()?.parse().ok();
        Some((name, Self { contexts, args, kind, since: version(), until: version() }))
    }

    /// Whether it may stand in a context.
    pub(crate) fn is_in(&self, context: &str) -> bool {
        self.contexts.split(' ').any(|one| one == context)
    }

    /// Whether it takes so many arguments.
    pub(crate) fn takes(&self, count: usize) -> bool {
        self.args.split(',').any(|one| match one.strip_suffix('+') {
            Some(least) => least.parse().is_ok_and(|least: usize| count >= least),
            None => one.parse() == Ok(count),
        })
    }

    /// How many arguments it takes, in words.
    pub(crate) fn counts(&self) -> String {
        match self.args.strip_suffix('+') {
            Some("0") => "any number of arguments".to_owned(),
            Some(least) => format!("{least} or more arguments"),
            None if self.args == "0" => "no arguments".to_owned(),
            None if self.args == "1" => "1 argument".to_owned(),
            None => format!("{} arguments", self.args.replace(',', " or ")),
        }
    }

    /// Whether a version of nginx has it.
    pub(crate) fn is_of(&self, version: Version) -> bool {
        self.since.is_none_or(|since| since <= version) && self.until.is_none_or(|until| version <= until)
    }

    /// The versions that have it, in words.
    pub(crate) fn versions(&self) -> String {
        match (self.since, self.until) {
            (Some(since), _) => format!("it came with {since}"),
            (None, Some(until)) => format!("{until} was the last to have it"),
            (None, None) => "all have it".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{KNOWN, Kind, TABLE, of};

    #[test]
    fn each_line_of_the_table_is_read() {
        assert_eq!(KNOWN.values().map(Vec::len).sum::<usize>(), TABLE.lines().count());
        let [proxy, stream] = of("proxy_pass") else { panic!("{:?}", of("proxy_pass")) };
        assert!(proxy.is_in("location-if") && !proxy.is_in("server") && stream.is_in("stream-server"));
        assert!(proxy.takes(1) && !proxy.takes(2));
        assert_eq!(of("gzip").iter().map(|one| one.kind).collect::<Vec<_>>(), [Kind::Flag]);
        let tunnel = &of("tunnel_pass")[0];
        assert!(!tunnel.is_of("1.30.0".parse().unwrap()) && tunnel.is_of("1.31.2".parse().unwrap()));
        assert_eq!(tunnel.counts(), "0 or 1 arguments");
        assert!(of("lua_package_path").is_empty());
    }
}
