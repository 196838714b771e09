//! Requests, and what they got.

use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use proxytrace_tests::http;
use proxytrace_tests::wait::{SOON, patient};

/// Requests a second.
pub(crate) const RATE: u32 = 200;

/// Requests, at a steady rate.
pub(crate) struct Traffic {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<(Instant, u16)>>,
}

impl Traffic {
    pub(crate) fn start(clients: PathBuf) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let thread = thread::spawn({
            let stop = Arc::clone(&stop);
            move || {
                let (mut next, mut answers, mut requests) = (Instant::now(), Vec::new(), Vec::new());
                while !stop.load(Ordering::SeqCst) {
                    // A machine that stood still makes up for nothing: a burst would be more than nginx has connections for.
                    next = (next + Duration::from_secs(1) / RATE).max(Instant::now());
                    thread::sleep(next.saturating_duration_since(Instant::now()));
                    // Each waits for itself: an upstream that does not answer must not slow down the others.
                    let Ok(mut stream) = UnixStream::connect(&clients) else {
                        answers.push((Instant::now(), 0));
                        continue;
                    };
                    requests.push(thread::spawn(move || {
                        let _ = stream.set_read_timeout(Some(patient(SOON)));
                        // A worker that ends may close what it has not accepted.
                        let asked = stream.write_all(b"GET / HTTP/1.0\r\nHost: site\r\n\r\n");
                        let answer = asked.map_or(None, |()| http::try_answer(&mut stream).ok());
                        let status = answer.map_or(0, |answer| answer.status);
                        (Instant::now(), status)
                    }));
                }
                answers.extend(requests.into_iter().map(|request| request.join().expect("a request")));
                answers.sort();
                answers
            }
        });
        Self { stop, thread }
    }

    /// What requests got: how many did not get 200, and from the first to the last of those.
    #[expect(clippy::print_stdout, reason = "the figure that a reader of the run looks for")]
    pub(crate) fn end(self) -> (usize, Duration) {
        self.stop.store(true, Ordering::SeqCst);
        let answers = self.thread.join().expect("the requests");
        let failed: Vec<_> = answers.iter().filter(|(_, status)| *status != 200).collect();
        let took = failed.first().zip(failed.last()).map(|(first, last)| last.0 - first.0);
        let mut statuses: Vec<_> = failed.iter().map(|(_, status)| *status).collect();
        statuses.sort_unstable();
        statuses.dedup();
        let (count, took) = (failed.len(), took.unwrap_or_default());
        println!("{count} of {} requests failed ({statuses:?}; 0: no answer), over {took:?}", answers.len());
        (count, took)
    }
}
