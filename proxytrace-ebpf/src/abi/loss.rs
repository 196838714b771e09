//! Where something could not be followed, and what becomes of the counts.

/// Where something could not be followed. The discriminant is the index in the loss array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Loss {
    /// The ring buffer had no room: the reader missed an event, no count is wrong.
    RingFull = 0,
    /// No room for an attempt in flight: it is in no count.
    AttemptTableFull,
    /// No room for a ledger row: the attempt is counted in its proxy's row `~other`.
    LedgerFull,
    /// No room for a traced process, or not for another of its owner's: its attempts are in no count.
    ProcessTableFull,
    /// No room for a proxy, or not for another of its owner's: its attempts, reloads and crashes are in no count.
    ProxyTableFull,
    /// No room for a connect() under way: what it returns at once is in no count.
    CallTableFull,
    /// No room for an established connection: its breaking would not be seen.
    ConnectionTableFull,
    /// No room for a unix socket's path: it shows as a digest.
    PathTableFull,
    /// Kernel or user memory could not be read: the attempt is in no count.
    ReadFailed,
    /// The end of an attempt was not seen: its socket was destroyed or connected anew, or its thread exited or called
    /// connect() again, while it was believed in flight. It is counted as `other`.
    EndMissed,
    /// The upstream has closed a connection whose data does not pass through TCP (it is in a sockmap), so whether it had
    /// answered is not known: if it had not, this is in no count of broken connections.
    Bypassed,
}

impl Loss {
    /// Every place, in the order of their indices.
    pub const ALL: [Self; 11] = [
        Self::RingFull,
        Self::AttemptTableFull,
        Self::LedgerFull,
        Self::ProcessTableFull,
        Self::ProxyTableFull,
        Self::CallTableFull,
        Self::ConnectionTableFull,
        Self::PathTableFull,
        Self::ReadFailed,
        Self::EndMissed,
        Self::Bypassed,
    ];

    /// The value of the label `why`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::RingFull => "ring_full",
            Self::AttemptTableFull => "attempt_table_full",
            Self::LedgerFull => "ledger_full",
            Self::ProcessTableFull => "process_table_full",
            Self::ProxyTableFull => "proxy_table_full",
            Self::CallTableFull => "call_table_full",
            Self::ConnectionTableFull => "connection_table_full",
            Self::PathTableFull => "path_table_full",
            Self::ReadFailed => "read_failed",
            Self::EndMissed => "end_missed",
            Self::Bypassed => "bypassed",
        }
    }

    /// What it costs the counts, as the end of a sentence about what could not be followed.
    #[must_use]
    pub const fn effect(self) -> &'static str {
        match self {
            Self::RingFull => "no count is wrong, only records are missing",
            Self::AttemptTableFull | Self::ReadFailed => "the attempts are in no count",
            Self::LedgerFull => "the attempts are counted in ~other",
            Self::ProcessTableFull => "the processes' attempts are in no count",
            Self::ProxyTableFull => "the proxies' attempts, reloads and crashes are in no count",
            Self::CallTableFull => "attempts that connect() itself tells the end of are in no count",
            Self::ConnectionTableFull => "the attempts are counted, but not whether their connections break",
            Self::PathTableFull => "the attempts are counted under a digest of the path",
            Self::EndMissed => "the attempts are counted as failures of cause other",
            Self::Bypassed => {
                "the attempts are counted, but not whether their connections were closed unanswered"
            }
        }
    }
}
