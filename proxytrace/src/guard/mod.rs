//! A change of a proxy that takes itself back: runs it, watches what the new generation's connects do, and undoes it where they fail.
//!
//! * [`run`]: the steps in their order. It drives a session, and asks everything below.
//! * [`options`]: what is asked for. [`earlier`]: what the agent has counted before.
//! * `known`: how proxies are configured. `preflight`: what is looked at before anything is loaded: `check`, `nginx -t`.
//! * `scope`: which proxies a change is about, and which not.
//! * [`observer`]: by which programs it sees, the agent's or its own. `watching`: what it sees; `seen`: what it has counted, by upstream and side.
//! * `changes`: which upstreams a change is about. `verdict`: whether they work. Both pure.
//! * `probe`: connects as the proxy would, as `check` does. `probed`: what came of it.
//! * `files`: a directory's listing, its copy, and how it is put back. `state`: what outlives a guard that is killed.
//! * `judging`: waits for the new generation and for the verdict. `undo`: takes a change back.
//! * `command`: other programs; `group`: the processes that they are. `interrupts`: signals. `report`: what came of it, for people and for programs. Pure.

pub mod earlier;
pub mod observer;
pub mod options;
pub mod run;

mod changes;
mod command;
mod difference;
mod files;
mod group;
mod interrupts;
mod judging;
mod known;
mod preflight;
mod probe;
mod probed;
mod report;
mod scope;
mod seen;
mod state;
mod undo;
mod verdict;
mod watching;
