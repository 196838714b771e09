//! How long proxies wait for a connect, where no configuration says it.

use std::time::Duration;

/// What is assumed where nobody says anything: nginx's own default.
const DEFAULT: Duration = Duration::from_secs(60);

/// The connect timeout of the processes of one name, or of all that have none of their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectTimeout {
    /// A name, as `--process` takes it.
    pub name: Option<String>,
    /// How long they wait.
    pub time: Duration,
}

/// Those of all proxies. Of several for the same, the last counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnectTimeouts(pub Vec<ConnectTimeout>);

impl ConnectTimeouts {
    /// That of processes that have none of their own.
    #[must_use]
    pub fn of_others(&self) -> Duration {
        self.find(None).unwrap_or(DEFAULT)
    }

    /// That of the processes of a name, if they have one of their own.
    #[must_use]
    pub fn of(&self, name: &str) -> Option<Duration> {
        self.find(Some(name))
    }

    /// Whether any name has one of its own.
    #[must_use]
    pub fn has_names(&self) -> bool {
        self.0.iter().any(|one| one.name.is_some())
    }

    fn find(&self, name: Option<&str>) -> Option<Duration> {
        self.0.iter().rev().find(|one| one.name.as_deref() == name).map(|one| one.time)
    }
}
