//! Words of directives in a form in which what means the same is the same: which directive takes what is in tables.

use std::net::{IpAddr, Ipv6Addr};

use crate::nginx::{
    directives::{self, Kind},
    time, values,
};

/// What the words of a directive are.
#[derive(Clone, Copy)]
enum Form {
    /// Times, also negative ones.
    Times,
    /// The last is a time.
    LastTime,
    Sizes,
    /// Case means nothing.
    Caseless,
    /// Networks of addresses.
    Networks,
    /// Addresses of servers of names.
    Resolvers,
    /// Whatever has a `=` in it is of the table of parameters.
    Parameters,
    /// Their order means nothing.
    Set,
    /// Nor does that of those behind the first.
    SetBehindFirst,
}

/// What directives take, besides what the table of directives says; a name that begins with a `*` is the end of one.
const FORMS: &[(&str, Form)] = &[
    ("expires", Form::Times),
    ("keepalive_timeout", Form::Times),
    ("resolver_timeout", Form::Times),
    ("*_cache_valid", Form::LastTime),
    ("limit_rate", Form::Sizes),
    ("limit_rate_after", Form::Sizes),
    ("*_limit_rate", Form::Sizes),
    ("proxy_download_rate", Form::Sizes),
    ("proxy_upload_rate", Form::Sizes),
    ("large_client_header_buffers", Form::Sizes),
    ("*_buffers", Form::Sizes),
    ("allow", Form::Networks),
    ("deny", Form::Networks),
    ("set_real_ip_from", Form::Networks),
    ("real_ip_header", Form::Caseless),
    ("*_types", Form::Caseless),
    ("*_hide_header", Form::Caseless),
    ("*_pass_header", Form::Caseless),
    ("*_ignore_headers", Form::Caseless),
    ("*_cache_methods", Form::Caseless),
    ("resolver", Form::Resolvers),
    ("resolver", Form::Parameters),
    ("limit_req", Form::Parameters),
    ("limit_req_zone", Form::Parameters),
    ("limit_conn_zone", Form::Parameters),
    ("*_cache_path", Form::Parameters),
    ("open_file_cache", Form::Parameters),
    ("server", Form::Parameters),
    ("resolver", Form::Set),
    ("limit_req", Form::Set),
    ("open_file_cache", Form::Set),
    ("*_next_upstream", Form::Set),
    ("*_cache_use_stale", Form::Set),
    ("*_cache_methods", Form::Set),
    ("*_ignore_headers", Form::Set),
    ("*ssl_protocols", Form::Set),
    ("*_types", Form::Set),
    ("gzip_proxied", Form::Set),
    ("keepalive_disable", Form::Set),
    ("userid_flags", Form::Set),
    ("imap_auth", Form::Set),
    ("pop3_auth", Form::Set),
    ("smtp_auth", Form::Set),
    ("limit_req_zone", Form::SetBehindFirst),
    ("limit_conn_zone", Form::SetBehindFirst),
    ("*_cache_path", Form::SetBehindFirst),
    ("server", Form::SetBehindFirst),
];

/// What a parameter's value is.
#[derive(Clone, Copy)]
enum Value {
    Time,
    Size,
    /// A name, and a size behind a colon.
    Zone,
    /// So many requests in a second or a minute.
    Rate,
}

/// Parameters whose value has several forms.
const PARAMETERS: &[(&str, Value)] = &[
    ("fail_timeout", Value::Time),
    ("slow_start", Value::Time),
    ("valid", Value::Time),
    ("inactive", Value::Time),
    ("loader_sleep", Value::Time),
    ("loader_threshold", Value::Time),
    ("manager_sleep", Value::Time),
    ("manager_threshold", Value::Time),
    ("max_size", Value::Size),
    ("min_free", Value::Size),
    ("zone", Value::Zone),
    ("keys_zone", Value::Zone),
    ("rate", Value::Rate),
];

/// Parameters that say what holds anyway, in their canonical form.
const USUAL_PARAMETERS: &[(&str, &str)] = &[
    ("server", "weight=1"),
    ("server", "max_fails=1"),
    ("server", "max_conns=0"),
    ("server", "fail_timeout=10s"),
    ("resolver", "ipv4=on"),
    ("resolver", "ipv6=on"),
    ("limit_req", "burst=0"),
    ("proxy_cache_path", "inactive=10m"),
    ("proxy_cache_path", "use_temp_path=on"),
];

