//! Makes a status of what a trace knows.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use jiff::Timestamp;

use super::{
    Destination, Proxy, Sides, Source, Standing, State, Status, Upstream, quantile_us, sharing::Sharing,
    state::Signs,
};
use crate::{
    history::{Recent, Sums, Trouble, Wrongs},
    model::{Counts, Finding, UpstreamKey},
    watch::{ProxyView, Side, View},
};

/// So many addresses of an upstream are listed.
const MAX_ADDRESSES: usize = 64;

/// What a trace knows, and since when.
#[derive(Debug)]
pub struct Seen {
    /// Who saw it.
    pub source: Source,
    /// When.
    pub time: Timestamp,
    /// Whether it is known by then what runs and how that is configured.
    pub started: bool,
    /// Since when.
    pub since: Timestamp,
    /// What was counted, and the proxies.
    pub view: View,
    /// What is wrong.
    pub findings: Vec<Standing>,
    /// What was counted within about the last minute.
    pub recent: Recent,
    /// What was wrong with each upstream.
    pub wrongs: Wrongs,
    /// When each proxy was last reloaded, where an earlier agent saw that.
    pub reloads: BTreeMap<Arc<str>, Timestamp>,
}

impl Standing {
    /// One that is seen now.
    #[must_use]
    pub fn now(finding: Finding) -> Self {
        Self { sentence: finding.to_string(), finding, seen: None, severe_since: None }
    }
}

impl Status {
    /// How things are.
    #[must_use]
    pub fn of(seen: Seen) -> Self {
        let Seen { source, time, started, since, view, mut findings, mut recent, wrongs, reloads } = seen;
        findings.sort_by(|one, other| {
            // What is about a proxy as a whole comes first: it may be the cause of what is wrong with its upstreams.
            let rank = |Standing { finding, .. }: &Standing| {
                (std::cmp::Reverse(finding.severity), finding.subject.upstream.is_some(), finding.since)
            };
            rank(one).cmp(&rank(other))
        });
        let proxies =
            view.proxies.iter().map(|(name, proxy)| self::proxy(name, proxy, &view, &reloads)).collect();
        let sharing = Sharing::of(&view);
        let mut upstreams = upstreams(&view, &mut recent.sums, &sharing);
        let signs = signs(&upstreams, &view, time, &recent.troubles, &wrongs);
        for upstream in upstreams.values_mut() {
            let state = with_shared(upstream, &signs, &findings).state(since);
            (upstream.state, upstream.state_since) = state;
        }
        let mut upstreams: Vec<_> = upstreams.into_values().collect();
        upstreams.sort_by_key(|upstream| upstream.state);
        Self {
            time,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            source,
            traced: Some(view.traced),
            started,
            since,
            recent_since: recent.since,
            findings,
            proxies,
            upstreams,
        }
    }
}

/// Each upstream, but for how it is.
fn upstreams(view: &View, recent: &mut Sums, sharing: &Sharing) -> BTreeMap<UpstreamKey, Upstream> {
    let declared: BTreeSet<_> = view.declared.iter().collect();
    let mut upstreams: BTreeMap<UpstreamKey, Upstream> = BTreeMap::new();
    for (key, row) in &view.series {
        let of = upstreams.entry(key.of_upstream()).or_insert_with_key(|of| {
            let counts = recent.remove(of).unwrap_or_default();
            Upstream {
                proxy: Arc::clone(&of.0),
                upstream: Arc::clone(&of.1),
                state: State::Quiet,
                state_since: None,
                shares: sharing.with(of).cloned().collect(),
                all_shared: sharing.is_whole(of),
                connect_p50_us: quantile_us(&counts.durations, 0.5),
                connect_p99_us: quantile_us(&counts.durations, 0.99),
                recent: counts,
                in_flight: 0,
                waiting: Default::default(),
                reload: view.sides.get(of).map(|sides| {
                    let of = |side| Counts::of(&sides[side as usize], &view.clock);
                    Sides { old: of(Side::Old), new: of(Side::New) }
                }),
                addresses: Vec::new(),
            }
        });
        of.in_flight += row.in_flight();
        if let Some(waiting) = view.waiting.get(key) {
            of.waiting.add(waiting);
        }
        if of.addresses.len() < MAX_ADDRESSES {
            of.addresses.push(Destination {
                address: Arc::clone(&key.address),
                declared: declared.contains(key) || sharing.is_row(key),
                counts: Counts::of(row, &view.clock),
                answered: view.answered.get(key).copied(),
            });
        }
    }
    upstreams
}

