//! A version of nginx.

use std::{fmt, str::FromStr};

/// What stands before the version in the bytes of the program.
const MARK: &[u8] = b"nginx version: nginx/";

/// A version of nginx.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version([u16; 3]);

impl Version {
    /// From this one on connections to upstreams are kept unless the configuration says otherwise.
    pub(crate) const KEEPS: Self = Self([1, 29, 7]);

    /// Made of its three numbers.
    #[must_use]
    pub const fn new(major: u16, minor: u16, patch: u16) -> Self {
        Self([major, minor, patch])
    }

    /// The version of a program, found among its bytes.
    #[must_use]
    pub fn of_program(program: &[u8]) -> Option<Self> {
        let at = program.windows(MARK.len()).position(|window| window == MARK)? + MARK.len();
        let rest = &program[at..];
        let end = rest.iter().position(|byte| !byte.is_ascii_digit() && *byte != b'.')?;
        std::str::from_utf8(&rest[..end]).ok()?.parse().ok()
    }
}

impl FromStr for Version {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim().strip_prefix("nginx/").unwrap_or(text.trim());
        let mut numbers = text.split('.').map(str::parse::<u16>);
        let mut next = || numbers.next().and_then(Result::ok);
        match (next(), next(), next(), next()) {
            (Some(major), Some(minor), Some(patch), None) => Ok(Self([major, minor, patch])),
            _ => Err("not a version of nginx; write 1.28.0".to_owned()),
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [major, minor, patch] = self.0;
        write!(f, "{major}.{minor}.{patch}")
    }
}

#[cfg(test)]
mod tests {
    use super::Version;

    #[test]
    fn a_version_is_read_from_text_and_from_a_program() {
        assert_eq!("1.28.0".parse(), Ok(Version::new(1, 28, 0)));
        assert_eq!("nginx/1.22.1".parse(), Ok(Version::new(1, 22, 1)));
        assert!("1.28".parse::<Version>().is_err() && "1.28.0.1".parse::<Version>().is_err());
        assert!(Version::new(1, 9, 9) < Version::new(1, 25, 1));
        assert_eq!(
            Version::of_program(b"\0x\0nginx version: nginx/1.22.1\n\0"),
            Some(Version::new(1, 22, 1))
        );
        assert_eq!(Version::of_program(b"\0nginx version: \0"), None);
    }
}