/// The words of a directive in servers of a kind.
pub(super) fn put(kind: &str, name: &str, words: &mut Vec<String>) {
    let known = directives::of(name);
    let is_one_kind = |kinds: &[Kind]| known.first().is_some_and(|known| kinds.contains(&known.kind));
    if is_one_kind(&[Kind::Time, Kind::Seconds]) {
        Form::Times.put(words);
    }
    if is_one_kind(&[Kind::Size, Kind::Offset]) {
        Form::Sizes.put(words);
    }
    // A directive may be a flag in streams, and a list in servers of HTTP.
    if known.iter().any(|known| known.kind == Kind::Flag) || values::of(kind, name).is_some() {
        Form::Caseless.put(words);
    }
    let is_named = |of: &str| match of.strip_prefix('*') {
        Some(end) => name.ends_with(end),
        None => of == name,
    };
    for (_, form) in FORMS.iter().filter(|(of, _)| is_named(of)) {
        form.put(words);
    }
    words.retain(|word| !USUAL_PARAMETERS.iter().any(|(of, usual)| *of == name && usual == word));
}

impl Form {
    fn put(self, words: &mut Vec<String>) {
        let each = |words: &mut Vec<String>, form: fn(&str) -> String| {
            words.iter_mut().for_each(|word| *word = form(word));
        };
        match self {
            Self::Times => each(words, time_text),
            Self::LastTime => words.iter_mut().rev().take(1).for_each(|word| *word = time_text(word)),
            Self::Sizes => each(words, size_text),
            Self::Caseless => words.iter_mut().for_each(|word| word.make_ascii_lowercase()),
            Self::Networks => each(words, network),
            Self::Resolvers => each(words, resolver),
            Self::Parameters => each(words, parameter),
            Self::Set => {
                words.sort();
                words.dedup();
            }
            Self::SetBehindFirst => {
                if let Some(rest) = words.get_mut(1..) {
                    rest.sort();
                }
            }
        }
    }
}

fn parameter(word: &str) -> String {
    let Some((name, value)) = word.split_once('=') else { return word.to_owned() };
    let Some((_, of)) = PARAMETERS.iter().find(|(of, _)| *of == name) else { return word.to_owned() };
    let value = match of {
        Value::Time => time_text(value),
        Value::Size => size_text(value),
        Value::Zone => match value.rsplit_once(':') {
            Some((zone, size)) => format!("{zone}:{}", size_text(size)),
            None => value.to_owned(),
        },
        Value::Rate => rate(value),
    };
    format!("{name}={value}")
}

/// Requests in a minute as those in a second, where they are whole.
fn rate(text: &str) -> String {
    let minute = text.strip_suffix("r/m").and_then(|number| number.parse::<u64>().ok());
    match minute {
        Some(number) if number % 60 == 0 => format!("{}r/s", number / 60),
        _ => text.to_owned(),
    }
}

/// A number with the largest unit of which it is a multiple.
fn in_units(number: u64, units: &[(&str, u64)]) -> String {
    let unit = units.iter().find(|(_, size)| number != 0 && number.is_multiple_of(*size));
    unit.map_or_else(|| number.to_string(), |(unit, size)| format!("{}{unit}", number / size))
}

/// A time with its unit; a minus before it stays.
fn time_text(text: &str) -> String {
    const UNITS: [(&str, u64); 5] =
        [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
    let time = text.trim_start_matches(['-', '+']);
    let sign = &text[..text.len() - time.len()];
    match time::milliseconds(time) {
        Some(ms) => format!("{}{}", sign.trim_start_matches('+'), in_units(ms, &UNITS)),
        None => text.to_owned(),
    }
}

fn size_text(text: &str) -> String {
    const UNITS: [(&str, u64); 3] = [("g", 1 << 30), ("m", 1 << 20), ("k", 1 << 10)];
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = text[number.len()..].to_ascii_lowercase();
    let factor = UNITS.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor);
    let bytes = factor
        .or(unit.is_empty().then_some(1))
        .and_then(|factor| number.parse::<u64>().ok()?.checked_mul(factor));
    bytes.map_or_else(|| text.to_owned(), |bytes| in_units(bytes, &UNITS))
}

