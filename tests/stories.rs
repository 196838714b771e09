//! The stories: what proxytrace's users rely on, each run with the real thing.
//!
//! - [`causes`], [`crossing`], [`unix`], [`broken`]: a story per row of the truth table, with a real nginx
//! - [`answer`], [`protocols`]: what becomes of a request after the handshake
//! - [`balanced`]: where this host sends connects elsewhere than the proxy asked for
//! - [`clients`]: other clients, and what nginx makes of several upstreams
//! - [`processes`]: who is traced, from when on, and in which generation
//! - [`reload`]: reloads that are accepted and rejected, workers that crash and that end
//! - [`guard`]: changes that take themselves back
//! - [`haproxy`]: the same of another proxy
//! - [`names`], [`lookups`], [`resolved`], [`configurations`]: what upstreams are called, [`identities`], [`pods`]: and proxies, also in Kubernetes
//! - [`fairness`]: a proxy that is slow, stuck or huge delays only itself
//! - [`judge`]: all of it as nginx itself logged it
//! - [`findings`], [`outages`], [`lacks`]: what is wrong; [`quiet`]: what is not; [`schema`]: what programs read of it
//! - [`ledger`], [`storm`], [`crowd`]: every count is exact, also when nobody could follow
//! - [`housekeeping`]: nothing grows with reloads, and what is forgotten was counted
//! - [`quotas`]: what one user's processes take up, another's do not lack
//! - [`metrics`], [`trace`]: what monitoring systems and people get to see; [`rules`], [`alerts`]: what monitoring systems alert on, [`dashboard`]: and show
//! - [`replay`]: what is recorded, and shown again
//! - [`settings`], [`secured`], [`service`]: the agent's own configuration, whom it serves, and the service manager that it runs under
//! - [`cli`], [`requirements`], [`doctor`]: what happens when it is called wrongly or on the wrong host
//! - [`stalls`]: nobody keeps it waiting
//! - [`cost`], [`wakeups`], [`guests`]: what it costs, and how it gets along with others
//! - [`check`], [`judged`], [`outputs`], [`probes`], [`routing`], [`streams`]: what is said of a configuration, next to what nginx says and does
//! - [`owners`]: with whose rights it reads for a proxy
//! - [`history`], [`status`], [`follow`]: what the agent remembers, and what whoever comes late learns of it; [`top`], [`page`]: and what is looked at live, [`pictures`]: as the docs show it
//! - [`soak`]: all of it at once, for as long as there is time
//! - [`privilege`], [`disclosure`]: what it may do while it runs, whom it runs as, and what it discloses of its host
//!
//! [`scene`], [`lookout`] and [`host`] are the sets that most of them share.

mod host;
mod lookout;
mod scene;

mod alerts;
mod answer;
mod balanced;
mod broken;
mod causes;
mod check;
mod cli;
mod clients;
mod configurations;
mod cost;
mod crossing;
mod crowd;
mod dashboard;
mod disclosure;
mod doctor;
mod fairness;
mod findings;
mod follow;
mod guard;
mod guests;
mod haproxy;
mod history;
mod housekeeping;
mod identities;
mod judge;
mod judged;
mod lacks;
mod ledger;
mod lookups;
mod metrics;
mod names;
mod outages;
mod outputs;
mod owners;
mod page;
mod pictures;
mod pods;
mod privilege;
mod probes;
mod processes;
mod prometheus;
mod protocols;
mod quiet;
mod quotas;
mod reload;
mod replay;
mod requirements;
mod resolved;
mod routing;
mod rules;
mod schema;
mod secured;
mod service;
mod settings;
mod soak;
mod stalls;
mod status;
mod storm;
mod streams;
mod top;
mod trace;
mod unix;
mod wakeups;
