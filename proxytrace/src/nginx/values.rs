//! Directives whose arguments are words of a list: which, by where they stand. The table was made from the sources of nginx 1.18.0 to
//! 1.31.5.

use super::version::Version;

/// By line: name, the kind of server, whether one word or many, and the words, each with the first version that has it behind an `@`.
const TABLE: &str = include_str!("values.tsv");

/// The words that a directive takes.
pub(crate) struct Words {
    words: &'static str,
}

/// Those of a directive in servers of a kind (`http`, `stream`, `mail`); `None` where it takes others too.
pub(crate) fn of(kind: &str, name: &str) -> Option<Words> {
    TABLE.lines().find_map(|line| {
        let mut columns = line.split('\t');
        let is_it = columns.next() == Some(name) && columns.next() == Some(kind);
        is_it.then(|| Words { words: columns.nth(1).unwrap_or_default() })
    })
}

impl Words {
    /// All of them.
    pub(crate) fn all(&self) -> impl Iterator<Item = &'static str> {
        self.words.split(' ').map(|word| word.split('@').next().unwrap_or(word))
    }

    /// Whether nginx takes a word; it does not look at case.
    pub(crate) fn has(&self, word: &str, version: Option<Version>) -> bool {
        self.words.split(' ').any(|known| {
            let (known, since) = known.split_once('@').unwrap_or((known, ""));
            let is_later = since.parse().is_ok_and(|since| version.is_some_and(|own| own < since));
            known.eq_ignore_ascii_case(word) && !is_later
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{TABLE, of};

    #[test]
    fn each_line_of_the_table_is_read() {
        for line in TABLE.lines() {
            let columns: Vec<_> = line.split('\t').collect();
            let [name, kind, count, _] = columns[..] else { panic!("{line}") };
            assert!(["one", "many"].contains(&count) && of(kind, name).is_some(), "{line}");
        }
        let version = of("http", "proxy_http_version").unwrap();
        assert!(version.has("2", None) && !version.has("2", Some("1.22.1".parse().unwrap())));
        assert!(of("http", "proxy_next_upstream").unwrap().has("HTTP_502", None));
        assert!(of("http", "proxy_pass").is_none());
    }
}
