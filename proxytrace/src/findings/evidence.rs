//! When a run of failures proves something, and when a run of successes proves the contrary.
//!
//! The rate of failures proves nothing: nginx leaves a dead peer alone after `max_fails`, and then there are few. What
//! proves is that nothing succeeds any more, in a run that is not to be expected from how things went before. A peer of
//! which every third connect fails now and then fails four times in a row, and that is no news; a peer that never failed and
//! then fails three times in a row is, however seldom it was used.
//!
//! A finding must not flap with the thing that it is about. So a success after a run that was taken as proof also unmakes
//! the past that the run was held against, and for an hour far more is asked of a proof.

use jiff::{SignedDuration, Timestamp};

/// Fewer failures in a row prove nothing: one can be a restart, and two its neighbour's.
pub(super) const MIN_FAILURES: u64 = 3;
/// A run proves something that would come about by chance less often than this.
const PROOF_CHANCE: f64 = 1e-4;
/// The same where a proof was refuted within [`REFUTED_TIMEOUT`]: at a thousand connects a second, by chance once in weeks.
const REPEATED_PROOF_CHANCE: f64 = 1e-9;
/// A run of so many over so long a time is proof whatever was before: one lone success among thousands must not hide an outage.
const LASTING: (u64, SignedDuration) = (20, SignedDuration::from_mins(10));
/// Failures of the tick of the last success are taken for the beginning of a run where so many would come less often than this by chance.
const TURNING_CHANCE: f64 = 0.1;
/// The share of failures that is believed in before anything was seen, as if it were that of one connect. Three failures are proof
/// then, and as many where a few succeeded and none failed.
const SUSPICION: f64 = 0.04;
/// A clean run that would come about by chance less often than this shows that a trouble is over. Nobody is hurt by a finding
/// that stays a little longer, but by one that comes and goes.
const OVER_CHANCE: f64 = 1e-6;
/// And no shorter one does: where few were seen, the past may have looked worse than it was.
const MIN_CLEAN: u64 = 20;
/// How long a refuted proof is remembered.
const REFUTED_TIMEOUT: SignedDuration = SignedDuration::from_hours(1);
/// What was seen longer ago than about so many attempts is gradually forgotten. In attempts and not in time, so that a quiet night
/// changes nothing.
const PAST_CAPACITY: f64 = 1024.0;

/// From the first failure to the last of an address whose neighbours are well. A restart is over by then; nginx, which leaves it
/// alone for `fail_timeout` (10 s) at a time, has tried it about six times.
pub(super) const RESTART_TIMEOUT: SignedDuration = SignedDuration::from_mins(1);

/// How things went before.
#[derive(Clone, Copy, Debug, Default)]
struct Past {
    good: f64,
    bad: f64,
}

/// What is believed before anything was seen, where the share of failures is doubted: half a success, and a twentieth of a failure.
const PRIOR: Past = Past { good: 0.5, bad: 0.05 };
/// A run is followed one by one so far, and from there with the chance of its last.
const ONE_BY_ONE: u64 = 64;

impl Past {
    fn add(&mut self, good: u64, bad: u64) {
        self.good += good as f64;
        self.bad += bad as f64;
        let excess = (self.good + self.bad) / PAST_CAPACITY;
        if excess > 1.0 {
            self.good /= excess;
            self.bad /= excess;
        }
    }

    fn reversed(self) -> Self {
        Self { good: self.bad, bad: self.good }
    }

    /// The share of failures. Each success makes it smaller and each failure larger, so a better past never asks for a longer run.
    fn share(self) -> f64 {
        (self.bad + SUSPICION) / (self.good + self.bad + 1.0)
    }

    /// How likely `more` failures in a row are, where the past is trusted.
    fn chance_of(self, more: u64) -> f64 {
        self.share().powi(i32::try_from(more).unwrap_or(i32::MAX))
    }

    /// How likely `more` failures are after a run of `run`, where the past may have looked better than things are: the run itself
    /// says how bad they are.
    fn chance(self, run: u64, more: u64) -> f64 {
        let next = |run: u64| {
            let bad = self.bad + PRIOR.bad + run as f64;
            bad / (bad + self.good + PRIOR.good)
        };
        let followed = more.min(ONE_BY_ONE);
        let chance = (run..run.saturating_add(followed)).map(next).product::<f64>();
        let rest = i32::try_from(more - followed).unwrap_or(i32::MAX);
        if rest == 0 { chance } else { chance * next(run.saturating_add(more)).powi(rest) }
    }
}

