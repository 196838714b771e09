//! A recording beside a trace. When it cannot be written any more, such as on a full disk, the trace goes on without it.

use std::path::PathBuf;

use super::Recorder;
use crate::model::Record;

/// A recording, as long as it can be written.
#[derive(Debug)]
pub struct Kept {
    path: PathBuf,
    recorder: Option<Recorder>,
    /// Why it ended, and how many records are not in it.
    failure: String,
    missing: u64,
}

impl Kept {
    /// A recording that was begun at `path`.
    #[must_use]
    pub const fn new(path: PathBuf, recorder: Recorder) -> Self {
        Self { path, recorder: Some(recorder), failure: String::new(), missing: 0 }
    }

    /// Adds a record, or counts it as missing.
    pub fn write(&mut self, record: &Record) {
        let Some(recorder) = &mut self.recorder else {
            self.missing += 1;
            return;
        };
        if let Err(error) = recorder.write(record) {
            self.end(&error);
        }
    }

    /// Hands everything to the kernel.
    pub fn flush(&mut self) {
        if let Some(Err(error)) = self.recorder.as_mut().map(Recorder::flush) {
            self.end(&error);
        }
    }

    fn end(&mut self, error: &std::io::Error) {
        self.missing += self.recorder.take().map_or(0, |recorder| recorder.unwritten());
        self.failure = error.to_string();
        tracing::warn!(
            "write the recording {}: {error}; it ends here and can be replayed up to here, the trace goes on",
            self.path.display()
        );
    }

    /// A line for the summary, where records are missing.
    #[must_use]
    pub fn summary(&self) -> String {
        if self.recorder.is_some() {
            return String::new();
        }
        let Self { path, failure, missing, .. } = self;
        format!("the recording {} lacks the last {missing} records: {failure}\n", path.display())
    }

    /// Removes what was begun: nothing was traced.
    pub fn discard(self) {
        if let Some(recorder) = self.recorder {
            recorder.discard();
        }
    }
}
