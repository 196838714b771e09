//! What the tests against other programs share.

pub(crate) mod nginx;
pub(crate) mod random;
pub(crate) mod snippets;
