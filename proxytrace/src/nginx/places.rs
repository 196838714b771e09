//! Places of a configuration, as people write them.

use nginx_conf::{Config, Directive, Place};

/// What the files of a configuration are called.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Places<'a>(pub(crate) &'a Config);

impl Places<'_> {
    /// `path:line` of a directive.
    pub(crate) fn line(&self, directive: &Directive) -> String {
        self.at(directive.place())
    }

    /// `path:line`.
    pub(crate) fn at(&self, place: Place) -> String {
        let path = self.0.files.get(place.file as usize).map(|file| file.path.display());
        path.map_or_else(|| format!("?:{}", place.line), |path| format!("{path}:{}", place.line))
    }
}
