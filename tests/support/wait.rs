//! Waiting for something to become true, never for time to pass.

use std::thread;
use std::time::{Duration, Instant};

/// Long enough for anything that should happen at once, also on a busy machine.
pub const SOON: Duration = Duration::from_secs(10);

/// Asks again and again until there is an answer; panics with `what` when there is none in that time.
#[track_caller]
pub fn until<T>(what: &str, time: Duration, ask: impl FnMut() -> Option<T>) -> T {
    match within(time, ask) {
        Some(answer) => answer,
        None => panic!("waited {time:?} in vain: {what}"),
    }
}

/// Waits until `condition` holds; panics with `what` when it does not in that time.
#[track_caller]
pub fn until_true(what: &str, time: Duration, mut condition: impl FnMut() -> bool) {
    until(what, time, || condition().then_some(()));
}

/// Asks again and again until there is an answer; `None` when there is none in that time.
pub fn within<T>(time: Duration, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + time;
    loop {
        let answer = ask();
        if answer.is_some() || Instant::now() > deadline {
            return answer;
        }
        thread::sleep(Duration::from_millis(5));
    }
}
