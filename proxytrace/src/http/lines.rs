//! `/records`, `/minutes` and `/changes`: what the agent remembers and sees, as lines of JSON.

use std::sync::Arc;

use hyper::StatusCode;
use jiff::Timestamp;
use tokio::sync::Semaphore;

use super::{Answer, body::Body, connections::Place, plain, response};
use crate::{
    feed::Channel,
    history::{Follows, History},
};

/// So many clients read at once, those that follow among them.
pub(super) const MAX_READERS: usize = 64;

const NDJSON: &str = "application/x-ndjson";

/// What a request asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Asked {
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    follows: Follows,
}

/// What is remembered, and where that is asked for what comes.
pub(super) fn records(
    query: Option<&str>,
    is_root: bool,
    place: &Arc<Place>,
    history: &History,
    readers: &Arc<Semaphore>,
) -> Answer {
    let asked = match asked(query.unwrap_or_default()) {
        Ok(asked) => asked,
        Err(why) => return plain(StatusCode::BAD_REQUEST, why),
    };
    if asked.follows == Follows::All && !is_root {
        return plain(StatusCode::FORBIDDEN, "all=1 costs the proxies something: only root may ask for it\n");
    }
    let Ok(permit) = Arc::clone(readers).try_acquire_owned() else { return busy() };
    let reading = place.begin_reading(asked.follows != Follows::Nothing);
    let lines = history.read(asked.since, asked.until, asked.follows);
    response(StatusCode::OK, NDJSON, Body::history(lines, (reading, permit)))
}

/// What was counted in each minute.
pub(super) fn minutes(
    query: Option<&str>,
    place: &Arc<Place>,
    history: &History,
    readers: &Arc<Semaphore>,
) -> Answer {
    let asked = match asked(query.unwrap_or_default()) {
        Ok(asked) if asked.follows == Follows::Nothing => asked,
        Ok(_) => return plain(StatusCode::BAD_REQUEST, "minutes cannot be followed: ask again\n"),
        Err(why) => return plain(StatusCode::BAD_REQUEST, why),
    };
    let Ok(permit) = Arc::clone(readers).try_acquire_owned() else { return busy() };
    let lines = history.between(asked.since, asked.until);
    response(StatusCode::OK, NDJSON, Body::lines(lines, (place.begin_reading(false), permit)))
}

/// What changes, for a command that loads no programs of its own.
pub(super) fn changes(
    is_root: bool,
    place: &Arc<Place>,
    channel: &Channel,
    readers: &Arc<Semaphore>,
) -> Answer {
    if !is_root {
        return plain(
            StatusCode::FORBIDDEN,
            "the agent looks more often for that: only root may ask for it\n",
        );
    }
    let Ok(permit) = Arc::clone(readers).try_acquire_owned() else { return busy() };
    response(StatusCode::OK, NDJSON, Body::changes(channel.subscribe(), (place.begin_reading(true), permit)))
}

pub(super) fn busy() -> Answer {
    plain(StatusCode::SERVICE_UNAVAILABLE, format!("{MAX_READERS} clients read already: ask again later\n"))
}

/// Reads the part of a request behind the `?`. What is not known is an error: it would be taken for what it is not.
fn asked(query: &str) -> Result<Asked, String> {
    let mut asked = Asked::default();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let time = || {
            let text = value.replace("%3A", ":").replace("%3a", ":").replace("%2B", "+").replace("%2b", "+");
            match text.as_str() {
                "now" => Ok(Timestamp::now()),
                text => text.parse().map_err(|_| format!("{name}: not a time; write 2026-11-22T06:39:51Z\n")),
            }
        };
        match (name, value) {
            ("since", _) => asked.since = Some(time()?),
            ("until", _) => asked.until = Some(time()?),
            ("follow", "1") if asked.follows == Follows::Nothing => asked.follows = Follows::Failures,
            // Whoever follows all follows.
            ("follow" | "all", "0") | ("follow", "1") => {}
            ("all", "1") => asked.follows = Follows::All,
            ("follow" | "all", _) => return Err(format!("{name}: write {name}=1\n")),
            _ => return Err("unknown parameter; there are since, until, follow and all\n".to_owned()),
        }
    }
    if asked.follows != Follows::Nothing && asked.until.is_some() {
        return Err("what is followed has no end: leave out until\n".to_owned());
    }
    Ok(asked)
}

#[cfg(test)]
mod tests {
    use super::{Asked, Follows, asked};

    #[test]
    fn questions_are_read_and_what_is_not_understood_is_refused() {
        let since = Some("2026-11-22T06:39:51Z".parse().unwrap());
        assert_eq!(asked(""), Ok(Asked::default()));
        let expected = Asked { since, follows: Follows::Failures, until: None };
        assert_eq!(asked("since=2026-11-22T06:39:51Z&follow=1"), Ok(expected));
        assert_eq!(asked("since=2026-11-22T06%3A39%3A51Z&follow=1"), Ok(expected));
        let all = Asked { follows: Follows::All, ..Asked::default() };
        assert_eq!(
            [asked("all=1"), asked("follow=1&all=1"), asked("all=1&follow=1")],
            [(); 3].map(|()| Ok(all))
        );
        for wrong in ["since=soon", "follow=yes", "colour=blue", "until=now&follow=1"] {
            assert!(asked(wrong).is_err(), "{wrong}");
        }
    }
}