/// Failures in a row: proof that something is dead, which one success refutes.
#[derive(Clone, Debug, Default)]
pub(super) struct Streak {
    past: Past,
    run: u64,
    /// How likely the run is by chance, where the past is trusted and where it is doubted.
    chance: f64,
    doubting_chance: f64,
    span: Option<(Timestamp, Timestamp)>,
    refuted: Option<Timestamp>,
    is_proof: bool,
}

impl Streak {
    /// Takes in what was seen at one tick. The order within it is not known, so a success among failures ends the run.
    pub(super) fn add(&mut self, time: Timestamp, good: u64, bad: u64) {
        if good > 0 {
            self.end(time, good);
            self.past.add(0, bad);
        } else if bad > 0 {
            self.extend(time, bad);
        }
    }

    /// The same where what fails goes on failing: failures of the tick in which the last success was seen belong to the run that
    /// follows, unless as many were to be expected in some order. They are no proof by themselves, as they may have come first.
    pub(super) fn add_turning(&mut self, time: Timestamp, good: u64, bad: u64) {
        if good == 0 || bad == 0 {
            return self.add(time, good, bad);
        }
        self.end(time, good);
        let chance = orders(good, bad) * self.past.chance_of(bad);
        if chance < TURNING_CHANCE {
            self.run = bad;
            self.chance = chance;
            self.doubting_chance = orders(good, bad) * self.past.chance(0, bad);
            self.span = Some((time, time));
        } else {
            self.past.add(0, bad);
        }
    }

    /// Takes in failures that began before the last success: they say how often things fail, and belong to no run.
    pub(super) fn add_stray(&mut self, bad: u64) {
        self.past.add(0, bad);
    }

    /// Nothing was said of the run that is to end: so nothing will be refuted, and at most so many of its failures count.
    pub(super) fn dismiss(&mut self, bad: u64) {
        self.is_proof = false;
        self.run = self.run.min(bad);
    }

    fn end(&mut self, time: Timestamp, good: u64) {
        if self.is_proof {
            self.refuted = Some(time);
            self.past = Past::default();
        }
        self.past.add(good, self.run);
        (self.run, self.span, self.is_proof) = (0, None, false);
        (self.chance, self.doubting_chance) = (1.0, 1.0);
    }

    fn extend(&mut self, time: Timestamp, bad: u64) {
        if self.run == 0 {
            (self.chance, self.doubting_chance) = (1.0, 1.0);
        }
        self.chance *= self.past.chance_of(bad);
        self.doubting_chance *= self.past.chance(self.run, bad);
        self.run = self.run.saturating_add(bad);
        self.span = Some((self.span.map_or(time, |(first, _)| first), time));
        let is_wary = self.refuted.is_some_and(|refuted| time.duration_since(refuted) < REFUTED_TIMEOUT);
        let stands_out =
            if is_wary { self.doubting_chance < REPEATED_PROOF_CHANCE } else { self.chance < PROOF_CHANCE };
        let is_lasting = self.run >= LASTING.0 && self.length() >= LASTING.1;
        self.is_proof |= self.run >= MIN_FAILURES && (stands_out || is_lasting);
    }

    /// Whether the run is proof.
    pub(super) const fn is_proof(&self) -> bool {
        self.is_proof
    }

    /// How many failures there are since the last success.
    pub(super) const fn run(&self) -> u64 {
        self.run
    }

    /// When the run began.
    pub(super) fn since(&self) -> Option<Timestamp> {
        self.span.map(|(first, _)| first)
    }

    /// From the first failure of the run to the last.
    pub(super) fn length(&self) -> SignedDuration {
        self.span.map_or(SignedDuration::ZERO, |(first, last)| last.duration_since(first))
    }
}

/// In how many orders so many successes and failures may have come; many are infinitely many.
fn orders(good: u64, bad: u64) -> f64 {
    let few = good.min(bad);
    if few > ONE_BY_ONE {
        return f64::INFINITY;
    }
    (1..=few).map(|n| (good.max(bad) as f64 + n as f64) / n as f64).product()
}

