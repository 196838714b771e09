//! The user that nginx's workers become.

use serde::{Deserialize, Serialize};

/// The `user` of nginx's workers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// As it is called where nginx runs.
    pub name: String,
    /// The same as `name` where it is not written.
    pub group: Option<String>,
}

impl User {
    /// That among directives which `-g` gives.
    pub(super) fn in_globals(globals: &str) -> Option<Self> {
        let mut words = globals.split(';').map(str::split_whitespace).find_map(|mut words| {
            let is_it = words.next() == Some("user");
            is_it.then_some(words)
        })?;
        Some(Self { name: words.next()?.to_owned(), group: words.next().map(str::to_owned) })
    }
}

#[cfg(test)]
mod tests {
    use super::User;

    #[test]
    fn a_user_of_the_command_line_is_read() {
        let check = |globals: &str, expected: Option<(&str, Option<&str>)>| {
            let expected =
                expected.map(|(name, group)| User { name: name.to_owned(), group: group.map(str::to_owned) });
            assert_eq!(User::in_globals(globals), expected, "{globals}");
        };
        check("daemon off;", None);
        check("daemon off; user www-data;", Some(("www-data", None)));
        check("user web staff; daemon off", Some(("web", Some("staff"))));
    }
}
