//! What the stories, the demo and the bench run with: network namespaces of our own, a real nginx,
//! upstreams that misbehave on request, and proxytrace as its users run it.
//!
//! Everything here panics with a clear message instead of returning an error, is unique to the process that made it,
//! and goes away when it is dropped.
//!
//! - [`netns`]: network namespaces, and [`stage`]: two of them joined by a cable, for IPv4 or IPv6
//! - [`nginx`], [`haproxy`]: the real ones under names of their own; [`backend`]: the upstreams that it connects to, [`speech`]: and what they speak
//! - [`proxytrace`]: `trace` and `agent`; [`metrics`]: what the agent exposes
//! - [`client`]: a program that connects as planned and counts what came of it
//! - [`dns`], [`name_server`]: name servers; [`fuse`]: a file system that does not answer; [`balancer`], [`sockmap`]: what other programs of a host do to sockets; [`empty`]: one that
//!   does nothing
//! - [`filter`]: what a container engine keeps from a process; [`bpf`]: what a process keeps in the kernel
//! - [`terminal`], [`browser`]: those with somebody before them
//! - [`supervisor`]: the demo and the bench leave nothing behind
//! - [`child`], [`http`], [`scale`], [`scratch`], [`skip`], [`wait`]: the small things that the others stand on

#![allow(clippy::missing_panics_doc, reason = "panicking is how a test helper reports")]

pub mod netns;
pub mod stage;

pub mod backend;
pub mod haproxy;
pub mod nginx;
pub mod speech;

pub mod metrics;
pub mod proxytrace;

pub mod client;

pub mod balancer;
pub mod empty;
pub mod filter;
pub mod program;
pub mod sockmap;

pub mod dns;
pub mod fuse;
pub mod name_server;

pub mod bpf;

pub mod supervisor;

pub mod browser;
pub mod terminal;

pub mod child;
pub mod http;
mod process;
pub mod scale;
pub mod scratch;
pub mod skip;
pub mod wait;