/// Failures among successes, of a kind that a healthy host does not have at all: three are proof, and a clean run refutes it
/// that is far longer than those that came before.
#[derive(Clone, Debug, Default)]
pub(super) struct Trouble {
    past: Past,
    clean: u64,
    chance: f64,
    seen: u64,
    of: u64,
    since: Option<Timestamp>,
    is_proof: bool,
}

impl Trouble {
    /// Takes in what was seen at one tick.
    pub(super) fn add(&mut self, time: Timestamp, good: u64, bad: u64) {
        if bad > 0 || self.seen > 0 {
            self.of = self.of.saturating_add(good).saturating_add(bad);
        }
        if bad > 0 {
            self.past.add(self.clean.saturating_add(good), bad);
            self.clean = 0;
            self.seen = self.seen.saturating_add(bad);
            self.since.get_or_insert(time);
            self.is_proof |= self.seen >= MIN_FAILURES;
        } else if good > 0 && self.seen > 0 {
            let chance = if self.clean == 0 { 1.0 } else { self.chance };
            self.chance = chance * self.past.reversed().chance(self.clean, good);
            self.clean = self.clean.saturating_add(good);
            if self.clean >= MIN_CLEAN && self.chance < OVER_CHANCE {
                *self = Self { past: self.past, ..Self::default() };
            }
        }
    }

    /// Whether the trouble is proven and not over.
    pub(super) const fn is_proof(&self) -> bool {
        self.is_proof
    }

    /// How often it was seen since it began.
    pub(super) const fn seen(&self) -> u64 {
        self.seen
    }

    /// All attempts since then.
    pub(super) const fn of(&self) -> u64 {
        self.of
    }

    /// When it began.
    pub(super) const fn since(&self) -> Option<Timestamp> {
        self.since
    }
}

/// The table in docs/findings.md.
#[cfg(test)]
pub(super) mod docs {
    use super::{LASTING, Past, Streak, Timestamp};

    /// How many failures in a row are proof after such a past.
    pub(in crate::findings) fn needed(good: u64, bad: u64) -> usize {
        let mut streak = Streak { past: Past { good: good as f64, bad: bad as f64 }, ..Streak::default() };
        let mut is_proof = |_: &usize| {
            streak.add(Timestamp::UNIX_EPOCH, 0, 1);
            streak.is_proof()
        };
        (1..).find(|n| is_proof(n)).unwrap()
    }

    pub(in crate::findings) fn table() -> String {
        let line = |what: &str, good: u64, bad: u64| format!("| {what} | {} |\n", needed(good, bad));
        [
            "| what was seen of the address before | failures in a row that are proof |\n|---|---|\n"
                .to_owned(),
            line("nothing ever succeeded", 0, 0),
            line("one or more connects, and all succeeded", 1, 0),
            line("ten connects, of which one failed", 9, 1),
            line("some hundred connects, of which one in a hundred failed", 396, 4),
            line("the same, one in ten", 360, 40),
            line("the same, one in three", 200, 100),
            line("the same, half of them", 200, 200),
            format!("| anything | {}, if they extend over {} minutes |\n", LASTING.0, LASTING.1.as_mins()),
        ]
        .concat()
    }
}

#[cfg(test)]
mod tests {
    use super::{Streak, Timestamp, Trouble, docs::needed};

    fn at(tick: usize) -> Timestamp {
        Timestamp::from_millisecond(1_700_000_000_000 + 250 * tick as i64).unwrap()
    }

    /// Ticks as text, `+` a success, `-` a failure, a space between ticks; a number before a tick repeats it.
    fn ticks(text: &str) -> Vec<(u64, u64)> {
        let ticks = text.split_whitespace().flat_map(|tick| {
            let (times, tick) = tick.split_at(tick.find(['+', '-']).unwrap());
            let count = |mark| tick.matches(mark).count() as u64;
            std::iter::repeat_n((count('+'), count('-')), times.parse().unwrap_or(1))
        });
        ticks.collect()
    }

    fn streak(text: &str) -> Streak {
        let mut streak = Streak::default();
        ticks(text).into_iter().enumerate().for_each(|(n, (good, bad))| streak.add(at(n), good, bad));
        streak
    }

