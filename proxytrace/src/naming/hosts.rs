//! The host names of one configuration: when each is looked up, and what the answers were. Of a name nobody is asked more often than its
//! answer holds. Pure: the time is an argument.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use jiff::Timestamp;

use super::answers::Answers;
use crate::{
    declared::Routes,
    reader::{FoundName, Lookup},
};

/// More names of one proxy are not looked up.
pub(super) const MAX_NAMES: usize = 4096;

/// For so long an answer is waited for: more than it takes to give those up that nobody answers for (8 s).
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(12);

/// Names that the proxy follows are not looked up more often, whatever their answers say, or how many addresses are new.
const MIN_FOLLOWED: Duration = Duration::from_secs(1);

/// Names that it looked up once are not looked up again more often: who asks a server.
const MIN_FIXED: Duration = Duration::from_secs(60);

/// The same of names that stand in a file.
const MIN_OF_FILE: Duration = Duration::from_secs(5);

/// How long an answer holds that no name server gave a time for.
const UNLIMITED: Duration = Duration::from_secs(30);

/// What nobody waits for is looked up after so many times of that.
const UNHURRIED: u32 = 2;

/// And after so long at least.
const MIN_UNHURRIED: Duration = Duration::from_secs(60);

/// What is due within that is asked for together.
const TOGETHER: Duration = Duration::from_secs(10);

/// The names, by their keys ([`Lookup::key`]).
#[derive(Debug)]
pub(super) struct Hosts {
    of: HashMap<String, Host>,
    /// Since when they are known.
    since: Instant,
    /// Each has been looked up, with whatever success. Kept, as it is asked for each address.
    is_complete: bool,
    /// How many there are besides, which are not looked up.
    pub(super) left_out: usize,
    /// A question about some is on its way, since then.
    asked: Option<Instant>,
}

/// A name.
#[derive(Debug)]
pub(super) struct Host {
    lookup: Lookup,
    /// The proxy looks it up while it runs.
    pub(super) is_followed: bool,
    /// How long its answers hold, where the configuration says so.
    valid: Option<Duration>,
    last: Option<Last>,
    asked: Option<Instant>,
    /// Somebody would like to know more, so that it is looked up as soon as that is right.
    is_wanted: bool,
    /// What the answers were.
    pub(super) answers: Answers,
}

/// The look-up of a name that was the last.
#[derive(Clone, Copy, Debug)]
struct Last {
    begun: Instant,
    ended: Instant,
    ttl: Option<Duration>,
    is_of_file: bool,
    /// It was for the generation before. The proxy has looked it up anew since, if it is not followed.
    is_inherited: bool,
}

impl Hosts {
    /// The names of a configuration.
    pub(super) fn new(now: Instant, routes: &Routes) -> Self {
        let mut hosts = Self { of: HashMap::new(), since: now, is_complete: false, left_out: 0, asked: None };
        for (lookup, valid_ms) in Lookup::followed(routes) {
            hosts.add(lookup, true, valid_ms.map(Duration::from_millis));
        }
        for lookup in Lookup::fixed(routes) {
            hosts.add(lookup, false, None);
        }
        hosts.note_complete();
        hosts
    }

    fn add(&mut self, lookup: Lookup, is_followed: bool, valid: Option<Duration>) {
        let key = lookup.key();
        if self.of.contains_key(&key) {
            return;
        }
        if self.of.len() >= MAX_NAMES {
            self.left_out += 1;
            return;
        }
        let (last, asked, is_wanted, answers) = (None, None, false, Answers::default());
        self.of.insert(key, Host { lookup, is_followed, valid, last, asked, is_wanted, answers });
    }

    /// Takes over when names were looked up that an older generation has as well. Gives their keys, and whether they are followed.
    pub(super) fn inherit(&mut self, older: &Self) -> Vec<(String, bool)> {
        let mut inherited = Vec::new();
        for (key, host) in &mut self.of {
            let same = older.of.get(key).filter(|older| older.is_followed == host.is_followed);
            if let Some(last) = same.and_then(|older| older.last) {
                host.last = Some(Last { is_inherited: true, ..last });
                inherited.push((key.clone(), host.is_followed));
            }
        }
        self.note_complete();
        inherited
    }

    /// What is known of a name.
    pub(super) fn get(&self, key: &str) -> Option<&Host> {
        self.of.get(key)
    }

    /// Whether there is nothing to look up.
    pub(super) fn is_empty(&self) -> bool {
        self.of.is_empty()
    }

    /// Whether each has been looked up, with whatever success.
    pub(super) const fn is_complete(&self) -> bool {
        self.is_complete
    }

