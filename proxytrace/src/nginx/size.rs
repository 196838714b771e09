//! nginx's ways to write numbers and sizes.

/// What nginx counts with.
const MAX: u64 = i64::MAX.unsigned_abs();

/// What letters behind a number stand for.
const UNITS: [(char, u64); 3] = [('k', 1 << 10), ('m', 1 << 20), ('g', 1 << 30)];

/// A number: digits, without a sign.
pub(crate) fn number(text: &str) -> Option<u64> {
    let is_one = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|number| is_one && *number <= MAX)
}

/// `8k`, `1m`: a size in memory, in bytes.
pub(crate) fn size(text: &str) -> Option<u64> {
    read(text, &UNITS[..2])
}

/// `8k`, `1m`, `2g`: a size of a file or of a body, in bytes.
pub(crate) fn offset(text: &str) -> Option<u64> {
    read(text, &UNITS)
}

fn read(text: &str, units: &[(char, u64)]) -> Option<u64> {
    let unit = units.iter().find(|(letter, _)| text.ends_with([*letter, letter.to_ascii_uppercase()]));
    let (digits, factor) = unit.map_or((text, 1), |(_, factor)| (&text[..text.len() - 1], *factor));
    number(digits)?.checked_mul(factor).filter(|bytes| *bytes <= MAX)
}

#[cfg(test)]
mod tests {
    use super::{number, offset, size};

    #[test]
    fn numbers_and_sizes_are_read_as_nginx_reads_them() {
        assert_eq!(["0", "007", "9223372036854775807"].map(number), [0, 7, u64::MAX / 2].map(Some));
        assert_eq!(["", "+1", "-1", "1k", "9223372036854775808"].map(number), [None; 5]);
        assert_eq!(["8", "8k", "1M"].map(size), [8, 8_192, 1 << 20].map(Some));
        assert_eq!(["k", "1g", "8796093022208m"].map(size), [None; 3]);
        assert_eq!(["1G", "8589934591g"].map(offset), [1 << 30, 8_589_934_591 << 30].map(Some));
        assert_eq!(["8589934592g", "1t", "g"].map(offset), [None; 3]);
    }
}