    fn trouble(text: &str) -> Trouble {
        let mut trouble = Trouble::default();
        ticks(text).into_iter().enumerate().for_each(|(n, (good, bad))| trouble.add(at(n), good, bad));
        trouble
    }

    #[test]
    fn a_streak_is_proof_when_it_stands_out_from_the_past() {
        let check = |text: &str, expected: bool| assert_eq!(streak(text).is_proof(), expected, "{text}");
        check("", false);
        check("- -", false);
        check("- - -", true);
        check("---", true);
        check("10+ 2-", false);
        check("10+ 3-", true);
        check("1000+ ---", true);
        check("1000+ +---", false);
        check("1+ 2-", false);
        check("1+ 3-", true);
        check("2+ 3-", true);
        check("50+ 50- + 50+ 3-", false);
        check("100+ 3- +", false);
        check("100+ 3- + 3-", false);
        check("100+ 3- + 500-", false);
        check("100+ 3- + 500+ 9-", true);
        check("5000- + 2300-", false);
        check("5000- + 2500-", true);
    }

    #[test]
    fn failures_of_the_turn_of_the_last_success_belong_to_the_run_that_follows() {
        let check = |text: &str, run: u64, is_proof: bool| {
            let mut streak = Streak::default();
            ticks(text)
                .into_iter()
                .enumerate()
                .for_each(|(n, (good, bad))| streak.add_turning(at(n), good, bad));
            assert_eq!((streak.run(), streak.is_proof()), (run, is_proof), "{text}");
        };
        check("++++++++++---", 3, false);
        check("++++++++++--- -", 4, true);
        check("20+ +- -", 2, false);
        check("20+ +- --", 3, true);
        check("20+- 2-", 2, false);
        check("20++++++----- --", 2, false);
        check("++++++++++--- ++ --", 2, false);
    }

    #[test]
    fn a_better_past_never_asks_for_more_failures() {
        for bad in 0..40 {
            for good in 1..200 {
                let (here, better, worse) = (needed(good, bad), needed(good + 1, bad), needed(good, bad + 1));
                assert!(better <= here && here <= worse, "{good} and {bad}: {better}, {here}, {worse}");
            }
        }
    }

    #[test]
    fn a_trouble_is_proof_until_a_clean_run_is_long_enough() {
        let check = |text: &str, expected: bool| assert_eq!(trouble(text).is_proof(), expected, "{text}");
        check("--", false);
        check("- 5+ - 5+ -", true);
        check("3- 3+", true);
        check("100- 19+", true);
        check("100- 20+", false);
        check("3- 300+", false);
        check("10+- 30+", true);
        check("10+- 100+", false);
        check("- 1000000+ - 1000000+ -", false);
    }

    /// The next of a row of numbers that looks random and is always the same.
    fn random(state: &mut u64) -> f64 {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*state >> 11) as f64 / (1_u64 << 53) as f64
    }

    #[test]
    fn nothing_flaps_at_a_constant_ratio() {
        let mut worst = (0, 0);
        for ratio in [0.001, 0.01, 0.05, 0.1, 0.3, 0.5, 0.7, 0.9, 0.97, 0.99, 0.999] {
            for seed in 0..40 {
                for max in [1, 2, 10] {
                    let (mut streak, mut trouble) = (Streak::default(), Trouble::default());
                    let mut state = seed * 7919 + 17;
                    let (mut raised_streak, mut raised_trouble) = (0, 0);
                    for tick in 0..2000 {
                        let attempts = 1 + (random(&mut state) * max as f64) as u64;
                        let bad = (0..attempts).filter(|_| random(&mut state) < ratio).count() as u64;
                        let was = (streak.is_proof(), trouble.is_proof());
                        streak.add(at(tick), attempts - bad, bad);
                        trouble.add(at(tick), attempts - bad, bad);
                        raised_streak += i32::from(streak.is_proof() && !was.0);
                        raised_trouble += i32::from(trouble.is_proof() && !was.1);
                    }
                    worst = (worst.0.max(raised_streak), worst.1.max(raised_trouble));
                    assert!(raised_streak <= 1, "ratio {ratio}, seed {seed}: {raised_streak} times");
                    assert!(
                        raised_trouble <= 1,
                        "trouble, ratio {ratio}, seed {seed}: {raised_trouble} times"
                    );
                }
            }
        }
        assert_eq!(worst, (1, 1));
    }
}