/// What of each upstream was counted itself, and was seen before.
fn signs(
    upstreams: &BTreeMap<UpstreamKey, Upstream>,
    view: &View,
    time: Timestamp,
    troubles: &BTreeMap<UpstreamKey, Trouble>,
    wrongs: &Wrongs,
) -> BTreeMap<UpstreamKey, Signs<'static>> {
    let mut signs: BTreeMap<UpstreamKey, Signs<'static>> = BTreeMap::new();
    for (key, upstream) in upstreams {
        let own = Signs {
            findings: Vec::new(),
            attempts: upstream.recent.attempts,
            is_in_use: upstream.addresses.iter().any(|address| address.is_in_use(time)),
            gone_wrong: upstream.recent.gone_wrong(),
            trouble: troubles.get(key).copied(),
            wrong: wrongs.get(key).copied().unwrap_or_default(),
            last: upstream.addresses.iter().filter_map(|address| address.answered).max(),
        };
        signs.insert(key.clone(), own);
    }
    for (key, row) in view.series.iter().filter(|(_, row)| row.last_attempt_ns > 0) {
        if let Some(of) = signs.get_mut(&key.of_upstream()) {
            of.last = of.last.max(Some(view.clock.at(row.last_attempt_ns)));
        }
    }
    signs
}

/// What says how an upstream is, with what is known by the rows that it has with others; of such a row, with what stands about its
/// upstreams there.
fn with_shared<'a>(
    upstream: &Upstream,
    signs: &BTreeMap<UpstreamKey, Signs<'static>>,
    findings: &'a [Standing],
) -> Signs<'a> {
    let mut all = Signs {
        findings: findings.iter().filter(|standing| upstream.is_meant(&standing.finding)).collect(),
        ..Signs::default()
    };
    let of = |name: &Arc<str>| signs.get(&(Arc::clone(&upstream.proxy), Arc::clone(name)));
    of(&upstream.upstream).into_iter().for_each(|own| all.add(own));
    for shared in upstream.shares.iter().filter_map(of) {
        if upstream.is_shared_row() {
            all.add_wrong(&shared.wrong);
        } else {
            all.add(shared);
        }
    }
    all
}

/// When a proxy was last reloaded, as far as that was seen.
pub fn reloaded(
    name: &Arc<str>,
    proxy: &ProxyView,
    view: &View,
    reloads: &BTreeMap<Arc<str>, Timestamp>,
) -> Option<Timestamp> {
    let own = (proxy.reloaded_ns > 0).then(|| view.clock.at(proxy.reloaded_ns));
    own.or_else(|| reloads.get(name).copied())
}

fn proxy(name: &Arc<str>, proxy: &ProxyView, view: &View, reloads: &BTreeMap<Arc<str>, Timestamp>) -> Proxy {
    Proxy {
        proxy: Arc::clone(name),
        pid: proxy.pid,
        process: proxy.process.clone(),
        workers: proxy.workers,
        old_workers: proxy.old_workers,
        generation: proxy.generation,
        reloaded: reloaded(name, proxy, view, reloads),
        rejected: proxy.rejected,
        crashes: proxy.crashes,
        names_ready: proxy.names_ready,
        config: proxy.info.config.clone(),
    }
}

