//! What a proxy says itself of requests that fail before it connects.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// What it lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lack {
    /// A worker has as many connections as it may have.
    Connections,
    /// A worker has as many files open as it may have, or the host has.
    Files,
    /// The address to connect from is not this host's.
    LocalAddress,
    /// A name of the configuration does not resolve.
    Address,
    /// The upstream's certificate is not one that the proxy accepts: it closes the connection before a request.
    Certificate,
}

impl Lack {
    /// All of them, each at its own index.
    pub const ALL: [Self; 5] =
        [Self::Connections, Self::Files, Self::LocalAddress, Self::Address, Self::Certificate];

    /// The name in records and in evidence.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Files => "files",
            Self::LocalAddress => "local_address",
            Self::Address => "address",
            Self::Certificate => "certificate",
        }
    }
}

/// The same words, said a number of times.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Complaint {
    /// What is lacking.
    pub lack: Lack,
    /// The proxy's own words.
    pub words: Arc<str>,
    /// How often it was said: each is a request that failed, or a client that was not served.
    pub times: u64,
}

/// What one proxy said within about a second. The body of a record of kind `complaints`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Complaints {
    /// The proxy's name.
    pub proxy: Arc<str>,
    /// What it said.
    pub complaints: Vec<Complaint>,
}

#[cfg(test)]
mod tests {
    use super::Lack;

    #[test]
    fn the_name_of_a_lack_is_that_of_records() {
        for (index, lack) in Lack::ALL.into_iter().enumerate() {
            assert_eq!(serde_json::to_string(&lack).unwrap(), format!("\"{}\"", lack.name()));
            assert_eq!(lack as usize, index);
        }
    }
}
