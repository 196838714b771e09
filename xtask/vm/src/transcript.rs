//! What the console of a virtual machine says, line by line: how the stories went, and whether the kernel is well.

use crate::doctor::Doctor;

/// A line with one of these, so many times, means that the kernel is not well. One lockup may be the host's doing, when
/// it does not let the emulator run.
const TROUBLES: &[(&str, usize, &str)] = &[
    ("Kernel panic", 1, "the kernel panicked"),
    ("BUG: soft lockup", 2, "a processor was locked up twice"),
    ("self-detected stall on CPU", 2, "a processor stalled RCU twice"),
    ("detected stalls on CPUs", 2, "processors stalled RCU twice"),
    ("blocked for more than", 1, "a task was blocked for minutes"),
];

/// What ran under one profile, or was refused.
#[derive(Debug, Clone, Default)]
pub(crate) struct Run {
    pub(crate) profile: String,
    pub(crate) doctor: Option<Doctor>,
    pub(crate) doctor_status: Option<i32>,
    pub(crate) passed: usize,
    pub(crate) failed: Vec<Failed>,
    /// Of the stories, or of the refusal.
    pub(crate) status: Option<i32>,
    /// The lines that are none of ours.
    pub(crate) said: Vec<String>,
}

/// A story that failed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Failed {
    pub(crate) story: String,
    /// The first line of what it panicked with.
    pub(crate) reason: String,
}

/// Reads a console.
#[derive(Debug, Default)]
pub(crate) struct Transcript {
    /// `uname -rv`
    kernel: String,
    current: Option<Run>,
    seen: [usize; TROUBLES.len()],
    is_done: bool,
}

impl Transcript {
    /// Reads a line; gives the run that ends with it.
    pub(crate) fn read(&mut self, line: &str) -> Option<Run> {
        for (seen, (words, _, _)) in self.seen.iter_mut().zip(TROUBLES) {
            *seen += usize::from(line.contains(words));
        }
        match line.strip_prefix("vm: ") {
            Some(ours) => return self.follow(ours),
            None => {
                if let Some(run) = &mut self.current {
                    run.listen(line);
                }
            }
        }
        None
    }

    fn follow(&mut self, line: &str) -> Option<Run> {
        let (what, rest) = line.split_once(' ').unwrap_or((line, ""));
        match (what, &mut self.current) {
            ("kernel", _) => self.kernel = rest.to_owned(),
            ("begin", current) => *current = Some(Run { profile: rest.to_owned(), ..Run::default() }),
            ("end", _) => self.is_done = true,
            ("doctor", Some(run)) => match rest.strip_prefix("ended with ") {
                Some(status) => run.doctor_status = status.parse().ok(),
                None => run.doctor = serde_json::from_str(rest).ok(),
            },
            ("stories" | "refused", current) => {
                let mut run = current.take()?;
                run.status = rest.rsplit(' ').next().and_then(|status| status.parse().ok());
                return Some(run);
            }
            _ => {}
        }
        None
    }

    /// Why the machine cannot be trusted any more.
    pub(crate) fn trouble(&self) -> Option<&'static str> {
        let counted = self.seen.iter().zip(TROUBLES);
        counted.filter(|(seen, (_, enough, _))| *seen >= enough).map(|(_, (_, _, what))| *what).next()
    }

    /// The version that the distribution gave the kernel, which says more than its release: the word after `Debian`.
    pub(crate) fn version(&self) -> Option<&str> {
        self.kernel.split_whitespace().skip_while(|word| *word != "Debian").nth(1)
    }

    /// Whether it did all that it had to do.
    pub(crate) fn is_done(&self) -> bool {
        self.is_done
    }

    /// What was running when the machine ended.
    pub(crate) fn unfinished(self) -> Option<Run> {
        self.current
    }
}

impl Run {
    /// `test causes::ipv4::a_closed_port_refuses ... ok`. What a story and the program that it started said comes between the
    /// name and the verdict, so a story has failed where the runner shows its output: `---- ledger::every_count stdout ----`,
    /// a line of the thread that panicked, and then the reason.
    fn listen(&mut self, line: &str) {
        let story = line.strip_prefix("test ").and_then(|line| line.strip_suffix(" ... ok"));
        let output = line.strip_prefix("---- ").and_then(|line| line.strip_suffix(" stdout ----"));
        let is_reason = self.said.last().is_some_and(|line| line.contains(" panicked at "));
        match (story, output, self.failed.last_mut()) {
            (Some(_), ..) => self.passed += 1,
            (_, Some(name), _) => self.failed.push(Failed { story: name.to_owned(), reason: String::new() }),
            (.., Some(failed)) if is_reason => line.clone_into(&mut failed.reason),
            _ => {}
        }
        self.said.push(line.to_owned());
    }

