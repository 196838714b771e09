//! The options of a command in a TOML file, by their long names. What stands there becomes the default of each option: the same parsers
//! read it, and the environment and the command line take precedence.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    fs, io,
    os::unix::fs::FileTypeExt as _,
    path::{Path, PathBuf},
};

use clap::{
    Arg, ArgAction, ArgMatches, Command,
    builder::{OsStr, Resettable},
    parser::ValueSource,
};
use toml::de::{DeTable, DeValue};

/// Options that make no sense in a file: where it is, and what to do instead of running.
const NOT_IN_A_FILE: &[&str] = &["config", "check-config", "probe", "help", "version"];

/// From this similarity on (Jaro-Winkler, 0 to 1) a key was probably meant.
const SIMILAR: f64 = 0.75;

/// The known key that was probably meant.
pub(crate) fn nearest<'a>(key: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let plain = |key: &str| key.to_lowercase().replace('_', "-");
    let scored = known.map(|known| (strsim::jaro_winkler(&plain(key), &plain(known)), known));
    let best = scored.max_by(|(one, _), (other, _)| one.total_cmp(other));
    best.filter(|(similarity, _)| *similarity >= SIMILAR).map(|(_, known)| known)
}

/// A file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be read.
    #[error("read {}: {}", .0.display(), why_unreadable(.1))]
    Unreadable(PathBuf, io::Error),
    /// A line cannot be used.
    #[error("{}:{line}: {why}", .path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Its line, from 1 on.
        line: usize,
        /// What is wrong there.
        why: String,
    },
    /// Lines contradict each other.
    #[error("{}: {why}", .path.display())]
    Whole {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
}

/// Reads what is read again later. A pipe would have nothing to say then, or have whoever reads it wait: what it said would be lost,
/// such as who may ask.
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    if fs::metadata(path)?.file_type().is_fifo() {
        return Err(io::Error::other("a pipe cannot be read again; write it to a file"));
    }
    fs::read(path)
}

/// Why a file cannot be read, with what helps where it is not there or not for this user.
pub(crate) fn why_unreadable(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied => {
            format!("{error}; is it there, and may this user read it without capabilities?")
        }
        _ => error.to_string(),
    }
}

/// The values of all options, as they are written.
pub type Values = BTreeMap<String, Vec<OsString>>;

/// A command line that was read with a file, and can be read again.
#[derive(Clone, Debug)]
pub struct Again {
    command: Command,
    name: &'static str,
    arguments: Vec<OsString>,
    path: PathBuf,
}

impl Again {
    /// The command line of this process, whose `command` has a subcommand of that name, with that file.
    #[must_use]
    pub fn new(command: Command, name: &'static str, path: PathBuf) -> Self {
        Self { command, name, arguments: std::env::args_os().collect(), path }
    }

    /// The same for another command line.
    #[cfg(test)]
    pub(crate) fn with_arguments<const N: usize>(self, arguments: [&str; N]) -> Self {
        Self { arguments: arguments.into_iter().map(Into::into).collect(), ..self }
    }

    /// Where the file is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the file as it is now: the matches of the whole command line.
    ///
    /// # Errors
    /// The file cannot be read, or not be used.
    pub fn read(&self) -> Result<ArgMatches, Error> {
        let unreadable = |error| Error::Unreadable(self.path.clone(), error);
        let bytes = read(&self.path).map_err(unreadable)?;
        let text = String::from_utf8(bytes)
            .map_err(|error| unreadable(io::Error::new(io::ErrorKind::InvalidData, error)))?;
        self.matches(&text)
    }