    fn note_complete(&mut self) {
        self.is_complete = self.of.values().all(|host| host.last.is_some());
    }

    /// Whether the first answers are still to come.
    pub(super) fn is_waiting(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) < ANSWER_TIMEOUT && !self.is_complete()
    }

    /// Whether an answer is on its way.
    pub(super) fn is_asked(&self, now: Instant) -> bool {
        self.asked.is_some_and(|since| now.saturating_duration_since(since) < ANSWER_TIMEOUT)
    }

    /// Somebody would like to know more of a name.
    pub(super) fn want(&mut self, key: &str, which: impl Fn(&Host) -> bool) {
        if let Some(host) = self.of.get_mut(key).filter(|host| which(host)) {
            host.is_wanted = true;
        }
    }

    /// What is to be looked up now.
    pub(super) fn due(&self, now: Instant) -> Vec<Lookup> {
        if self.is_asked(now) || !self.of.values().any(|host| host.is_due(now, Duration::ZERO)) {
            return Vec::new();
        }
        self.of.values().filter(|host| host.is_due(now, TOGETHER)).map(|host| host.lookup.clone()).collect()
    }

    /// These are being looked up from now on, as far as they are of it.
    pub(super) fn note_asked(&mut self, now: Instant, lookups: &[Lookup]) {
        for lookup in lookups {
            if let Some(host) = self.of.get_mut(&lookup.key()) {
                host.asked = Some(now);
                self.asked = Some(now);
            }
        }
    }

    /// The look-up has ended; those that are not `found` got no answer.
    pub(super) fn note_answer(&mut self, (now, time): (Instant, Timestamp), found: &[FoundName]) {
        self.asked = None;
        let found: HashMap<&str, &FoundName> = found.iter().map(|found| (&*found.key, found)).collect();
        for (key, host) in &mut self.of {
            let Some(begun) = host.asked.take() else { continue };
            let found = found.get(&**key);
            let ttl = found.and_then(|found| found.ttl_seconds).map(|ttl| Duration::from_secs(ttl.into()));
            let is_of_file = found.is_some_and(|found| found.is_of_file);
            host.last = Some(Last { begun, ended: now, ttl, is_of_file, is_inherited: false });
            host.is_wanted = false;
            if let Some(found) = found {
                host.answers.add((begun, time), found.addresses.iter().map(std::net::SocketAddr::ip));
            }
        }
        self.note_complete();
    }

    /// All names with what is known of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&String, &Host)> {
        self.of.iter()
    }

    /// It is so much later.
    #[cfg(test)]
    pub(super) fn age(&mut self, time: Duration) {
        self.since -= time;
        for last in self.of.values_mut().filter_map(|host| host.last.as_mut()) {
            (last.begun, last.ended) = (last.begun - time, last.ended - time);
        }
    }

    /// Nothing is ever looked up.
    pub(super) fn give_up(&mut self) {
        self.of.clear();
    }
}

impl Host {
    /// Whether a look-up that was begun after that has ended.
    pub(super) fn is_looked_up_since(&self, moment: Instant) -> bool {
        self.last.is_some_and(|last| last.begun > moment)
    }

    /// How long nobody is asked again.
    fn least(&self, last: Last) -> Duration {
        if self.is_followed {
            return self.valid.or(last.ttl).unwrap_or(UNLIMITED).max(MIN_FOLLOWED);
        }
        match last {
            Last { is_of_file: true, .. } => MIN_OF_FILE,
            // The proxy has asked as well, with the reload.
            Last { is_inherited: true, ttl: Some(ttl), .. } => ttl,
            Last { ttl, .. } => ttl.unwrap_or_default().max(MIN_FIXED),
        }
    }

    fn is_due(&self, now: Instant, early: Duration) -> bool {
        if self.asked.is_some_and(|since| now.saturating_duration_since(since) < ANSWER_TIMEOUT) {
            return false;
        }
        let Some(last) = self.last else { return true };
        let (least, age) = (self.least(last), now.saturating_duration_since(last.ended));
        // It was looked up for another generation, and what the proxy found since may be something else.
        let is_stale = last.is_inherited && !self.is_followed;
        let unhurried =
            if is_stale || self.is_wanted { least } else { (least * UNHURRIED).max(MIN_UNHURRIED) };
        age >= least && age + early >= unhurried
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{ANSWER_TIMEOUT, Hosts};
    use crate::{nginx::tests::routes_of, reader::FoundName};

    const TEXT: &str = "http { resolver 10.0.0.53 valid=5s;
        upstream api { server api.test:80; } upstream web { zone z 1m; server web.test:80 resolve; } }";

