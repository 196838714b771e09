//! The set of the stories about findings: nginx, with `trace` and `agent` on the lookout for what is wrong.

use std::thread;
use std::time::{Duration, Instant};

use proxytrace_tests::netns::Netns;
use proxytrace_tests::nginx::{Nginx, Options, server};
use proxytrace_tests::proxytrace::{Agent, Record, Trace};
use proxytrace_tests::wait::{self, SOON, patient};

pub(crate) const BEFORE: &str = "127.0.0.1:8080";
pub(crate) const AFTER: &str = "127.0.0.1:8081";

/// nginx, with `trace` and `agent`. Services are to be started in its namespace.
pub(crate) struct Lookout {
    pub(crate) netns: Netns,
    pub(crate) nginx: Nginx,
    pub(crate) trace: Trace,
    pub(crate) agent: Agent,
}

/// One upstream, `api`, to which everything goes; a request is not tried twice.
pub(crate) fn api(address: &str) -> String {
    format!(
        "upstream api {{\nserver {address};\n}} {}",
        server("location / { proxy_pass http://api; proxy_next_upstream off; }")
    )
}

impl Lookout {
    pub(crate) fn begin(http: &str) -> Self {
        Self::with(http, &[])
    }

    /// `trace` and `agent` get more arguments.
    pub(crate) fn with(http: &str, more: &[&str]) -> Self {
        Self::on(Netns::new(), Options::default(), http, more)
    }

    /// nginx is run in another way, in a namespace that is there already.
    pub(crate) fn on(netns: Netns, options: Options, http: &str, more: &[&str]) -> Self {
        let nginx = Nginx::with(options, &netns, http);
        Self::beside(netns, nginx, more)
    }

    /// The same with an nginx that is started in another way, and perhaps used before anybody traces it.
    pub(crate) fn of(netns: Netns, start: impl FnOnce(&Netns) -> Nginx, more: &[&str]) -> Self {
        let nginx = start(&netns);
        Self::beside(netns, nginx, more)
    }

    fn beside(netns: Netns, nginx: Nginx, more: &[&str]) -> Self {
        let arguments = [&["--process", nginx.name()], more].concat();
        let (trace, agent) = (Trace::start(&arguments), Agent::start(&arguments));
        Self { netns, nginx, trace, agent }
    }

    #[track_caller]
    pub(crate) fn gets(&self, times: u64, status: u16) {
        for _ in 0..times {
            assert_eq!(self.nginx.get("/"), status, "nginx says: {}", self.nginx.error_log());
        }
    }

    /// The next finding is this, and the agent reports it too.
    #[track_caller]
    pub(crate) fn raised(&self, kind: &str, address: &str) -> Record {
        self.raised_while(SOON * 3, kind, address, || thread::sleep(Duration::from_millis(5)))
    }

    /// The same while something is done again and again, for so long at most.
    #[track_caller]
    pub(crate) fn raised_while(
        &self,
        time: Duration,
        kind: &str,
        address: &str,
        mut act: impl FnMut(),
    ) -> Record {
        let record = self.next_finding(time, &mut act);
        let reported = (&*record.finding, &*record.state, &*record.address, &*record.proxy);
        assert_eq!(reported, (kind, "raised", address, self.nginx.name()), "{record:?}");
        // The agent has ticks of its own: it may need what happens a moment later.
        wait::until_true(&format!("the agent to find {kind} too"), SOON, || {
            act();
            self.count("proxytrace_finding_active", &[("kind", kind)]) == 1
        });
        let finding = self.standing(kind);
        let sentence = finding["sentence"].as_str().unwrap_or_default();
        assert!(sentence.starts_with(&format!("{kind}: ")), "{finding}");
        wait::until_true("the agent's log to report it", SOON, || {
            self.agent.stderr().contains(&format!("finding: {kind}: "))
        });
        record
    }

    #[track_caller]
    pub(crate) fn cleared(&self, kind: &str) -> Record {
        self.cleared_while(SOON * 3, kind, || thread::sleep(Duration::from_millis(5)))
    }

    /// The same while something is done again and again, for so long at most.
    #[track_caller]
    pub(crate) fn cleared_while(&self, time: Duration, kind: &str, act: impl FnMut()) -> Record {
        let record = self.next_finding(time, act);
        assert_eq!((&*record.finding, &*record.state), (kind, "cleared"), "{record:?}");
        self.stands(kind, 0);
        record
    }

    #[track_caller]
    fn next_finding(&self, time: Duration, mut act: impl FnMut()) -> Record {
        let begun = Instant::now();
        loop {
            while let Some(record) = self.trace.within(Duration::ZERO) {
                if record.kind == "finding" {
                    return record;
                }
            }
            let took = begun.elapsed();
            assert!(took < patient(time), "no finding in {took:?}; trace says: {}", self.trace.stderr());
            act();
        }
    }

    #[track_caller]
    pub(crate) fn stands(&self, kind: &str, times: u64) {
        wait::until_true(&format!("{kind} to stand {times} times"), SOON, || {
            self.count("proxytrace_finding_active", &[("kind", kind)]) == times
        });
    }

    /// The first finding of a kind as the agent shows it now; null where there is none.
    #[track_caller]
    pub(crate) fn standing(&self, kind: &str) -> serde_json::Value {
        let page: serde_json::Value = serde_json::from_str(&self.agent.get("/findings").body).expect("JSON");
        let mut findings = page.as_array().expect("a list").iter();
        findings.find(|finding| finding["finding"] == kind).cloned().unwrap_or_default()
    }

    /// What the agent counts of this nginx.
    #[track_caller]
    pub(crate) fn count(&self, metric: &str, labels: &[(&str, &str)]) -> u64 {
        self.agent.metrics().count(metric, &[&[("proxy", self.nginx.name())], labels].concat())
    }

    /// No finding came, from the start until now.
    #[track_caller]
    pub(crate) fn end_quiet(self) {
        assert_eq!(self.agent.get("/findings").body, "[]");
        assert!(!self.agent.stderr().contains("finding:"), "{}", self.agent.stderr());
        let ended = self.trace.stop();
        let findings: Vec<_> = ended.records.iter().filter(|record| record.kind == "finding").collect();
        assert!(findings.is_empty(), "{findings:#?}");
        self.agent.stop();
    }
}
