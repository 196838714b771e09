//! Where something could not be followed, and what becomes of the counts.

use crate::indexed::indexed;

/// Whether the attempts that could not be followed are counted all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    /// They are in no count.
    No,
    /// Some are, see [`Loss::effect`].
    Partly,
    /// All are, see [`Loss::effect`].
    Yes,
}

impl Counted {
    /// As a word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::No => "no",
            Self::Partly => "partly",
            Self::Yes => "yes",
        }
    }
}

/// What is known of a loss.
struct About {
    name: &'static str,
    counted: Counted,
    effect: &'static str,
}

indexed! {
    /// Where something could not be followed. The discriminant is the index in the array of losses.
    pub enum Loss: About {
        /// The ring buffer had no room: the reader missed an event.
        RingFull {
            name: "ring_full",
            counted: Counted::Yes,
            effect: "no count is wrong, only records are missing",
        }
        /// No room for an attempt in flight.
        AttemptTableFull {
            name: "attempt_table_full",
            counted: Counted::No,
            effect: "the attempts are in no count",
        }
        /// No room for a ledger row: the proxy's row `~other` takes the attempt.
        LedgerFull {
            name: "ledger_full",
            counted: Counted::Yes,
            effect: "the attempts are counted in ~other",
        }
        /// No room for a traced process, or not for another of its owner's. What it forks is not traced either.
        ProcessTableFull {
            name: "process_table_full",
            counted: Counted::No,
            effect: "the attempts, reloads and crashes of the processes and of what they fork are in no count",
        }
        /// No room for a proxy, or not for another of its owner's.
        ProxyTableFull {
            name: "proxy_table_full",
            counted: Counted::No,
            effect: "the proxies' attempts, reloads and crashes are in no count",
        }
        /// No room for a connect() under way. An attempt that sends a SYN is followed by its socket all the same.
        CallTableFull {
            name: "call_table_full",
            counted: Counted::Partly,
            effect: "attempts on unix sockets, and those that fail before a handshake begins, are in no count, all others are counted",
        }
        /// No room for an established connection.
        ConnectionTableFull {
            name: "connection_table_full",
            counted: Counted::Yes,
            effect: "the attempts are counted, but not whether their connections break",
        }
        /// No room for a unix socket's path.
        PathTableFull {
            name: "path_table_full",
            counted: Counted::Yes,
            effect: "the attempts are counted under a digest of the path",
        }
        /// Kernel or user memory could not be read. Of an attempt that is counted all the same, what was to be read is zero.
        ReadFailed {
            name: "read_failed",
            counted: Counted::Partly,
            effect: "the attempts are in no count, or are counted with a wrong address or cause",
        }
        /// The end of an attempt was not seen: its socket was destroyed or connected anew, or its thread exited or called connect()
        /// again, while it was believed in flight; or the error that ended it was not there any more.
        EndMissed {
            name: "end_missed",
            counted: Counted::Yes,
            effect: "the attempts are counted as failures of cause other",
        }
        /// The upstream has closed a connection whose data does not pass through TCP (it is in a sockmap), so whether it had
        /// answered is not known.
        Bypassed {
            name: "bypassed",
            counted: Counted::Yes,
            effect: "the attempts are counted, but not whether their connections were closed unanswered",
        }
        /// A connection has ended, and whether a request waited on it cannot be told: the last request and the last byte that came
        /// were within one tick of the kernel's clock, the answer may have begun before all was asked, or no program saw it end.
        AnswerOrderUnknown {
            name: "answer_order_unknown",
            counted: Counted::Yes,
            effect: "the attempts are counted, but not whether their connections broke",
        }
        /// There are more connections than can be looked at in one pass: these are looked at in a later one.
        NotLookedAt {
            name: "not_looked_at",
            counted: Counted::Yes,
            effect: "requests without an answer are found later; no other count is wrong",
        }
    }
}

impl Loss {
    /// The value of the label `why`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.about().name
    }

    /// Whether the attempts are counted all the same.
    #[must_use]
    pub const fn counted(self) -> Counted {
        self.about().counted
    }

    /// What it costs the counts, as the end of a sentence about what could not be followed.
    #[must_use]
    pub const fn effect(self) -> &'static str {
        self.about().effect
    }
}
