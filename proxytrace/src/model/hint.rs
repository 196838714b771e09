//! What else is known about why connects fail, where their error has several causes.

use serde::{Deserialize, Serialize};

/// What was found out besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hint {
    /// Where the proxy runs there is no IPv6 address that reaches another host, and it connects to one.
    NoIpv6,
    /// The socket is there on this host, and not where the proxy looks for files.
    SocketElsewhere,
}
