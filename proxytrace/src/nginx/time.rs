//! nginx's way to write a time.

/// Letters, and how many milliseconds they stand for. `m` is a minute and `M` a month.
const UNITS: [(&str, u64); 8] = [
    ("ms", 1),
    ("s", 1_000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
    ("w", 7 * 86_400_000),
    ("M", 30 * 86_400_000),
    ("y", 365 * 86_400_000),
];

/// `60`, `500ms`, `1m 30s`: in milliseconds. A number alone is in seconds. `None` for what is no time.
pub(crate) fn milliseconds(text: &str) -> Option<u64> {
    let mut rest = text.trim_start_matches(' ');
    let mut total: Option<u64> = None;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (number, after) = rest.split_at(digits);
        let letters = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let (unit, after) = after.split_at(letters);
        let unit = match unit {
            "" => 1_000,
            unit => UNITS.iter().find(|(name, _)| *name == unit)?.1,
        };
        let part = number.parse::<u64>().ok()?.checked_mul(unit)?;
        total = Some(total.unwrap_or(0).checked_add(part)?);
        rest = after.trim_start_matches(' ');
    }
    total
}

#[cfg(test)]
mod tests {
    use super::milliseconds;

    #[test]
    fn times_are_read_as_nginx_reads_them() {
        let check = |text: &str, expected: Option<u64>| assert_eq!(milliseconds(text), expected, "{text:?}");
        check("60", Some(60_000));
        check("500ms", Some(500));
        check("1m 30s", Some(90_000));
        check("1m30", Some(90_000));
        check("1d", Some(86_400_000));
        check("1M", Some(30 * 86_400_000));
        check("", None);
        check("s", None);
        check("5 parsecs", None);
        check("99999999999999999y", None);
    }
}
