//! Where the agent of this host is asked.

use std::path::Path;

use crate::http::local::{DEFAULT_SOCKET, Place};

/// Where the agent of this host is asked.
#[derive(Clone, Debug, clap::Args)]
pub struct AskAgent {
    /// Ask the agent at this socket; none asks nobody [default: /run/proxytrace/agent.sock].
    #[arg(long, value_name = "PATH", env = "PROXYTRACE_SOCKET")]
    socket: Option<Place>,
}

impl AskAgent {
    /// The socket, if there is to be one.
    pub fn path(&self) -> Option<&Path> {
        match &self.socket {
            None => Some(Path::new(DEFAULT_SOCKET)),
            Some(Place::At(path)) => Some(path),
            Some(Place::Off) => None,
        }
    }
}
