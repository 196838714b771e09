//! Histories as text, for the tests of all kinds of findings.
//!
//! A line is something that happens, a quarter of a second after the line before:
//!
//! - `1 api 5:8080 established 3 refused 2; 0 api ...` a tick: of which generation, upstream and address what was counted;
//!   `20 x` before it repeats it. `unanswered`, `resent`, `flying`, `slow`, `late` (cancelled after 700 ms), `answered`, `silent`, `overdue`,
//!   `resolved` (no longer) and `unheard` count what their names say.
//! - `config 1 api 5:8080 6:8080 | web 7:80` the configuration of a generation, which begins unless it is 0; a `~` behind an address says that it
//!   is a backup, a `-` that it is `down`, one behind a name that nothing leads to that upstream, a `@6` that it is of a name which is 10.0.0.6 now (`!` for long, `%` another each time), `+open` and `+followed` before the upstreams say that not all is in it
//! - `reload 1` a generation begins, and its configuration is not known; `rejected` one that does not begin
//!   (`rejected without reason`, and `reason known` later)
//! - `restart` the proxy's first process is another, and generations begin at 0
//! - `wait 60` seconds in which nothing happens
//! - `workers gone 2` the last worker ended with this exit code, `workers run` there are some again
//! - `says files 3` the proxy complains so often about what it lacks
//! - `hint 5:8080 no_ipv6` what is known besides of the rows of an address from then on
//! - `gone` the proxy has ended for good
//!
//! `=>` says which findings that raised, and with `not` before them cleared, since the last `=>`.

use std::{collections::BTreeMap, sync::Arc};

use jiff::{SignedDuration, Timestamp};
use proxytrace_ebpf::outcome::{Broken, Outcome};

use super::{Findings, Input, Limits};
use crate::model::{
    Address, Complaint, Complaints, Counted, Counts, Declared, Generation, Gone, Hint, HostName, Lack,
    LastExit, NameNow, Rejection, State, Upstream, Workforce,
};

/// A quick handshake and a slow one, as buckets of durations.
const QUICK: usize = 3;
const SLOW: usize = 14;

pub(super) struct Scene {
    pub(super) findings: Findings,
    pub(super) now: Timestamp,
    pid: u32,
    rows: BTreeMap<(u32, u32, String, Address), Counts>,
    hints: BTreeMap<Address, Hint>,
    changes: Vec<String>,
    /// The sentence of the last finding that came or went.
    pub(super) last_sentence: String,
}

/// Plays a history, and says at which line it does not go as expected.
#[track_caller]
pub(super) fn check(what: &str, history: &str) -> Scene {
    let mut scene = Scene {
        findings: Findings::new(Limits::default()),
        now: "2025-03-01T14:30:00Z".parse().unwrap(),
        pid: 1,
        rows: BTreeMap::new(),
        hints: BTreeMap::new(),
        changes: Vec::new(),
        last_sentence: String::new(),
    };
    for line in history.lines().map(str::trim).filter(|line| !line.is_empty()) {
        match line.strip_prefix("=>") {
            Some(expected) => {
                let mut expected: Vec<_> =
                    expected.split(',').map(str::trim).filter(|e| !e.is_empty()).collect();
                expected.sort_unstable();
                let mut seen = std::mem::take(&mut scene.changes);
                seen.sort_unstable();
                assert_eq!(seen, expected, "{what}, at {} in\n{history}", scene.now);
            }
            None => scene.play(line),
        }
    }
    assert!(scene.changes.is_empty(), "{what}: {:?} at the end of\n{history}", scene.changes);
    scene
}