/// A network without what its mask leaves out, and without a mask where that leaves nothing out.
pub(super) fn network(text: &str) -> String {
    let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
    let Ok(address) = address.parse::<IpAddr>() else { return text.to_owned() };
    let (number, width) = match address {
        IpAddr::V4(address) => (u128::from(address.to_bits()), 32),
        IpAddr::V6(address) => (address.to_bits(), 128_u32),
    };
    let bits = match bits.map(str::parse::<u32>) {
        None => width,
        Some(Ok(bits)) if bits <= width => bits,
        Some(_) => return text.to_owned(),
    };
    let rest = width - bits;
    let masked = number.checked_shr(rest).unwrap_or(0).checked_shl(rest).unwrap_or(0);
    let address = match u32::try_from(masked) {
        Ok(masked) if width == 32 => IpAddr::from(masked.to_be_bytes()),
        _ => IpAddr::from(masked.to_be_bytes()),
    };
    if rest == 0 { address.to_string() } else { format!("{address}/{bits}") }
}

/// A server of names, at the port where they are.
fn resolver(word: &str) -> String {
    if word.contains('=') {
        return word.to_owned();
    }
    let word = host(&word.to_ascii_lowercase());
    word.strip_suffix(":53")
        .filter(|rest| !rest.contains(':') || rest.ends_with(']'))
        .unwrap_or(&word)
        .to_owned()
}

/// A host, with its port or not: an address of IPv6 has one form.
pub(super) fn host(text: &str) -> String {
    let inner = text.strip_prefix('[').and_then(|rest| rest.split_once(']'));
    match inner.map(|(address, rest)| (address.parse::<Ipv6Addr>(), rest)) {
        Some((Ok(address), rest)) => format!("[{address}]{rest}"),
        _ => text.to_owned(),
    }
}

/// A share of requests, in hundredths of a percent.
pub(super) fn share(text: &str) -> String {
    let hundredths = || {
        let number = text.strip_suffix('%')?;
        let (whole, part) = number.split_once('.').unwrap_or((number, ""));
        let part =
            part.get(..2).filter(|_| part.len() == 2).map_or_else(|| format!("{part:0<2}"), str::to_owned);
        let (whole, part) = (whole.parse::<u64>().ok()?, part.parse::<u64>().ok()?);
        (part < 100).then_some((whole, part))
    };
    match hundredths() {
        Some((whole, 0)) => format!("{whole}%"),
        Some((whole, part)) => format!("{whole}.{part:02}%"),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::{host, network, parameter, resolver, share, size_text, time_text};

    #[test]
    fn a_word_has_one_form() {
        let check = |form: fn(&str) -> String, text: &str, expected: &str| {
            assert_eq!(form(text), expected, "{text}");
            assert_eq!(form(expected), expected);
        };
        check(time_text, "86400", "1d");
        check(time_text, "90s", "90s");
        check(time_text, "1m 30s", "90s");
        check(time_text, "0", "0");
        check(time_text, "-24h", "-1d");
        check(time_text, "@15h30m", "@15h30m");
        check(time_text, "max", "max");
        check(size_text, "1024", "1k");
        check(size_text, "8K", "8k");
        check(size_text, "1025", "1025");
        check(size_text, "${size}", "${size}");
        check(network, "10.0.0.1/32", "10.0.0.1");
        check(network, "10.1.2.3/8", "10.0.0.0/8");
        check(network, "0.0.0.0/0", "0.0.0.0/0");
        check(network, "2001:db8:0:0::1/128", "2001:db8::1");
        check(network, "2001:db8::1/32", "2001:db8::/32");
        check(network, "::1", "::1");
        check(network, "all", "all");
        check(network, "10.0.0.1/33", "10.0.0.1/33");
        check(resolver, "10.0.0.1:53", "10.0.0.1");
        check(resolver, "[0:0::1]:53", "[::1]");
        check(resolver, "NS.example", "ns.example");
        check(host, "[0:0::1]:80", "[::1]:80");
        check(share, "10.00%", "10%");
        check(share, "0.5%", "0.50%");
        check(share, "*", "*");
        check(parameter, "rate=600r/m", "rate=10r/s");
        check(parameter, "rate=100r/m", "rate=100r/m");
        check(parameter, "zone=one:10240k", "zone=one:10m");
        check(parameter, "fail_timeout=60", "fail_timeout=1m");
        check(parameter, "route=60s", "route=60s");
    }
}
