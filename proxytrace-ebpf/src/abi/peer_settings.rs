//! The settings of a peer: connect timeout, read timeouts, and flags that say whether its protocol shows an answer on the socket.

use super::record::abi;

abi! {
    /// What a proxy's configuration says of an address, put together over all routes that lead there.
    pub struct PeerSettings {
        /// How long the proxy waits for a connect, in nanoseconds.
        pub connect_timeout_ns: u64,
        /// How long it waits for bytes of an answer, in milliseconds: the different times of the routes, the shortest first; 0 for
        /// none. Where there are more than fit, the longest are left out.
        pub read_timeouts_ms: [u32; PeerSettings::READ_TIMEOUTS],
        /// [`PeerSettings::REQUESTS`] and so on.
        pub flags: u32,
        /// Not used; zero.
        pub reserved: u32,
    }

    /// What a look has found of one connection.
    pub struct Seen {
        /// When the connection was established, boot time in nanoseconds; 0 where it was gone, or became another, while it was
        /// looked at.
        pub established_ns: u64,
        /// Bytes received so far.
        pub received: u64,
        /// How long a request has waited, in nanoseconds; 0 where none waits.
        pub waiting_ns: u64,
        /// How often in a row nothing was heard within a retransmission timeout of what was sent.
        pub unheard: u32,
        /// Whether a request waits: [`super::Asked`].
        pub asked: u32,
        /// How often it was one end's turn and then the other's: about as often as requests were answered.
        pub turns: u32,
        /// Not used; zero.
        pub reserved: u32,
    }
}

/// The two numbers of a word, in their order in memory.
const fn halves(word: u64) -> (u32, u32) {
    let [a, b, c, d, e, f, g, h] = word.to_ne_bytes();
    (u32::from_ne_bytes([a, b, c, d]), u32::from_ne_bytes([e, f, g, h]))
}

impl Seen {
    /// What a look has found, as the kernel has left it in memory.
    #[must_use]
    pub const fn of_words([established_ns, received, waiting_ns, state, rest]: [u64; 5]) -> Self {
        let ((unheard, asked), (turns, reserved)) = (halves(state), halves(rest));
        Self { established_ns, received, waiting_ns, unheard, asked, turns, reserved }
    }
}

impl PeerSettings {
    /// How many different read timeouts are told apart.
    pub const READ_TIMEOUTS: usize = 4;

    /// What is sent are requests, and each wants an answer. Without it silence is no failure (nginx: `stream`).
    pub const REQUESTS: u32 = 1;
    /// TLS is spoken on some of the routes.
    pub const TLS: u32 = 2;
    /// Bytes may come that answer nothing, or are sent while the answer comes already: gRPC and HTTP/2, Upgrade, bodies that are passed
    /// on as they come. Then only a connection on which nothing came at all tells something.
    pub const UNORDERED: u32 = 4;
    /// Connections are not kept when a request is answered: what ends one has to do with a request.
    pub const ENDS: u32 = 8;
    /// Bodies are passed on as they come: where all is confirmed that was sent, silence may be the client's.
    pub const STREAMED: u32 = 16;
}