impl Scene {
    fn play(&mut self, line: &str) {
        if let Some(seconds) = line.strip_prefix("wait ") {
            self.now += SignedDuration::from_secs(seconds.parse().unwrap());
            self.observe(|time| Input::Tick { time, rows: &[] });
        } else if line == "gone" {
            self.findings.forget(&["nginx".into()].into());
            self.observe(|time| Input::Tick { time, rows: &[] });
        } else if line == "workers run" {
            let workforce = Workforce { proxy: "nginx".into(), gone: None };
            self.observe(|time| Input::Workers { time, workforce });
        } else if let Some(code) = line.strip_prefix("workers gone ") {
            let exit = LastExit { pid: 9, signal: None, code: Some(code.parse().unwrap()) };
            let gone = Some(Gone { exit: Some(exit), reason: None });
            let workforce = Workforce { proxy: "nginx".into(), gone };
            self.observe(|time| Input::Workers { time, workforce });
        } else if let Some(said) = line.strip_prefix("says ") {
            let (lack, times) = said.split_once(' ').unwrap();
            let lack = Lack::ALL.into_iter().find(|one| one.name() == lack).unwrap();
            let complaint = Complaint {
                lack,
                words: format!("no {}", lack.name()).into(),
                times: times.parse().unwrap(),
            };
            let complaints = Complaints { proxy: "nginx".into(), complaints: vec![complaint] };
            self.observe(|time| Input::Complained { time, complaints });
        } else if let Some(about) = line.strip_prefix("hint ") {
            let (at, hint) = about.split_once(' ').unwrap();
            self.hints.insert(address(at), serde_json::from_value(hint.into()).unwrap());
        } else if line == "restart" {
            self.pid += 1;
        } else if let "rejected" | "rejected without reason" | "reason known" = line {
            let words = "unknown directive \"sever\" in /etc/nginx/nginx.conf:3";
            let reason = (line != "rejected without reason").then(|| words.into());
            let is_late = line == "reason known";
            let rejected = Rejection { proxy: "nginx".into(), reason, is_late };
            self.observe(|time| Input::Rejected { time, rejected });
        } else if let Some(number) = line.strip_prefix("reload ") {
            let of = self.generation(number);
            self.observe(|time| Input::Accepted { time, of });
        } else if let Some(config) = line.strip_prefix("config ") {
            let (number, config) = config.split_once(' ').unwrap();
            let of = self.generation(number);
            if of.number > 0 {
                self.observe(|time| Input::Accepted { time, of: of.clone() });
            }
            let declared = declared(config);
            self.observe(|time| Input::Declared { time, of, declared });
        } else {
            let (times, tick) = line.split_once(" x ").unwrap_or(("1", line));
            for _ in 0..times.parse().unwrap() {
                self.tick(tick);
            }
        }
    }

    fn generation(&self, number: &str) -> Generation {
        Generation { proxy: "nginx".into(), pid: self.pid, number: number.parse().unwrap() }
    }

    fn tick(&mut self, tick: &str) {
        let mut rows = Vec::new();
        for row in tick.split(';') {
            let words: Vec<_> = row.split_whitespace().collect();
            let [generation, upstream, at, counts @ ..] = &words[..] else { panic!("{row}") };
            let key = (self.pid, generation.parse().unwrap(), (*upstream).to_owned(), address(at));
            let counts_so_far = self.rows.entry(key.clone()).or_default();
            for pair in counts.chunks(2) {
                count(counts_so_far, pair[0], pair[1].parse().unwrap());
            }
            let (pid, generation, upstream, address) = key;
            rows.push(Counted {
                proxy: "nginx".into(),
                pid,
                generation,
                upstream: upstream.into(),
                hint: self.hints.get(&address).copied(),
                address,
                counts: counts_so_far.clone(),
            });
        }
        self.observe(|time| Input::Tick { time, rows: &rows });
    }

    fn observe<'a>(&mut self, input: impl FnOnce(Timestamp) -> Input<'a>) {
        self.now += SignedDuration::from_millis(250);
        for change in self.findings.observe(input(self.now)) {
            self.last_sentence = change.finding.to_string();
            let subject = change.finding.subject;
            let mut words = Vec::new();
            words.extend((change.state == State::Cleared).then(|| "not".to_owned()));
            words.push(subject.kind.name().to_owned());
            words.extend(subject.upstream.map(|upstream| upstream.to_string()));
            words.extend(subject.address.map(|address| address.to_string().replace("10.0.0.", "")));
            self.changes.push(words.join(" "));
        }
    }

    /// The sentence of the only finding of a kind.
    #[track_caller]
    pub(super) fn sentence_of(&self, kind: &str) -> String {
        let findings = self.findings.active().filter(|finding| finding.subject.kind.name() == kind);
        let sentences: Vec<_> = findings.map(ToString::to_string).collect();
        assert_eq!(sentences.len(), 1, "{sentences:?}");
        sentences.concat()
    }

    /// The sentence of the only finding there is.
    #[track_caller]
    pub(super) fn sentence(&self) -> String {
        let sentences: Vec<_> = self.findings.active().map(ToString::to_string).collect();
        assert_eq!(sentences.len(), 1, "{sentences:?}");
        sentences.concat()
    }
}

