//! docs/agent.md and deploy/systemd/agent.toml, made from the options of the agent; these tests keep them fresh.

use std::fmt::Write as _;

use clap::{Arg, ArgAction, CommandFactory as _, FromArgMatches as _};

use super::Cli;
use crate::{
    agent::reload::CHANGEABLE,
    config_file::{Again, keys},
    generated::{self, replaced},
};

/// What stands for an option without a default.
const EXAMPLES: &[(&str, &str)] = &[
    ("web-config", "\"/etc/proxytrace/web.yml\""),
    ("page-host", "[\"proxy1.example.com\"]"),
    ("socket", "\"/run/proxytrace/agent.sock\""),
    ("state", "\"/var/lib/proxytrace\""),
    ("process", "[\"nginx\"]"),
    ("pid", "[1234]"),
    ("nginx-config", "\"/etc/nginx/nginx.conf\""),
    ("hook-via", "[\"connect=tp_btf\"]"),
    ("table-size", "[\"connections=200000\"]"),
];

/// An option as a line of the file: its default, or an example.
fn line(arg: &Arg) -> String {
    let key = arg.get_long().unwrap();
    if let Some((_, example)) = EXAMPLES.iter().find(|(name, _)| *name == key) {
        return format!("{key} = {example}");
    }
    let default = arg.get_default_values().first().map(|value| value.to_str().unwrap());
    match (arg.get_action(), default) {
        (ArgAction::SetTrue, _) => format!("{key} = false"),
        (ArgAction::Count, _) => format!("{key} = 0"),
        (_, Some(number)) if number.parse::<u64>().is_ok() => format!("{key} = {number}"),
        (_, Some(text)) => format!("{key} = \"{text}\""),
        (_, None) => panic!("{key} has no default: it needs an example in {}", file!()),
    }
}

fn help(arg: &Arg) -> String {
    arg.get_help().unwrap().to_string().replace('\n', " ")
}

fn table() -> String {
    let mut table =
        String::from("| key | default or example | SIGHUP changes it | what |\n|---|---|---|---|\n");
    for arg in keys(&Cli::command(), "agent") {
        let key = arg.get_long().unwrap();
        let changes = if CHANGEABLE.contains(&key) { "yes" } else { "no" };
        writeln!(table, "| `{key}` | `{}` | {changes} | {} |", line(arg), help(arg)).unwrap();
    }
    table
}

fn file() -> String {
    let mut file = String::from(
        "# Configuration of `proxytrace agent --config FILE`; docs/agent.md says more.\n\
         #\n\
         # Each option stands here with its default or, where it has none, with an example. Environment variables\n\
         # (PROXYTRACE_MAX_ADDRESSES) and options on the command line (--max-addresses) take precedence.\n\
         # `proxytrace agent --check-config --config FILE` checks it. After a change: systemctl reload proxytrace, which\n\
         # applies what it can and says in the log what needs a restart.\n",
    );
    for arg in keys(&Cli::command(), "agent") {
        file.push('\n');
        for line in wrapped(&help(arg), 110) {
            writeln!(file, "# {line}").unwrap();
        }
        writeln!(file, "#{}", line(arg)).unwrap();
    }
    file
}

fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let last = lines.last_mut().unwrap();
        if last.is_empty() {
            last.push_str(word);
        } else if last.len() + word.len() < width {
            last.push(' ');
            last.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

#[test]
fn docs_are_fresh() {
    generated::check("agent.md", |page| replaced(page, "keys", &table()));
    generated::check("../deploy/systemd/agent.toml", |_| file());
}

#[test]
fn each_line_of_the_default_configuration_can_be_used() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("agent.toml");
    let again = Again::new(Cli::command(), "agent", path.clone()).with_arguments(["proxytrace", "agent"]);
    let file = file();
    let lines: Vec<_> = file
        .lines()
        .filter_map(|line| line.strip_prefix('#').filter(|line| !line.is_empty() && !line.starts_with(' ')))
        .collect();
    let command = Cli::command();
    assert_eq!(lines.len(), keys(&command, "agent").count());
    for text in lines.iter().map(|line| (*line).to_owned()).chain([lines.join("\n"), file.clone()]) {
        std::fs::write(&path, &text).unwrap();
        let matches = again.read().unwrap_or_else(|error| panic!("{error}: {text}"));
        Cli::from_arg_matches(&matches).unwrap();
    }
    for key in CHANGEABLE {
        assert!(keys(&command, "agent").any(|arg| arg.get_long() == Some(key)), "{key} is no option");
    }
}
