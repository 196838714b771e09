//! What somebody may have meant.

/// Shorter names are like too many others, in characters.
const MIN_LENGTH: usize = 4;

/// The candidate that differs from a name by a slip of the finger: one letter, or two swapped; two in long names.
pub(super) fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let name = name.to_ascii_lowercase();
    let allowed = match name.chars().count() {
        0..MIN_LENGTH => return None,
        MIN_LENGTH..8 => 1,
        _ => 2,
    };
    let distance = |candidate: &str| strsim::osa_distance(&name, &candidate.to_ascii_lowercase());
    let near = candidates.map(|candidate| (distance(candidate), candidate));
    near.filter(|(distance, _)| (1..=allowed).contains(distance)).min().map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn a_slip_of_the_finger_is_recognised() {
        let check = |name: &str, expected: Option<&str>| {
            let candidates = ["api", "web", "php-fpm", "api.backend.v1", "proxy_pass"];
            assert_eq!(nearest(name, candidates.into_iter()), expected, "{name}");
        };
        check("apii", Some("api"));
        check("phpfpm", Some("php-fpm"));
        check("api.backend.v2", Some("api.backend.v1"));
        check("porxy_pass", Some("proxy_pass"));
        check("proxy_pass", None);
        check("app", None);
        check("mail", None);
    }
}
