//! Findings.
mod declared;
mod evidence;
mod finding;
mod pace;
mod service;