/// Whether a finding is about that upstream, or about that among others.
#[must_use]
pub fn is_about(finding: &Finding, proxy: &Arc<str>, upstream: &Arc<str>) -> bool {
    let subject = &finding.subject;
    let is_named =
        subject.upstream.as_ref() == Some(upstream) || finding.evidence.upstreams.contains(upstream);
    subject.proxy == *proxy && is_named
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use proxytrace_ebpf::{
        abi::{Owner, Row},
        outcome::Outcome,
    };

    use super::{Seen, Standing};
    use crate::{
        history::{Recent, Wrong},
        model::{Clock, Counts, Entry, Finding, Key, Kind, Severity, Subject},
        status::{Source, State, Status, Upstream},
        watch::View,
    };

    const SHARED: &str = "10.0.0.5:80";

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn key(upstream: &str, address: &str) -> Key {
        Key { proxy: "nginx".into(), upstream: upstream.into(), address: address.into() }
    }

    /// What a trace knows that began at 0 and looks at 100 s: rows of upstreams, all of whose connects are recent, and what is declared.
    fn seen(rows: &[(&str, &str, u64, u64)], declared: &[(&str, &str)]) -> Seen {
        let clock = Clock::new(100_000_000_000, at(100));
        let mut entries = Vec::new();
        let mut recent = Recent { since: at(40), sums: Default::default(), troubles: Default::default() };
        for (upstream, address, established, refused) in rows {
            let mut row =
                Row { attempts: established + refused, last_attempt_ns: 90_000_000_000, ..Row::ZERO };
            row.outcomes[Outcome::Established as usize] = *established;
            row.outcomes[Outcome::Refused as usize] = *refused;
            let key = key(upstream, address);
            *recent.sums.entry(key.of_upstream()).or_default() += &Counts::of(&row, &clock);
            entries.push(Entry { key, owner: Owner::HOST_ROOT, row });
        }
        let mut view = View::of(&entries, clock);
        for (upstream, address) in declared {
            let key = key(upstream, address);
            view.series.entry(key.clone()).or_insert(Row::ZERO);
            view.declared.push(key);
        }
        Seen {
            source: Source::Agent,
            time: at(100),
            started: true,
            since: at(0),
            view,
            findings: Vec::new(),
            recent,
            wrongs: Default::default(),
            reloads: Default::default(),
        }
    }

    fn standing(
        kind: Kind,
        upstream: &str,
        address: Option<&str>,
        severity: Severity,
        since: i64,
    ) -> Standing {
        let subject = Subject {
            proxy: "nginx".into(),
            kind,
            upstream: Some(upstream.into()),
            address: address.map(|address| address.parse().unwrap()),
        };
        Standing::now(Finding { subject, severity, since: at(since), ..Finding::sample() })
    }

    #[track_caller]
    fn of<'a>(status: &'a Status, name: &str) -> &'a Upstream {
        status.upstreams.iter().find(|upstream| *upstream.upstream == *name).unwrap()
    }

    #[test]
    fn a_state_is_as_old_as_what_says_it() {
        use Severity::{Critical, Warning};
        let api = || standing(Kind::BlackHole, "api", Some(SHARED), Critical, 10);
        let risen = Standing { severe_since: Some(at(70)), ..api() };
        let down = standing(Kind::UpstreamDown, "api", None, Critical, 72);
        let warned = standing(Kind::AddressDown, "api", Some(SHARED), Warning, 20);
        let wrong = |down: Option<i64>, ill: i64, late: Option<i64>| Wrong {
            down: down.map(at),
            ill: Some(at(ill)),
            late: late.map(at),
        };
        let well = Wrong::default();
        // What stands, what was, failures; and how it is.
        type Case = (&'static str, Vec<Standing>, Wrong, u64, (State, i64));
        let rows: [Case; 8] = [
            ("nothing was wrong", vec![], well, 0, (State::Ok, 0)),
            ("a finding that went", vec![], wrong(Some(60), 65, None), 0, (State::Ok, 65)),
            ("a finding", vec![api()], wrong(Some(100), 100, None), 0, (State::Down, 10)),
            ("one that became worse", vec![risen.clone()], wrong(Some(100), 100, None), 0, (State::Down, 70)),
            ("the first of two", vec![down, risen], wrong(Some(100), 100, None), 0, (State::Down, 70)),
            ("one that matters less", vec![warned.clone()], wrong(None, 100, None), 0, (State::Failing, 20)),
            ("after it was down", vec![warned], wrong(Some(60), 100, None), 5, (State::Failing, 60)),
            ("requests that wait", vec![], wrong(None, 100, Some(80)), 0, (State::Failing, 80)),
        ];
        for (name, findings, wrong, refused, (state, since)) in rows {
            let mut seen = seen(&[("api", SHARED, 10, refused)], &[("api", SHARED)]);
            seen.findings = findings;
            seen.wrongs.insert(key("api", SHARED).of_upstream(), wrong);
            let status = Status::of(seen);
            let api = of(&status, "api");
            assert_eq!((api.state, api.state_since), (state, Some(at(since))), "{name}");
        }
    }

    #[test]
    fn an_upstream_that_answers_on_connections_that_stay_is_not_quiet() {
        let state = |answered| {
            let mut seen = seen(&[("api", SHARED, 0, 0)], &[]);
            seen.view.answered = [(key("api", SHARED), at(answered))].into();
            let of = Status::of(seen).upstreams.remove(0);
            (of.state, of.state_since)
        };
        assert_eq!(state(41), (State::Ok, Some(at(0))));
        // A minute ago.
        assert_eq!(state(40), (State::Quiet, Some(at(90))));
    }

    #[test]
    fn what_is_about_a_whole_proxy_comes_before_what_is_as_bad_and_older() {
        let down = |since| standing(Kind::UpstreamDown, "api", None, Severity::Critical, since);
        let mut proxy = down(20);
        (proxy.finding.subject.kind, proxy.finding.subject.upstream) = (Kind::ProxyDown, None);
        let mut lacking = proxy.clone();
        (lacking.finding.subject.kind, lacking.finding.severity) = (Kind::ProxyFails, Severity::Warning);
        let mut seen = seen(&[], &[]);
        seen.findings = vec![lacking, down(10), proxy];
        let kinds: Vec<_> = Status::of(seen).findings.iter().map(|of| of.finding.subject.kind).collect();
        assert_eq!(kinds, [Kind::ProxyDown, Kind::UpstreamDown, Kind::ProxyFails]);
    }

    #[test]
    fn what_several_upstreams_have_is_counted_once_and_each_is_as_that_is() {
        let declared = [("app", SHARED), ("web", SHARED), ("web", "10.0.0.6:80")];
        let rows = [("app,web", SHARED, 10, 0), ("web", "10.0.0.6:80", 3, 0)];
        let status = Status::of(seen(&rows, &declared));
        let (app, web, row) = (of(&status, "app"), of(&status, "web"), of(&status, "app,web"));
        assert_eq!([app, web, row].map(|of| of.state), [State::Ok; 3]);
        assert_eq!([app, web, row].map(|of| of.recent.attempts), [0, 3, 10], "once in all");
        assert_eq!([app, web, row].map(|of| of.all_shared), [true, false, false]);
        assert_eq!((&*app.shares[0], &row.shares[..]), ("app,web", &["app".into(), "web".into()][..]));
        assert!(row.addresses[0].declared && row.is_called("app") && !web.is_called("app"));

        // What is about one is about the row, as far as it is about that address.
        let mut seen = seen(&rows, &declared);
        seen.findings = vec![standing(Kind::AddressDown, "web", Some("10.0.0.6:80"), Severity::Warning, 50)];
        let status = Status::of(seen);
        let states = ["app", "web", "app,web"].map(|name| of(&status, name).state);
        assert_eq!(states, [State::Ok, State::Failing, State::Ok]);
        let mut seen = self::seen(&[("app,web", SHARED, 0, 7), ("web", "10.0.0.6:80", 3, 0)], &declared);
        seen.findings = vec![standing(Kind::UpstreamDown, "app", None, Severity::Critical, 50)];
        let status = Status::of(seen);
        let states = ["app", "web", "app,web"].map(|name| of(&status, name).state);
        assert_eq!(states, [State::Down, State::Failing, State::Down]);
    }

    #[test]
    fn of_many_names_those_are_known_that_a_row_does_not_say() {
        let names: Vec<_> = (0..5).map(|n| format!("u{n}")).collect();
        let declared: Vec<_> = names.iter().map(|name| (&**name, SHARED)).collect();
        let status = Status::of(seen(&[("u0,u1,u2+2", SHARED, 10, 0)], &declared));
        assert_eq!(of(&status, "u0,u1,u2+2").shares.len(), 5);
        assert!(
            names.iter().all(|name| of(&status, name).all_shared && of(&status, name).state == State::Ok)
        );
        assert!(of(&status, "u0,u1,u2+2").is_called("u4"));
    }

    #[test]
    fn what_an_agent_before_saw_stands_until_this_one_sees_it_or_the_contrary() {
        use crate::{
            history::{Known, Last, Left},
            watch::ProxyView,
        };
        let finding = standing(Kind::UpstreamDown, "api", None, Severity::Critical, -50).finding;
        let last = |pid| Last {
            time: at(-10),
            boot: "".into(),
            findings: vec![Left { finding: finding.clone(), seen: None, severe_since: None }],
            proxies: [("nginx".into(), Known { pid, reloaded: Some(at(-100)) })].into(),
        };
        let now = |established, pid: Option<u32>| {
            let mut seen = seen(&[("api", SHARED, established, 0)], &[("api", SHARED)]);
            seen.view.proxies = pid
                .map(|pid| ("nginx".into(), ProxyView { pid, ..Default::default() }))
                .into_iter()
                .collect();
            seen
        };
        // What it sees now, by the pid of the proxy; how many stand, and why one does no more.
        let rows: [(&str, Seen, usize, Option<&str>); 5] = [
            ("nothing new", now(0, Some(7)), 1, None),
            ("it works", now(1, Some(7)), 0, Some("contrary")),
            ("another process", now(0, Some(8)), 0, Some("anew")),
            ("none any more", now(0, None), 0, Some("ended")),
            ("not known yet", Seen { started: false, ..now(0, None) }, 1, None),
        ];
        for (name, mut seen, stand, because) in rows {
            let (last, gone) = seen.inherit(last(7));
            assert_eq!(last.findings.len(), stand, "{name}");
            let words: Vec<_> = gone.iter().map(|record| serde_json::to_string(record).unwrap()).collect();
            assert_eq!(words.len(), usize::from(because.is_some()), "{name}");
            assert!(because.is_none_or(|because| words[0].contains(because)), "{name}: {words:?}");
        }
        let mut seen = now(0, Some(7));
        seen.findings.push(Standing::now(finding.clone()));
        let (last, gone) = seen.inherit(last(7));
        assert!(
            last.findings.is_empty() && gone.is_empty() && seen.findings.len() == 1,
            "this one sees it itself"
        );
    }
}
