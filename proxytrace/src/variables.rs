//! Variables of the environment that are named like those of proxytrace, and that nothing reads: a misspelt one would be ignored
//! silently.

use std::{collections::BTreeSet, fmt};

/// What their names begin with.
const PREFIX: &str = "PROXYTRACE_";

/// Kubernetes sets variables about each service of a namespace (`enableServiceLinks`), and a service may be called proxytrace as
/// well. One of them ends with this, after the name of the service.
const SERVICE: &str = "_SERVICE_HOST";
/// What the others have after the name of the service.
const ABOUT_A_SERVICE: [&str; 2] = ["_SERVICE_", "_PORT"];

/// How much alike a name must be to one that is known to be taken for it, from 0 to 1.
const ALIKE: f64 = 0.7;

/// A variable that nothing reads.
#[derive(Debug, PartialEq, Eq)]
pub struct Unknown<'a> {
    name: &'a str,
    /// The known one that is most alike.
    nearest: Option<&'a str>,
}

/// Those of `names` that are named like ours and that are not `known`.
pub fn unknown<'a>(names: &'a [String], known: &BTreeSet<&'a str>) -> Vec<Unknown<'a>> {
    let ours = || names.iter().map(String::as_str).filter(|name| name.starts_with(PREFIX));
    let services: Vec<_> = ours().filter_map(|name| name.strip_suffix(SERVICE)).collect();
    let is_about_a_service = |name: &str| {
        let mut rests = services.iter().filter_map(|service| name.strip_prefix(service));
        rests.any(|rest| ABOUT_A_SERVICE.iter().any(|about| rest.starts_with(about)))
    };
    ours()
        .filter(|name| !known.contains(name) && !is_about_a_service(name))
        .map(|name| Unknown { name, nearest: nearest(name, known) })
        .collect()
}

/// The one that is most alike, if any is.
fn nearest<'a>(name: &str, known: &BTreeSet<&'a str>) -> Option<&'a str> {
    let own = |name: &'a str| name.strip_prefix(PREFIX).unwrap_or(name);
    let rest = name.strip_prefix(PREFIX).unwrap_or(name);
    let scored = known.iter().map(|known| (strsim::normalized_damerau_levenshtein(rest, own(known)), *known));
    let best = scored.filter(|(alike, _)| *alike >= ALIKE).max_by(|one, other| one.0.total_cmp(&other.0));
    best.map(|(_, known)| known)
}

/// The variables that a command line reads.
pub fn of(program: &clap::Command) -> BTreeSet<&str> {
    let own = program.get_arguments().filter_map(|argument| argument.get_env()?.to_str());
    own.chain(program.get_subcommands().flat_map(of)).collect()
}

impl fmt::Display for Unknown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no variable is called {}; ", self.name)?;
        match self.nearest {
            Some(nearest) => write!(f, "is {nearest} meant?"),
            None => write!(f, "--help of a command names those that are read"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{of, unknown};

    fn said(names: &[&str]) -> Vec<String> {
        let names: Vec<_> = names.iter().map(ToString::to_string).collect();
        let known = BTreeSet::from(["PROXYTRACE_LISTEN", "PROXYTRACE_LOG", "PROXYTRACE_LOG_FORMAT"]);
        unknown(&names, &known).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_misspelt_variable_is_named_with_the_one_that_is_most_alike() {
        let expected = "no variable is called PROXYTRACE_LISTN; is PROXYTRACE_LISTEN meant?";
        assert_eq!(said(&["PROXYTRACE_LISTN", "PROXYTRACE_LOG", "PATH"]), [expected]);
        assert!(said(&["PROXYTRACE_LOGFORMAT"])[0].ends_with("is PROXYTRACE_LOG_FORMAT meant?"));
        let expected = "no variable is called PROXYTRACE_X; --help of a command names those that are read";
        assert_eq!(said(&["PROXYTRACE_X"]), [expected]);
    }

    #[test]
    fn what_kubernetes_sets_for_a_service_is_nobodys_mistake() {
        let set = [
            "PROXYTRACE_SERVICE_HOST",
            "PROXYTRACE_SERVICE_PORT_METRICS",
            "PROXYTRACE_PORT_9947_TCP_ADDR",
            "PROXYTRACE_AGENT_SERVICE_HOST",
            "PROXYTRACE_AGENT_PORT",
        ];
        assert!(said(&set).is_empty(), "{:?}", said(&set));
        // Without such a service they are.
        assert_eq!(said(&["PROXYTRACE_PORT", "PROXYTRACE_AGENT_PORT"]).len(), 2);
    }

    #[test]
    fn the_variables_of_all_commands_are_known() {
        let argument = |name: &'static str| clap::Arg::new(name).env(name);
        let program =
            clap::Command::new("a").arg(argument("A")).subcommand(clap::Command::new("b").arg(argument("B")));
        assert_eq!(of(&program), BTreeSet::from(["A", "B"]));
    }
}
