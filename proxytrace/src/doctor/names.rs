//! What the proxies that run are called, and their upstreams: asked for as a trace does, of the same process with the same
//! privileges, and each source of names with what it gave.

use std::{
    collections::{BTreeMap, HashSet},
    io,
    path::PathBuf,
    time::Duration,
};

use anyhow::Context as _;
use proxytrace_ebpf::abi::root_pid;
use tokio::time::{Instant, timeout_at};

use super::{confined, report::Check};
use crate::{
    identity::{ProxyNames, Source},
    kernel::{
        confinement::Profile,
        own_boot_ns,
        processes::{self, Wanted},
        requirements,
    },
    naming::Naming,
    reader::{self, Answer, GenerationId, Reply, client},
};

/// The reader answers within 20 s, whatever it comes upon, and names are another question.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(25);

/// So many problems of a kind are shown.
const MAX_SHOWN: usize = 5;

/// One proxy that runs.
#[derive(Debug, Default)]
struct Proxy {
    pid: u32,
    name: String,
    /// Who says what it is called.
    source: Source,
    /// Why that is less than it should be.
    doubt: Option<String>,
    /// Whether its configuration was read; `None` for a program of which none can be.
    is_read: Option<bool>,
    /// What is not known of its configuration, and why.
    unread: Vec<String>,
    /// What is not known of the host names in it.
    unresolved: Vec<String>,
}

/// What proxies there are, and how each source of names stands.
///
/// # Errors
/// /proc is not readable, or the process that reads for proxies could not be started.
pub(super) async fn checks(
    wanted: &Wanted,
    config: Option<PathBuf>,
    resolves: bool,
) -> anyhow::Result<Vec<Check>> {
    let found = running(wanted, config, resolves).await?;
    let profile = Profile::own();
    let tried = reader::pods_of_host();
    Ok(vec![
        proxies(wanted, &found),
        unit_names(is_systemds(), &found),
        confined::pod_names(confined::has_pods(), &tried, &profile, requirements::held()?),
        process_names(&found),
        configurations(&found, &profile),
        if resolves { host_names(&found) } else { no_host_names() },
    ])
}

/// systemd's manager is the first process of a host that it runs.
fn is_systemds() -> bool {
    std::fs::read_to_string("/proc/1/comm").is_ok_and(|comm| comm.trim_end() == "systemd")
}

/// Asks about all proxies that run, and takes what is answered in time.
async fn running(wanted: &Wanted, config: Option<PathBuf>, resolves: bool) -> anyhow::Result<Vec<Proxy>> {
    let (reader, mut replies) =
        client::start().context("start the process that reads the proxies' configurations")?;
    let mut asked = Asked::new(Naming::new(reader, config, resolves));
    let processes = wanted.select(&processes::running()?, own_boot_ns());
    let mut pids: BTreeMap<u64, Vec<u32>> = BTreeMap::new();
    for (pid, process) in &processes {
        asked.names.owned(process.proxy, process.owner);
        pids.entry(process.proxy).or_default().push(*pid);
    }
    for (proxy, pids) in pids {
        asked.ask(proxy, pids);
    }
    let deadline = Instant::now() + ANSWER_TIMEOUT;
    while asked.naming.is_asking() || asked.names.is_asking() {
        let Ok(reply) = timeout_at(deadline, replies.next()).await else { break };
        asked.take(reply?);
    }
    Ok(asked.told())
}

/// What was asked, and what was answered so far.
struct Asked {
    naming: Naming,
    names: ProxyNames,
    proxies: BTreeMap<u64, Proxy>,
}

impl Asked {
    fn new(naming: Naming) -> Self {
        Self { naming, names: ProxyNames::new(String::new()), proxies: BTreeMap::new() }
    }

    /// The first of its processes is the most likely master.
    fn ask(&mut self, proxy: u64, pids: Vec<u32>) {
        let of = GenerationId { proxy, generation: 0 };
        let pid = root_pid(proxy);
        if self.names.inspect(proxy, pid) && self.naming.locate(of, vec![pid]) {
            self.names.asked(proxy);
        }
        self.naming.ask(of, pids, None);
        self.proxies.insert(proxy, Proxy { pid, ..Proxy::default() });
    }