    fn matches(&self, text: &str) -> Result<ArgMatches, Error> {
        let whole = |why| Error::Whole { path: self.path.clone(), why };
        let settings = settings(text, &self.command, self.name).map_err(|Wrong { at, why }| Error::Line {
            path: self.path.clone(),
            line: line_of(text, at),
            why,
        })?;
        let given =
            self.command.clone().try_get_matches_from(&self.arguments).map_err(|e| whole(words(&e)))?;
        let given = given.subcommand().map(|(_, given)| given);
        let is_given = |id: &str| {
            matches!(
                given.and_then(|given| given.value_source(id)),
                Some(ValueSource::CommandLine | ValueSource::EnvVariable)
            )
        };
        // `-v` on the command line is meant in spite of `quiet` in the file.
        let is_contradicted =
            |id: &str| conflicts(&self.command, self.name, id).iter().any(|id| is_given(id));
        let settings: BTreeMap<_, _> = settings.into_iter().filter(|(id, _)| !is_contradicted(id)).collect();
        let with_defaults = |command: Command| {
            command.mut_args(|arg| match settings.get(arg.get_id().as_str()) {
                Some(values) if is_key(&arg) => arg.default_values(values.iter().map(OsStr::from)),
                _ => arg,
            })
        };
        let command = with_defaults(self.command.clone()).mut_subcommand(self.name, with_defaults);
        command.try_get_matches_from(&self.arguments).map_err(|error| whole(words(&error)))
    }

    /// The values of all options in what was read, by their keys.
    #[must_use]
    pub fn values(&self, matches: &ArgMatches) -> Values {
        let Some((_, matches)) = matches.subcommand() else { return Values::new() };
        keys(&self.command, self.name)
            .filter_map(|arg| {
                let raw = matches.try_get_raw(arg.get_id().as_str()).ok()??;
                Some((arg.get_long()?.to_owned(), raw.map(ToOwned::to_owned).collect()))
            })
            .collect()
    }
}

/// The options of a subcommand that can stand in a file, those included that all commands have. Their keys are their long names.
pub fn keys<'a>(command: &'a Command, name: &str) -> impl Iterator<Item = &'a Arg> {
    let own = command.find_subcommand(name).into_iter().flat_map(Command::get_arguments);
    command.get_arguments().filter(|arg| arg.is_global_set()).chain(own).filter(|arg| is_key(arg))
}

fn is_key(arg: &Arg) -> bool {
    arg.get_long().is_some_and(|long| !NOT_IN_A_FILE.contains(&long))
}

/// What is wrong, and at which byte.
#[derive(Debug)]
struct Wrong {
    at: usize,
    why: String,
}

/// The values of each option in the file, by the option's id.
fn settings(text: &str, command: &Command, name: &str) -> Result<BTreeMap<String, Vec<String>>, Wrong> {
    let table = DeTable::parse(text).map_err(|error| Wrong {
        at: error.span().map_or(0, |span| span.start),
        why: error.message().replace('\n', "; "),
    })?;
    let mut entries: Vec<_> = table.into_inner().into_iter().collect();
    // The first line that is wrong is reported.
    entries.sort_by_key(|(key, _)| key.span().start);
    let plain = without_environment(command.clone());
    let mut settings = BTreeMap::new();
    let mut all = Vec::new();
    for (key, value) in entries {
        let at = key.span().start;
        let wrong = |why| Wrong { at, why };
        let key = key.into_inner();
        let arg = keys(command, name)
            .find(|arg| arg.get_long() == Some(&key))
            .ok_or_else(|| wrong(unknown(&key, value.get_ref(), command, name)))?;
        let values = values(arg, value.get_ref()).map_err(|why| wrong(format!("{key}: {why}")))?;
        let flags = flags(arg, &values);
        let check = |flags: &[String]| {
            let line = ["", name].into_iter().map(str::to_owned).chain(flags.iter().cloned());
            plain.clone().try_get_matches_from(line).map_err(|error| wrong(words(&error)))
        };
        check(&flags)?;
        all.extend(flags);
        check(&all)?;
        settings.insert(arg.get_id().to_string(), values);
    }
    Ok(settings)
}

fn unknown(key: &str, value: &DeValue<'_>, command: &Command, name: &str) -> String {
    if matches!(value, DeValue::Table(_)) {
        return format!(
            "unknown table {key}; there are no tables in this file: write the keys without [{key}]"
        );
    }
    match nearest(key, keys(command, name).filter_map(Arg::get_long)) {
        Some(known) => format!("unknown key {key}; did you mean {known}?"),
        None => {
            format!("unknown key {key}; `proxytrace {name} --help` lists the options, which are the keys")
        }
    }
}

