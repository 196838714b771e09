//! nginx's way to write a time.

/// Letters, and how many seconds they stand for, from the longest: they follow each other in this order, each at most once. `m` is a
/// minute and `M` a month.
const UNITS: [(&str, u64); 7] = [
    ("y", 365 * 86_400),
    ("M", 30 * 86_400),
    ("w", 7 * 86_400),
    ("d", 86_400),
    ("h", 3_600),
    ("m", 60),
    ("s", 1),
];
/// Where weeks stand among those: milliseconds are counted in nothing longer.
const WEEKS: usize = 2;
/// Where seconds do.
const SECONDS: usize = 6;
/// Behind those.
const MILLISECONDS: usize = 7;
/// What nginx counts with.
const MAX: u64 = i64::MAX.unsigned_abs();

/// `60`, `500ms`, `1m 30s`, where nginx takes milliseconds: in those. A number alone is in seconds. `None` for what is no time.
pub(crate) fn milliseconds(text: &str) -> Option<u64> {
    read(text, false)
}

/// `60`, `1m 30s`, `1y`, where nginx takes seconds: in those.
pub(crate) fn seconds(text: &str) -> Option<u64> {
    read(text, true)
}

fn read(text: &str, is_seconds: bool) -> Option<u64> {
    let second = if is_seconds { 1 } else { 1_000 };
    // The first unit that may follow.
    let mut next = if is_seconds { 0 } else { WEEKS };
    let (mut total, mut number, mut has_digits) = (0_u64, 0_u64, false);
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        if let Some(digit) = first.to_digit(10) {
            number = number.checked_mul(10)?.checked_add(digit.into())?;
            has_digits = true;
            rest = &rest[1..];
            continue;
        }
        let (length, unit) = if first == ' ' {
            // As a second, with nothing behind it but a number.
            let is_in_order = next <= SECONDS;
            next = MILLISECONDS + 1;
            (1, is_in_order.then_some(second)?)
        } else if rest.starts_with("ms") {
            let is_in_order = next <= MILLISECONDS && !is_seconds;
            next = MILLISECONDS + 1;
            (2, is_in_order.then_some(1)?)
        } else {
            let at = UNITS.iter().position(|(letter, _)| rest.starts_with(letter))?;
            let is_in_order = next <= at;
            next = at + 1;
            (1, is_in_order.then_some(UNITS[at].1 * second)?)
        };
        total = total.checked_add(number.checked_mul(unit)?)?;
        number = 0;
        rest = rest[length..].trim_start_matches(' ');
    }
    let total = total.checked_add(number.checked_mul(second)?)?;
    (has_digits && total <= MAX).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::{milliseconds, seconds};

    #[test]
    fn times_are_read_as_nginx_reads_them() {
        let check = |text: &str, expected: Option<u64>| assert_eq!(milliseconds(text), expected, "{text:?}");
        check("60", Some(60_000));
        check("500ms", Some(500));
        check("5s500ms", Some(5_500));
        check("1m 30s", Some(90_000));
        check("1m30", Some(90_000));
        check("1d", Some(86_400_000));
        check("1w", Some(7 * 86_400_000));
        check(" 5", Some(5_000));
        check("5 5", Some(10_000));
        check("m5", Some(5_000));
        check("9223372036854775", Some(9_223_372_036_854_775_000));
        for none in [
            "",
            "s",
            "5 parsecs",
            "99999999999999999y",
            "9223372036854776",
            "1M",
            "1y",
            "1m1m",
            "30s1m",
            "500ms5s",
            " 5s",
            "5 s",
            "-1",
            "٣",
        ] {
            check(none, None);
        }
    }

    #[test]
    fn seconds_are_counted_in_years_and_no_less_than_seconds() {
        let check = |text: &str, expected: Option<u64>| assert_eq!(seconds(text), expected, "{text:?}");
        check("60", Some(60));
        check("1y 2M", Some(425 * 86_400));
        check("1M1d", Some(31 * 86_400));
        check("1000ms", None);
        check("1M1y", None);
    }
}