    fn take(&mut self, reply: Reply) {
        let Some(proxy) = self.proxies.get_mut(&reply.id.proxy) else { return };
        let id = reply.id.proxy;
        let is_configurations = match &reply.answer {
            Answer::Pod(located) => return self.names.found(id, located.clone()),
            Answer::Configuration(configuration) => {
                self.names.configured(id, Some(&configuration.path));
                proxy.is_read = Some(true);
                true
            }
            // What is said of names comes after what is said of the configuration.
            _ => proxy.is_read != Some(true),
        };
        if is_configurations && matches!(reply.answer, Answer::Unreadable(_)) {
            self.names.configured(id, None);
            proxy.is_read = Some(false);
        }
        let problems = self.naming.answer(reply).problems;
        if is_configurations { &mut proxy.unread } else { &mut proxy.unresolved }.extend(problems);
    }

    fn told(mut self) -> Vec<Proxy> {
        let living: HashSet<u64> = self.proxies.keys().copied().collect();
        for (id, proxy) in &mut self.proxies {
            let of = GenerationId { proxy: *id, generation: 0 };
            proxy.name = self.names.name(*id, &living).to_string();
            proxy.source = self.names.identity(*id).source;
            proxy.doubt = self.names.doubt(*id);
            if self.naming.is_reading(of) {
                proxy.is_read = Some(false);
                proxy.unread.push("no answer in time".to_owned());
            }
        }
        self.proxies.into_values().collect()
    }
}

fn proxies(wanted: &Wanted, found: &[Proxy]) -> Check {
    const NAME: &str = "proxies";
    let names = || wanted.names.join(" or ");
    match found {
        [] if wanted.names.is_empty() => Check::ok(NAME, "none of the given pids runs"),
        [] => Check::ok(NAME, format!("none named {} runs; one that starts later is noticed", names())),
        found => {
            let named = found.iter().map(|proxy| format!("{} (pid {})", proxy.name, proxy.pid));
            Check::ok(NAME, format!("{} running: {}", found.len(), shown(named.collect(), ", ")))
        }
    }
}

fn unit_names(is_systemds: bool, found: &[Proxy]) -> Check {
    const NAME: &str = "unit names";
    let units = found.iter().filter(|proxy| proxy.source == Source::Unit).count();
    let who = if is_systemds { "systemd runs this host" } else { "systemd does not run this host" };
    Check::ok(NAME, format!("{who}; {}", of_all(units, found, "called by their unit")))
}

/// A name that the process has chosen itself can be anybody's.
fn process_names(found: &[Proxy]) -> Check {
    const NAME: &str = "process names";
    let own = found.iter().filter(|proxy| matches!(proxy.source, Source::Process | Source::Option)).count();
    let words = of_all(own, found, "called as their process is");
    let doubts = found.iter().filter_map(|proxy| Some(format!("{}: {}", proxy.name, proxy.doubt.as_ref()?)));
    let doubts: Vec<_> = doubts.collect();
    if doubts.is_empty() {
        return Check::ok(NAME, words);
    }
    let fix = "run it by a systemd unit or a container engine of this host, and see the other sources of names here";
    Check::costs(NAME, words, shown(doubts, "; "), fix)
}

fn configurations(found: &[Proxy], profile: &Profile) -> Check {
    const NAME: &str = "configurations";
    let of = found.iter().filter(|proxy| proxy.is_read.is_some()).count();
    let read = found.iter().filter(|proxy| proxy.is_read == Some(true)).count();
    let words = match (of, found.len()) {
        (_, 0) => "no proxy runs".to_owned(),
        (0, _) => "of another program than nginx none is read: its upstreams are called unknown".to_owned(),
        _ => format!("those of {read} of {of} proxies were read"),
    };
    let problems = problems(found, |proxy| &proxy.unread);
    if problems.is_empty() {
        return Check::ok(NAME, words);
    }
    let is_denied = |text: &str| {
        text.contains(&io::Error::from(io::ErrorKind::PermissionDenied).to_string())
            || text.contains("Permission denied")
    };
    let fix = match profile.lift() {
        Some(lift) if problems.iter().any(|text| is_denied(text)) => lift,
        _ => "see what each of them says, and the capabilities above",
    };
    let check = if read < of { Check::lacks } else { Check::costs };
    check(NAME, words, shown(problems, "; "), fix)
}

fn of_all(some: usize, found: &[Proxy], are: &str) -> String {
    match found.len() {
        0 => "no proxy runs".to_owned(),
        all => format!("{some} of {all} proxies are {are}"),
    }
}

const HOST_NAMES: &str = "host names";

/// With `--no-resolve`.
fn no_host_names() -> Check {
    Check::ok(HOST_NAMES, "none is looked up, as --no-resolve asks for")
}

