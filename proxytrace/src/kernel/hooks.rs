//! Which ways to attach are tried for a hook: those of the table that both halves share, or the one of `--hook-via`. Pure:
//! [`super::attach`] walks it.

use std::str::FromStr;

pub use proxytrace_ebpf::hooks::{Hook, Rung, Via, all};

/// A hook that is to be attached in one way only, or (`None`) not at all: `--hook-via`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forced {
    hook: &'static str,
    via: Option<Via>,
}

impl FromStr for Forced {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, way) = text.split_once('=').ok_or_else(|| {
            "write HOOK=WAY, such as connect=tp_btf; `proxytrace doctor` lists them".to_owned()
        })?;
        let hook = all()
            .find(|hook| hook.name == name)
            .ok_or_else(|| format!("unknown hook; expected one of {}", list(all().map(|hook| hook.name))))?;
        if way == NO_WAY && !hook.required {
            return Ok(Self { hook: hook.name, via: None });
        }
        let ways = || hook.rungs.iter().map(|rung| rung.via);
        match Via::ALL.into_iter().find(|via| via.name() == way && ways().any(|known| known == *via)) {
            Some(via) => Ok(Self { hook: hook.name, via: Some(via) }),
            None => {
                let none = (!hook.required).then_some(NO_WAY);
                Err(format!("{name} can be attached by {}", list(ways().map(Via::name).chain(none))))
            }
        }
    }
}

/// What leaves a hook out, and the label `via` of one that is not attached.
pub const NO_WAY: &str = "none";

fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.collect::<Vec<_>>().join(", ")
}

/// The ways to try for `hook`, best first, and whether they were asked for: then a refusal must not pass unnoticed.
#[must_use]
pub fn plan(hook: &'static Hook, forced: &[Forced]) -> (Vec<&'static Rung>, bool) {
    // The last one counts, as with other options.
    match forced.iter().rev().find(|forced| forced.hook == hook.name) {
        None => (hook.rungs.iter().collect(), false),
        Some(Forced { via, .. }) => {
            (hook.rungs.iter().filter(|rung| Some(rung.via) == *via).collect(), via.is_some())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Forced, Via, all, plan};

    #[test]
    fn a_way_can_be_forced_and_a_hook_left_out() {
        let ways = |name: &str, forced: &[&str]| -> (Vec<&str>, bool) {
            let forced: Vec<Forced> = forced.iter().map(|text| text.parse().unwrap()).collect();
            let (rungs, is_forced) = plan(all().find(|hook| hook.name == name).unwrap(), &forced);
            (rungs.iter().map(|rung| rung.via.name()).collect(), is_forced)
        };
        assert_eq!(ways("connect", &[]), (vec!["fentry", "kprobe", "tracepoint", "tp_btf", "raw_tp"], false));
        assert_eq!(ways("connect", &["state=raw_tp", "connect=kprobe"]), (vec!["kprobe"], true));
        assert_eq!(ways("connect", &["connect=kprobe", "connect=raw_tp"]), (vec!["raw_tp"], true));
        assert_eq!(ways("connect", &["connect=none"]), (vec![], false));
        assert_eq!(ways("tcp_connect", &["tcp_connect=state"]), (vec![Via::State.name()], true));
    }

    #[test]
    fn what_cannot_be_forced_is_refused_with_what_can() {
        let check = |text: &str, words: &str| {
            let error = text.parse::<Forced>().unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        };
        check("connect", "HOOK=WAY");
        check("conect=fentry", "fork, exec, exit, signal, connect, state");
        check("connect=state", "connect can be attached by fentry, kprobe, tracepoint, tp_btf, raw_tp, none");
        check("fork=none", "fork can be attached by tp_btf, raw_tp");
    }
}
