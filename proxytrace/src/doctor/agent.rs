//! Whether an agent runs on this host, and what it sees.

use std::path::Path;

use super::report::Check;
use crate::{
    client::{Agent, Error},
    model::Severity,
    status::Status,
};

const NAME: &str = "agent";

/// Asks the agent at that socket. That there is none is no gap.
pub(super) async fn check(socket: Option<&Path>) -> Option<Check> {
    let socket = socket?;
    let asked = async { Agent::find(socket).await?.status().await };
    Some(found(socket, asked.await))
}

fn found(socket: &Path, answer: Result<Status, Error>) -> Check {
    match answer {
        Ok(status) => Check::ok(NAME, words(&status)),
        Err(Error::Absent(_)) => {
            let found =
                format!("none listens at {}; with one, `status` knows what was before", socket.display());
            Check::ok(NAME, found)
        }
        Err(error @ Error::Refused(_)) => {
            Check::costs(NAME, error.to_string(), "commands of this user trace by themselves", "as it says")
        }
        Err(error) => {
            let fix = "restart the agent; its log says more";
            Check::costs(
                NAME,
                error.to_string(),
                "commands trace by themselves, and do not know what happened earlier",
                fix,
            )
        }
    }
}

fn words(status: &Status) -> String {
    let count = |number: usize, what: &str| match number {
        1 => format!("1 {what}"),
        number => {
            format!("{number} {}", if what == "proxy" { "proxies".to_owned() } else { format!("{what}s") })
        }
    };
    let wrong = status.findings.iter().filter(|standing| standing.finding.severity > Severity::Info).count();
    let since = status.since.strftime("%Y-%m-%d %H:%M:%SZ");
    let findings = match wrong {
        0 if !status.started => "not all is known yet".to_owned(),
        0 => "nothing is wrong".to_owned(),
        wrong => format!("{}: see `proxytrace status`", count(wrong, "finding")),
    };
    let [proxies, upstreams] =
        [count(status.proxies.len(), "proxy"), count(status.upstreams.len(), "upstream")];
    format!("watches since {since}: {proxies}, {upstreams}; {findings}")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::found;
    use crate::{
        client::Error,
        doctor::report::State,
        status::{Source, Status},
    };

    #[test]
    fn an_agent_that_is_not_there_is_no_gap_and_one_that_speaks_otherwise_is() {
        let path = Path::new("/run/a.sock");
        let absent = found(path, Err(Error::Absent(path.to_owned())));
        assert_eq!(absent.state, State::Ok);
        let other = found(path, Err(Error::Protocol { path: path.to_owned(), agent: "9".to_owned() }));
        assert!(other.state == State::Costs && other.found.contains("protocol 9"), "{other:?}");
        let time = "2026-11-22T06:39:51Z".parse().unwrap();
        let status = Status {
            started: true,
            traced: None,
            time,
            version: String::new(),
            source: Source::Agent,
            since: time,
            recent_since: time,
            findings: Vec::new(),
            proxies: Vec::new(),
            upstreams: Vec::new(),
        };
        let well = found(path, Ok(status));
        assert_eq!(
            well.found,
            "watches since 2026-11-22 06:39:51Z: 0 proxies, 0 upstreams; nothing is wrong"
        );
    }
}