fn host_names(found: &[Proxy]) -> Check {
    let problems = problems(found, |proxy| &proxy.unresolved);
    if found.is_empty() {
        return Check::ok(HOST_NAMES, "no proxy runs");
    }
    if problems.is_empty() {
        return Check::ok(HOST_NAMES, "none is missing of those in the configurations that were read");
    }
    let costs =
        format!("upstreams that are configured by them may be called undeclared: {}", shown(problems, "; "));
    let fix = "see that the name servers answer where the proxy runs, and that CAP_SYS_ADMIN is granted where that is another \
               network namespace";
    Check::lacks(HOST_NAMES, "not all could be looked up", costs, fix)
}

fn problems(found: &[Proxy], of: impl Fn(&Proxy) -> &Vec<String>) -> Vec<String> {
    let told = |proxy: &Proxy| {
        of(proxy).iter().map(|problem| format!("{}: {problem}", proxy.name)).collect::<Vec<_>>()
    };
    found.iter().flat_map(told).collect()
}

/// The first of them, and how many more there are.
fn shown(mut all: Vec<String>, between: &str) -> String {
    let more = all.len().saturating_sub(MAX_SHOWN);
    all.truncate(MAX_SHOWN);
    if more > 0 {
        all.push(format!("and {more} more"));
    }
    all.join(between)
}

#[cfg(test)]
mod tests {
    use super::{Proxy, configurations, host_names, process_names, proxies, shown, unit_names};
    use crate::{
        doctor::report::{Check, State},
        identity::Source,
        kernel::{confinement::Profile, processes::Wanted},
    };

    fn proxy(name: &str, source: Source) -> Proxy {
        Proxy { pid: 7, name: name.to_owned(), source, is_read: Some(true), ..Proxy::default() }
    }

    #[track_caller]
    fn is(check: &Check, state: State, found: &str, words: &[&str]) {
        assert_eq!((check.state, check.found.as_str()), (state, found), "{check:?}");
        for word in words {
            assert!(format!("{} {}", check.costs, check.fix).contains(word), "{word} is not in {check:?}");
        }
    }

    #[test]
    fn each_source_of_names_says_what_it_gave() {
        let names = vec!["nginx".to_owned()];
        let wanted = Wanted { names, pids: Vec::new() };
        is(&proxies(&wanted, &[]), State::Ok, "none named nginx runs; one that starts later is noticed", &[]);
        let mut found = [proxy("nginx.service", Source::Unit), proxy("nginx@0", Source::Process)];
        is(&proxies(&wanted, &found), State::Ok, "2 running: nginx.service (pid 7), nginx@0 (pid 7)", &[]);
        let units = "systemd runs this host; 1 of 2 proxies are called by their unit";
        is(&unit_names(true, &found), State::Ok, units, &[]);
        let own = "1 of 2 proxies are called as their process is";
        is(&process_names(&found), State::Ok, own, &[]);
        found[1].doubt = Some("others can as well".to_owned());
        is(&process_names(&found), State::Costs, own, &["nginx@0: others can as well", "systemd unit"]);
        is(
            &host_names(&found),
            State::Ok,
            "none is missing of those in the configurations that were read",
            &[],
        );
        found[0].unresolved.push("\"app\" could not be looked up".to_owned());
        let words = ["nginx.service: \"app\" could not", "CAP_SYS_ADMIN"];
        is(&host_names(&found), State::Lacks, "not all could be looked up", &words);
    }

    #[test]
    fn a_configuration_that_is_not_read_is_a_gap_and_one_that_was_changed_has_a_price() {
        let none = Profile::None;
        is(&configurations(&[], &none), State::Ok, "no proxy runs", &[]);
        let mut found = [proxy("nginx.service", Source::Unit), proxy("web", Source::Process)];
        found[1].is_read = None;
        is(&configurations(&found, &none), State::Ok, "those of 1 of 1 proxies were read", &[]);
        found[0].unread.push("it was changed".to_owned());
        is(
            &configurations(&found, &none),
            State::Costs,
            "those of 1 of 1 proxies were read",
            &["was changed"],
        );
        found[0].is_read = Some(false);
        found[0].unread =
            vec!["process 7: look below its root directory: Permission denied (os error 13)".to_owned()];
        let words = "those of 0 of 1 proxies were read";
        is(&configurations(&found, &none), State::Lacks, words, &["Permission denied", "capabilities above"]);
        let docker = Profile::AppArmor("docker-default".to_owned());
        is(&configurations(&found, &docker), State::Lacks, words, &["apparmor=unconfined"]);
    }

    #[test]
    fn a_long_list_is_cut() {
        assert_eq!(shown(vec!["a".to_owned(); 7], ", "), "a, a, a, a, a, and 2 more");
    }
}
