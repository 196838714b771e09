//! What `/readyz` says: the agent's loops leave behind how they are, so that it waits for nobody.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use crate::http::Readiness;

/// The first configurations are waited for, but whoever keeps the reader busy, with a configuration that never ends, cannot hold
/// readiness up for longer.
const FIRST_ANSWERS: Duration = Duration::from_secs(12);

/// A loop that has not come round for so long stands still.
const STUCK: Duration = Duration::from_secs(5);

/// So many proxies without names are listed.
const MAX_LISTED: usize = 10;

/// A loop that has to come round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loop {
    /// Takes events out of the ring buffer.
    Events,
    /// Works on them.
    Work,
}

impl Loop {
    const ALL: [Self; 2] = [Self::Events, Self::Work];

    const fn name(self) -> &'static str {
        match self {
            Self::Events => "the loop that takes events from the kernel",
            Self::Work => "the loop that works on events",
        }
    }
}

/// How the agent is.
#[derive(Debug)]
pub struct Health {
    started: Instant,
    /// Of each loop: when it last came round, in milliseconds since the start.
    rounds: [AtomicU64; 2],
    is_answered: AtomicBool,
    words: Mutex<Words>,
}

#[derive(Debug, Default)]
struct Words {
    trouble: Option<String>,
    unnamed: Vec<Arc<str>>,
}

impl Health {
    /// Of an agent whose hooks have just been attached.
    #[must_use]
    pub fn new() -> Self {
        Self {
            started: Instant::now(),
            rounds: Default::default(),
            is_answered: AtomicBool::new(false),
            words: Mutex::default(),
        }
    }

    /// The loop has come round.
    pub fn note_round(&self, of: Loop) {
        self.rounds[of as usize].store(millis(self.started.elapsed()), Relaxed);
    }

    /// The configurations of the proxies that ran at the start are known, or were given up.
    pub fn note_answered(&self) {
        self.is_answered.store(true, Relaxed);
    }

    /// Why the kernel's counts cannot be read, if that is so now.
    pub fn note_trouble(&self, trouble: Option<String>) {
        self.words().trouble = trouble;
    }

    /// The proxies whose upstreams cannot be named now.
    pub fn note_unnamed(&self, unnamed: Vec<Arc<str>>) {
        self.words().unnamed = unnamed;
    }

    /// Whether the loops come round.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.stuck_at(self.started.elapsed()).is_none()
    }

    /// A loop that stands still, and for how long.
    fn stuck_at(&self, age: Duration) -> Option<(Loop, Duration)> {
        Loop::ALL.into_iter().find_map(|of| {
            let still = age.saturating_sub(Duration::from_millis(self.rounds[of as usize].load(Relaxed)));
            (still >= STUCK).then_some((of, still))
        })
    }

    fn words(&self) -> MutexGuard<'_, Words> {
        self.words.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn readiness_at(&self, age: Duration) -> Result<String, String> {
        if let Some((of, still)) = self.stuck_at(age) {
            return Err(format!(
                "not ready: {} stands still for {} s; send what `cat /proc/PID/task/*/wchan` says with a report\n",
                of.name(),
                still.as_secs()
            ));
        }
        if !self.is_answered.load(Relaxed) && age < FIRST_ANSWERS {
            return Err(
                "not ready: the proxies' configurations are being read; ask again in a moment\n".to_owned()
            );
        }
        let words = self.words();
        if let Some(trouble) = &words.trouble {
            return Err(format!("not ready: {trouble}\n"));
        }
        Ok(match &*words.unnamed {
            [] => "ready\n".to_owned(),
            unnamed => {
                let listed = unnamed.iter().take(MAX_LISTED).map(|name| format!("{name}\n"));
                let rest = match unnamed.len().saturating_sub(MAX_LISTED) {
                    0 => String::new(),
                    more => format!("and {more} more\n"),
                };
                format!(
                    "ready, but upstreams are unknown, as the configuration could not be read, of\n{}{rest}",
                    listed.collect::<String>()
                )
            }
        })
    }
}

impl Default for Health {
    fn default() -> Self {
        Self::new()
    }
}

impl Readiness for Health {
    fn readiness(&self) -> Result<String, String> {
        self.readiness_at(self.started.elapsed())
    }
}

fn millis(time: Duration) -> u64 {
    time.as_millis().try_into().unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::{sync::atomic::Ordering::Relaxed, time::Duration};

    use super::{FIRST_ANSWERS, Health, Loop, STUCK, millis};

    /// An agent of that age whose loops have just come round.
    fn healthy(age: Duration) -> Health {
        let health = Health::new();
        health.rounds.iter().for_each(|round| round.store(millis(age), Relaxed));
        health
    }

    #[test]
    fn the_first_configurations_are_waited_for_and_not_for_ever() {
        let soon = Duration::from_secs(1);
        let health = healthy(soon);
        assert!(health.readiness_at(soon).unwrap_err().contains("being read"));
        health.note_answered();
        assert_eq!(health.readiness_at(soon).unwrap(), "ready\n");
        assert_eq!(healthy(FIRST_ANSWERS).readiness_at(FIRST_ANSWERS).unwrap(), "ready\n");
    }

    #[test]
    fn a_loop_that_stands_still_and_a_kernel_that_cannot_be_read_are_not_ready() {
        let age = Duration::from_secs(60);
        for of in Loop::ALL {
            let health = healthy(age);
            health.rounds[of as usize].store(millis(age.checked_sub(STUCK).unwrap()), Relaxed);
            assert!(health.readiness_at(age).unwrap_err().contains(of.name()));
            assert!(health.stuck_at(age).is_some(), "the service manager hears nothing");
        }
        let health = healthy(age);
        health.note_trouble(Some("kernel map LEDGER: gone".to_owned()));
        assert_eq!(health.readiness_at(age).unwrap_err(), "not ready: kernel map LEDGER: gone\n");
        assert!(health.stuck_at(age).is_none(), "starting again would not help");
        health.note_trouble(None);
        assert_eq!(health.readiness_at(age).unwrap(), "ready\n");
    }

    #[test]
    fn names_that_are_missing_are_said_and_leave_it_ready() {
        let age = Duration::from_secs(60);
        let health = healthy(age);
        health.note_unnamed((0..12).map(|n| format!("nginx-{n}").into()).collect());
        let text = health.readiness_at(age).unwrap();
        assert!(
            text.starts_with("ready, but upstreams are unknown") && text.contains("nginx-9\nand 2 more\n"),
            "{text}"
        );
    }
}