    /// What is not as it must be under a profile.
    pub(crate) fn faults(&self) -> Vec<String> {
        let mut faults: Vec<String> =
            self.failed.iter().map(|Failed { story, reason }| format!("{story} failed: {reason}")).collect();
        match (&self.doctor, self.doctor_status) {
            (Some(doctor), Some(0 | 1)) => {
                let mute = doctor.hooks.iter().filter(|hook| hook.is_mute());
                faults.extend(mute.map(|hook| {
                    let via = hook.via.as_deref().unwrap_or_default();
                    format!("hook {} was attached ({via}), but never seen to fire", hook.name)
                }));
            }
            (None, _) => faults.push("proxytrace doctor --json printed no object".to_owned()),
            (Some(_), status) => faults.push(format!("proxytrace doctor ended with {}", shown(status))),
        }
        if self.failed.is_empty() && (self.status != Some(0) || self.passed == 0) {
            faults.push(format!(
                "{} stories passed, and their runner ended with {}",
                self.passed,
                shown(self.status)
            ));
        }
        faults
    }

    /// What is not as it must be where it has to refuse in these words.
    pub(crate) fn faults_of_refusal(&self, words: &[&str]) -> Vec<String> {
        let said = self.said.join("\n");
        let missing = words.iter().filter(|word| !said.contains(**word));
        let mut faults: Vec<_> =
            missing.map(|word| format!("{word:?} is not in what it said: {said}")).collect();
        if self.status != Some(3) {
            faults.push(format!("it ended with {} instead of 3: {said}", shown(self.status)));
        }
        faults
    }
}

fn shown(status: Option<i32>) -> String {
    status.map_or_else(|| "no status".to_owned(), |status| format!("status {status}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCTOR: &str = r#"vm: doctor {"verdict":"full","kernel":"6.1","checks":[],"hooks":[{"name":"connect","via":"fentry","refused":[],"seen":3},{"name":"fork","via":"tp_btf","seen":0}]}"#;

    fn read(lines: &[&str]) -> (Transcript, Vec<Run>) {
        let mut transcript = Transcript::default();
        let runs = lines.iter().filter_map(|line| transcript.read(line)).collect();
        (transcript, runs)
    }

    #[test]
    fn what_ran_under_a_profile_is_counted() {
        let (transcript, runs) = read(&[
            "vm: kernel 6.1.0-56-cloud-amd64 #1 SMP Debian 6.1.192-2 (2026-11-16)",
            "vm: begin kprobe",
            DOCTOR,
            "vm: doctor ended with 0",
            "running 2 tests",
            "test causes::ipv4::a_closed_port_refuses ... ok",
            "test unix::a_missing_file ... --- it said:",
            "2026-11-28T07:55:53Z  INFO serving http://127.0.0.1:12001/metrics",
            "FAILED",
            "",
            "failures:",
            "",
            "---- unix::a_missing_file stdout ----",
            "thread 'unix::a_missing_file' (176) panicked at tests/unix.rs:32:5:",
            "16 of 1320 were not seen",
            "failures:",
            "    unix::a_missing_file",
            "vm: stories ended with 101",
            "vm: end",
        ]);
        assert!(transcript.is_done() && transcript.trouble().is_none());
        assert_eq!(transcript.version(), Some("6.1.192-2"));
        let [run] = &runs[..] else { panic!("{runs:?}") };
        assert_eq!((&*run.profile, run.passed), ("kprobe", 1));
        assert_eq!(
            run.faults(),
            [
                "unix::a_missing_file failed: 16 of 1320 were not seen",
                "hook fork was attached (tp_btf), but never seen to fire"
            ]
        );
    }

    #[test]
    fn a_runner_that_prints_nothing_and_a_doctor_that_says_nothing_are_faults() {
        let (_, runs) =
            read(&["vm: begin best", "vm: doctor ", "vm: doctor ended with 2", "vm: stories ended with 127"]);
        let expected = [
            "proxytrace doctor --json printed no object",
            "0 stories passed, and their runner ended with status 127",
        ];
        assert_eq!(runs[0].faults(), expected);
    }

    #[test]
    fn a_refusal_has_its_status_and_its_words() {
        let (_, runs) =
            read(&["vm: begin refusal", "proxytrace: cannot trace: too old", "vm: refused with 3"]);
        assert!(runs[0].faults_of_refusal(&["cannot trace", "too old"]).is_empty());
        assert_eq!(runs[0].faults_of_refusal(&["5.8"]).len(), 1);
    }

    #[test]
    fn a_panic_is_trouble_at_once_and_a_lockup_the_second_time() {
        let (transcript, _) = read(&["[  9.1] Kernel panic - not syncing: Attempted to kill init!"]);
        assert_eq!(transcript.trouble(), Some("the kernel panicked"));
        let lockup = "watchdog: BUG: soft lockup - CPU#0 stuck for 26s! [nginx:123]";
        assert_eq!(read(&[lockup]).0.trouble(), None);
        assert!(read(&[lockup, lockup]).0.trouble().is_some());
    }
}
