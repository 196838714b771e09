//! Waiting for something to become true; for time to pass only where nothing signals it.

use std::sync::LazyLock;
use std::thread;
use std::time::{Duration, Instant};

/// Long enough for anything that should happen at once, also on a busy machine.
pub const SOON: Duration = Duration::from_secs(10);

/// The pause before it is asked again, at least; and as a part of the time that it has taken so far, because each time
/// costs something as well, and slows down what is waited for.
const PAUSE: Duration = Duration::from_millis(5);
const PAUSE_PART: u32 = 20;

/// How many times longer everything may take here (`PROXYTRACE_TEST_PATIENCE`): more than once where the processor is
/// emulated.
static SLOWNESS: LazyLock<u32> = LazyLock::new(|| {
    let patience = std::env::var("PROXYTRACE_TEST_PATIENCE");
    patience.map_or(1, |text| text.parse().expect("PROXYTRACE_TEST_PATIENCE is a number"))
});

/// How long something may take on this machine that may take `time` on a usual one.
#[must_use]
pub fn patient(time: Duration) -> Duration {
    time * *SLOWNESS
}

/// Whether this machine is slower than a usual one.
#[must_use]
pub fn is_slow() -> bool {
    *SLOWNESS > 1
}

/// The kernel's timers count ticks. An emulated processor that stands still for a moment misses some and makes up for them
/// later, so that a timer that was started in between is early by as much: up to a turn of the emulator, which runs its
/// processors one after another (100 ms), on either end.
const EARLY: Duration = Duration::from_millis(200);

/// What must take at least that long by the kernel's timers, as it is measured on this machine.
#[must_use]
pub fn at_least(time: Duration) -> Duration {
    if is_slow() { time.saturating_sub(EARLY) } else { time }
}

/// Waits for a tick of an agent or a trace, which comes each second while all is well: the order of what came between two ticks
/// is unknown.
pub fn for_a_tick() {
    thread::sleep(Duration::from_millis(if is_slow() { 6000 } else { 1500 }));
}

/// Asks again and again until there is an answer; panics with `what` when there is none in that time, as [`patient`] as
/// the machine wants.
#[track_caller]
pub fn until<T>(what: &str, time: Duration, ask: impl FnMut() -> Option<T>) -> T {
    match within(time, ask) {
        Some(answer) => answer,
        None => panic!("waited {time:?} without result: {what}"),
    }
}

/// Waits until `condition` holds; panics with `what` when it does not in that time.
#[track_caller]
pub fn until_true(what: &str, time: Duration, mut condition: impl FnMut() -> bool) {
    until(what, time, || condition().then_some(()));
}

/// Asks again and again until there is an answer; `None` when there is none in that time.
pub fn within<T>(time: Duration, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let start = Instant::now();
    let deadline = start + patient(time);
    loop {
        let answer = ask();
        if answer.is_some() || Instant::now() > deadline {
            return answer;
        }
        thread::sleep(PAUSE.max(start.elapsed() / PAUSE_PART));
    }
}