    struct Scene {
        hosts: Hosts,
        now: Instant,
    }

    impl Scene {
        fn new() -> Self {
            let now = Instant::now();
            Self { hosts: Hosts::new(now, &routes_of(TEXT)), now }
        }

        fn wait(&mut self, seconds: u64) {
            self.now += Duration::from_secs(seconds);
        }

        /// Asks for what is due, and gives that; answers with a time to live.
        fn turn(&mut self, ttl_seconds: Option<u32>, is_of_file: bool) -> Vec<String> {
            let due = self.hosts.due(self.now);
            let mut keys: Vec<_> = due.iter().map(super::Lookup::key).collect();
            keys.sort();
            if !due.is_empty() {
                self.hosts.note_asked(self.now, &due);
                let found = |key: &String| FoundName {
                    key: key.clone(),
                    addresses: Vec::new(),
                    ttl_seconds,
                    is_of_file,
                };
                self.hosts.note_answer(
                    (self.now, jiff::Timestamp::UNIX_EPOCH),
                    &keys.iter().map(found).collect::<Vec<_>>(),
                );
            }
            keys
        }
    }

    const API: &str = "api.test";
    const WEB: &str = "web.test@10.0.0.53:53";

    #[test]
    fn nobody_is_asked_for_a_name_more_often_than_its_answer_holds() {
        let mut scene = Scene::new();
        assert!(!scene.hosts.is_complete());
        assert_eq!(scene.turn(Some(90), false), [API, WEB]);
        assert!(scene.hosts.is_complete());
        scene.wait(4);
        scene.hosts.want(WEB, |_| true);
        scene.hosts.want(API, |_| true);
        assert!(scene.turn(Some(90), false).is_empty(), "`valid=` says how long it holds");
        scene.wait(1);
        assert_eq!(scene.turn(Some(90), false), [WEB]);
        scene.wait(80);
        assert_eq!(scene.turn(Some(90), false), [WEB], "what nobody waits for has time");
        scene.wait(5);
        assert_eq!(scene.turn(Some(90), false), [API], "after 90 s, as it is wanted");
        scene.wait(60);
        assert_eq!(scene.turn(Some(1), false), [WEB]);
        scene.wait(109);
        assert_eq!(scene.turn(Some(1), false), [WEB]);
        scene.wait(11);
        assert_eq!(scene.turn(Some(1), false), [API]);
        scene.hosts.want(API, |_| true);
        scene.wait(59);
        assert!(
            !scene.turn(Some(1), false).contains(&API.to_owned()),
            "a name that is not followed, once a minute"
        );
        scene.wait(1);
        assert_eq!(scene.turn(Some(1), false), [API]);
    }

    #[test]
    fn what_stands_in_a_file_may_be_read_again() {
        let mut scene = Scene::new();
        scene.turn(None, true);
        scene.wait(4);
        scene.hosts.want(API, |_| true);
        assert!(scene.turn(None, true).is_empty());
        scene.wait(1);
        scene.hosts.want(API, |_| true);
        assert_eq!(scene.turn(None, true), [API]);
    }

    #[test]
    fn an_answer_that_does_not_come_is_asked_for_again() {
        let mut scene = Scene::new();
        let due = scene.hosts.due(scene.now);
        scene.hosts.note_asked(scene.now, &due);
        scene.wait(11);
        assert!(scene.hosts.is_asked(scene.now) && scene.hosts.due(scene.now).is_empty());
        scene.wait(ANSWER_TIMEOUT.as_secs() - 11);
        assert_eq!(scene.turn(None, false), [API, WEB]);
    }

    #[test]
    fn after_a_reload_a_name_is_looked_up_when_its_answer_holds_no_more() {
        let mut scene = Scene::new();
        scene.turn(Some(30), false);
        scene.wait(20);
        let mut newer = Hosts::new(scene.now, &routes_of(TEXT));
        let mut inherited = newer.inherit(&scene.hosts);
        inherited.sort();
        assert_eq!(inherited, [(API.to_owned(), false), (WEB.to_owned(), true)]);
        let mut scene = Scene { hosts: newer, now: scene.now };
        assert!(scene.hosts.is_complete());
        assert!(scene.turn(Some(30), false).is_empty());
        scene.wait(10);
        assert_eq!(scene.turn(Some(30), false), [API]);
        scene.wait(45);
        assert_eq!(
            scene.turn(Some(30), false),
            [WEB],
            "a followed one holds on from one generation to the next"
        );
    }
}
