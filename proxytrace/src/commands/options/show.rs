//! What of the records is shown, and how.

use crate::model::{AddressFilter, Cause, Filter};

/// What of the records is shown, and how.
#[derive(Clone, Debug, clap::Args)]
pub struct Show {
    /// Show established connects too, and workers that start or end in an orderly way; not only what fails.
    #[arg(long)]
    pub all: bool,
    /// Show only this address, port or network: 10.0.0.5, 10.0.0.5:8080, :8080, 10.0.0.0/8, unix:/run/app.sock; give
    /// it again for more.
    #[arg(long = "address", value_name = "ADDRESS", value_delimiter = ',')]
    addresses: Vec<AddressFilter>,
    /// Show only this upstream, by the name in nginx's configuration, or undeclared, or unknown; give it again for more.
    #[arg(long = "upstream", value_name = "NAME", value_delimiter = ',')]
    upstreams: Vec<String>,
    /// Show only this proxy, by the name that it has in the output; give it again for more.
    #[arg(long = "proxy", value_name = "NAME", value_delimiter = ',')]
    proxies: Vec<String>,
    /// Show only connects, broken connections and findings with this cause, such as refused or stalled; give it again for more. An
    /// unknown one is answered with the list of all.
    #[arg(long = "cause", value_name = "CAUSE", value_delimiter = ',')]
    causes: Vec<Cause>,
    /// Show each line. On a terminal the repetitions of a line are gathered for a second, and shown as one with their number.
    #[arg(long)]
    pub no_fold: bool,
    /// Show the date before the time of day.
    #[arg(long)]
    pub date: bool,
    /// Print JSON, one object a line.
    #[arg(long)]
    pub json: bool,
    /// End with exit status 1 if there was a finding, shown or not.
    #[arg(long)]
    pub fail_on_finding: bool,
}

impl Show {
    /// What passes.
    pub fn filter(&self) -> Filter {
        Filter {
            addresses: self.addresses.clone(),
            upstreams: self.upstreams.clone(),
            proxies: self.proxies.clone(),
            causes: self.causes.clone(),
            all: self.all,
        }
    }

    /// Whether established connects are shown.
    pub fn wants_established(&self) -> bool {
        self.all || self.causes.iter().any(Cause::is_established)
    }
}