/// A value as the option's parser reads it.
fn values(arg: &Arg, value: &DeValue<'_>) -> Result<Vec<String>, String> {
    let scalar = |value: &DeValue<'_>| match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) => Some(number.to_string()),
        DeValue::Float(number) => Some(number.to_string()),
        DeValue::Boolean(_) | DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => None,
    };
    let expected = |what: &str| format!("{what} is expected here, not {}", kind(value));
    match (arg.get_action(), value) {
        (ArgAction::SetTrue, DeValue::Boolean(is_set)) => Ok(vec![is_set.to_string()]),
        (ArgAction::SetTrue, _) => Err(expected("true or false")),
        (ArgAction::Count, DeValue::Integer(number)) => match number.to_string().parse::<u8>() {
            Ok(count @ 0..=2) => Ok(vec![count.to_string()]),
            _ => Err("0, 1 or 2 is expected here".to_owned()),
        },
        (ArgAction::Count, _) => Err(expected("0, 1 or 2")),
        (ArgAction::Append, DeValue::Array(list)) => list
            .iter()
            .map(|value| scalar(value.get_ref()))
            .collect::<Option<_>>()
            .ok_or_else(|| "a list of strings or numbers is expected here".to_owned()),
        (ArgAction::Append, value) => {
            scalar(value).map(|text| vec![text]).ok_or_else(|| expected("a list of strings or numbers"))
        }
        (_, value) => scalar(value).map(|text| vec![text]).ok_or_else(|| expected("a string or a number")),
    }
}

const fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) | DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// The values as one would type them.
fn flags(arg: &Arg, values: &[String]) -> Vec<String> {
    let long = arg.get_long().unwrap_or_default();
    let flag = || format!("--{long}");
    match arg.get_action() {
        ArgAction::SetTrue => values.iter().filter(|value| *value == "true").map(|_| flag()).collect(),
        ArgAction::Count => {
            values.iter().flat_map(|value| (0..value.parse().unwrap_or(0_u8)).map(|_| flag())).collect()
        }
        _ => values.iter().map(|value| format!("--{long}={value}")).collect(),
    }
}

/// The ids of the options that cannot be given together with this one.
fn conflicts(command: &Command, name: &str, id: &str) -> BTreeSet<String> {
    let all: Vec<_> = keys(command, name).collect();
    let of = |arg: &Arg| -> Vec<String> {
        let owner = if arg.is_global_set() { Some(command) } else { command.find_subcommand(name) };
        let others = owner.map(|owner| owner.get_arg_conflicts_with(arg)).unwrap_or_default();
        others.into_iter().map(|other| other.get_id().to_string()).collect()
    };
    let own = all.iter().filter(|arg| arg.get_id() == id).flat_map(|arg| of(arg));
    let from_others =
        all.iter().filter(|arg| of(arg).iter().any(|other| other == id)).map(|arg| arg.get_id().to_string());
    own.chain(from_others).collect()
}

/// The environment is no part of the file.
fn without_environment(command: Command) -> Command {
    command.mut_args(|arg| arg.env(Resettable::Reset)).mut_subcommands(without_environment)
}

/// What the parser of the command line says, without how to get help there.
fn words(error: &clap::Error) -> String {
    let text = error.to_string();
    let lines = text.lines().map(str::trim).take_while(|line| !line.starts_with("Usage:"));
    let lines: Vec<_> =
        lines.filter(|line| !line.is_empty() && !line.starts_with("For more information")).collect();
    lines.join(" ").trim_start_matches("error: ").to_owned()
}

fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes().iter().take(at).filter(|byte| **byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use clap::{ArgMatches, Args as _, Command};

    use super::{Again, Error};
    use crate::logging::Log;

    #[derive(Debug, clap::Args)]
    struct Options {
        #[arg(long, default_value = "one", env = "PROXYTRACE_TEST_NEVER_SET", value_parser = ["one", "two"])]
        choice: String,
        #[arg(long, default_value_t = 60)]
        max_items: u32,
        #[arg(long = "name", value_delimiter = ',')]
        names: Vec<String>,
        #[arg(long)]
        no_pages: bool,
        #[arg(long)]
        config: Option<String>,
    }

    fn again(arguments: &str) -> Again {
        let command =
            Log::augment_args(Command::new("p")).subcommand(Options::augment_args(Command::new("agent")));
        let arguments = arguments.split(' ').map(Into::into).collect();
        Again { command, name: "agent", arguments, path: "a.toml".into() }
    }

    fn read(arguments: &str, text: &str) -> Result<ArgMatches, Error> {
        Ok(again(arguments).matches(text)?.subcommand_matches("agent").expect("the agent").clone())
    }

    #[test]
    fn the_file_gives_defaults_and_the_command_line_wins() {
        let text = "choice = \"two\"\nmax-items = 7\nname = [\"a\", \"b\"]\nno-pages = true\nverbose = 1\n";
        let matches = read("p agent", text).unwrap();
        assert_eq!(matches.get_one::<String>("choice").unwrap(), "two");
        assert_eq!(matches.get_one::<u32>("max_items"), Some(&7));
        assert_eq!(matches.get_many::<String>("names").unwrap().collect::<Vec<_>>(), ["a", "b"]);
        assert!(matches.get_flag("no_pages"));
        assert_eq!(matches.get_count("verbose"), 1);

        let matches = read("p agent --choice one --name c -vv", text).unwrap();
        assert_eq!(matches.get_one::<String>("choice").unwrap(), "one");
        assert_eq!(matches.get_many::<String>("names").unwrap().collect::<Vec<_>>(), ["c"]);
        assert_eq!(matches.get_count("verbose"), 2);

        let matches = read("p -v agent", "quiet = true\n").unwrap();
        assert!(!matches.get_flag("quiet"), "-v was given");
        assert!(read("p agent", "quiet = true\n").unwrap().get_flag("quiet"));
    }

    #[test]
    fn what_cannot_be_used_is_said_with_its_line() {
        let check = |text: &str, expected: &str| {
            let error = read("p agent", text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        };
        check("\nmax_items = 7", "a.toml:2: unknown key max_items; did you mean max-items?");
        check("colour = 1", "a.toml:1: unknown key colour; `proxytrace agent --help` lists");
        check("config = \"b.toml\"", "unknown key config");
        check("\n[agent]\nmax-items = 7", "a.toml:2: unknown table agent; there are no tables in this file");
        check("max-items = true", "a.toml:1: max-items: a string or a number is expected here, not true or");
        check("no-pages = \"yes\"", "no-pages: true or false is expected here, not a string");
        check("name = [[1]]", "a list of strings or numbers");
        check("[name]\na = 1", "a.toml:1: name: a list of strings or numbers is expected here, not a table");
        check("max-items = 7\n\nchoice = \"three\"", "a.toml:3: invalid value 'three' for '--choice");
        check("max-items = -1", "a.toml:1: invalid value '-1'");
        check("verbose = 9", "0, 1 or 2");
        check("verbose = 1\nquiet = true", "a.toml:2: the argument '--verbose...' cannot be used with");
        check("choice = two", "a.toml:1: ");
        check("max-items = 1\nmax-items = 2", "a.toml:2: duplicate key");
    }

    #[test]
    fn what_differs_between_two_readings_can_be_seen() {
        let again = again("p agent");
        let values = |text| again.values(&again.matches(text).unwrap());
        let (one, other) = (values("max-items = 7"), values("max-items = 8\nno-pages = true"));
        let differing: Vec<_> =
            one.keys().chain(other.keys()).filter(|key| one.get(*key) != other.get(*key)).collect();
        assert_eq!(differing, ["max-items", "no-pages", "max-items", "no-pages"]);
    }
}