fn count(counts: &mut Counts, what: &str, n: u64) {
    match what {
        "unanswered" => counts.broken[Broken::ClosedBeforeResponse as usize] += n,
        "resent" => counts.syn_retransmits += n,
        "silent" => counts.broken[Broken::ResponseTimeout as usize] += n,
        "answered" => counts.answered += n,
        "overdue" => {
            counts.overdue += n;
            counts.waiting.overdue += n as u32;
            counts.waiting.oldest_ms = 7_000;
        }
        "resolved" => counts.waiting.overdue -= n as u32,
        "unheard" => {
            counts.unheard += n;
            counts.waiting.unheard = n as u32;
        }
        "flying" => counts.attempts += n,
        // The proxy gave up after 700 ms.
        "late" => {
            count(counts, "cancelled", n);
            counts.cancelled_sum_us += n * 700_000;
        }
        "established" | "slow" => {
            counts.attempts += n;
            counts.outcomes[Outcome::Established as usize] += n;
            counts.durations[if what == "slow" { SLOW } else { QUICK }] += n;
            counts.duration_sum_us += n * if what == "slow" { 1_200_000 } else { 400 };
        }
        cause => {
            counts.attempts += n;
            let outcome = Outcome::ALL.into_iter().find(|outcome| outcome.name() == cause);
            counts.outcomes[outcome.unwrap_or_else(|| panic!("{cause}")) as usize] += n;
        }
    }
}

fn address(text: &str) -> Address {
    if text.starts_with("unix:") || text.starts_with('[') {
        text.parse()
    } else {
        format!("10.0.0.{text}").parse()
    }
    .unwrap()
}

fn declared(text: &str) -> Declared {
    let mut declared = Declared {
        is_open: text.contains("+open"),
        is_followed: text.contains("+followed"),
        ..Declared::default()
    };
    let text =
        text.trim_start_matches(['+', ' ']).trim_start_matches("open ").trim_start_matches("followed ");
    for (line, upstream) in text.split('|').enumerate() {
        let mut words = upstream.split_whitespace();
        let name = words.next().unwrap();
        let (name, is_unused) = name.strip_suffix('-').map_or((name, false), |name| (name, true));
        let name: Arc<str> = name.into();
        let place: Arc<str> = format!("/etc/nginx/nginx.conf:{}", line + 1).into();
        let mut upstream = Upstream { is_unused, ..Upstream::default() };
        for word in words {
            let (word, now) = word.split_once('@').map_or((word, None), |(word, now)| (word, Some(now)));
            let at = word.strip_suffix("~").unwrap_or(word);
            upstream.names.extend(now.map(|now| host_name(&name, &address(at), &place, now)));
            let (word, is_backup) = word.strip_suffix("~").map_or((word, false), |word| (word, true));
            let (word, is_down) = word.strip_suffix("-").map_or((word, false), |word| (word, true));
            upstream.down.extend(is_down.then(|| address(word)));
            upstream.addresses.insert(address(word), Arc::clone(&place));
            upstream.backups.extend(is_backup.then(|| address(word)));
        }
        declared.upstreams.insert(name, upstream);
    }
    declared
}

/// A name at the port of an address, which resolves to this now: the last byte of an address or nothing; `!` means for long, `%` that it
/// is another each time, `>` that the proxy looks it up while it runs.
fn host_name(name: &Arc<str>, at: &Address, place: &Arc<str>, now: &str) -> HostName {
    let (now, is_followed) = now.strip_suffix('>').map_or((now, false), |now| (now, true));
    let last = now.trim_end_matches(['!', '%']);
    let now = NameNow {
        addresses: (!last.is_empty())
            .then(|| format!("10.0.0.{last}").parse().unwrap())
            .into_iter()
            .collect(),
        rotates: now.ends_with('%'),
        is_settled: now.ends_with('!'),
        ..NameNow::default()
    };
    HostName {
        name: Arc::clone(name),
        port: at.port(),
        place: Arc::clone(place),
        is_followed,
        now: Some(now),
    }
}
