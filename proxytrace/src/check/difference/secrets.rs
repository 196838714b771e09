//! What may be a secret in a text of a configuration, and is not shown: users and passwords of URLs, and what is given to a thing whose
//! name says that it is a secret. Text that is only variables holds none.

use super::canonical::{Line, NAMING};
use crate::nginx::{directives, variables::names};

/// Stands for what is left out.
pub(super) const HIDDEN: &str = "(hidden)";

/// nginx's own directives of which all arguments may be secrets.
const SECRET_DIRECTIVES: [&str; 2] = ["secure_link_secret", "secure_link_md5"];

/// Those of which the second one is.
const SECRET_SECONDS: [&str; 1] = ["auth_http_header"];

/// What is in the name of a secret, where only its letters and digits count.
const IN_NAMES: [&str; 12] = [
    "authorization",
    "credential",
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "apikey",
    "authkey",
    "accesskey",
    "privatekey",
    "signingkey",
];

/// The last word of the name of a secret.
const LAST_IN_NAMES: [&str; 4] = ["auth", "pass", "pwd", "jwt"];

/// Whole names: of a header with what only one client has been given, and of a parameter.
const WHOLE_NAMES: [&str; 2] = ["cookie", "key"];

/// What stands before a secret in a header.
const SCHEMES: [&str; 3] = ["basic ", "bearer ", "token "];

/// What ends a value within a text.
const ENDS: [char; 9] = ['&', ';', ',', '"', '\'', '\n', '\r', '}', ')'];

/// Whether the name of a header, a variable or a parameter says that it is a secret.
pub(super) fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let letters: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
    let last = name.rsplit(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or_default();
    WHOLE_NAMES.contains(&&*name)
        || IN_NAMES.iter().any(|piece| letters.contains(piece))
        || LAST_IN_NAMES.contains(&last)
}

/// Whether a text has a variable in it whose name says so.
pub(super) fn has_secret(text: &str) -> bool {
    names(text).any(is_secret)
}

/// The words of a directive without secrets.
pub(super) fn without(Line { name, words, .. }: &Line) -> Vec<String> {
    let is_foreign = directives::of(name).is_empty();
    let all = SECRET_DIRECTIVES.contains(&&**name) || is_foreign && is_secret(name);
    let second = SECRET_SECONDS.contains(&&**name)
        || (name == "set" || NAMING.iter().any(|end| name.ends_with(end)))
            && words.first().is_some_and(|first| is_secret(first));
    let compared = name == "if" && words.first().is_some_and(|first| has_secret(first));
    let word = |(at, word): (usize, &String)| match at {
        _ if all => hidden(word),
        1 if second => hidden(word),
        2.. if compared => hidden(word),
        _ => masked(word),
    };
    words.iter().enumerate().map(word).collect()
}

/// Hides what is not only variables, behind a scheme.
pub(super) fn hidden(text: &str) -> String {
    let (scheme, secret) = after_scheme(text);
    if has_literal(secret) { format!("{scheme}{HIDDEN}") } else { text.to_owned() }
}

/// Hides what may be a secret within any text.
pub(super) fn masked(text: &str) -> String {
    let (scheme, secret) = after_scheme(text);
    if !scheme.is_empty() && has_literal(secret) && !secret.contains(' ') {
        return format!("{scheme}{HIDDEN}");
    }
    without_values(&without_users(text))
}

/// Basic or Bearer, and what follows.
fn after_scheme(text: &str) -> (&str, &str) {
    let is_scheme = |start: &str| SCHEMES.iter().any(|scheme| scheme.eq_ignore_ascii_case(start));
    let end = text.find(' ').map_or(0, |at| at + 1);
    if is_scheme(&text[..end]) { text.split_at(end) } else { ("", text) }
}

fn has_literal(text: &str) -> bool {
    let mut rest = text;
    while let Some(after) = rest.strip_prefix("${") {
        rest = after.split_once('}').map_or("", |(_, rest)| rest);
    }
    !rest.is_empty()
}

/// A URL's user and password.
fn without_users(text: &str) -> String {
    let mut shown = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, authority) = rest.split_at(at + 3);
        shown.push_str(before);
        let end = authority.find(|c: char| "/?#\"' \n".contains(c)).unwrap_or(authority.len());
        rest = authority;
        if let Some(host) = authority[..end].rfind('@') {
            shown.push_str(if has_literal(&authority[..host].replace(':', "")) {
                HIDDEN
            } else {
                &authority[..host]
            });
            rest = &authority[host..];
        }
    }
    shown + rest
}

/// `token=…`, and `token: …` as headers and objects have it.
fn without_values(text: &str) -> String {
    let mut shown = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(['=', ':']) {
        let (before, after) = rest.split_at(at);
        let begins = before
            .trim_end_matches(['"', '\'', ' '])
            .rfind(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '-'))
            .map_or(0, |at| at + before[at..].chars().next().map_or(1, char::len_utf8));
        let name = before[begins..].trim_matches(['"', '\'', ' ']);
        let value = after[1..].trim_start_matches([' ', '"', '\'']);
        // A port follows a colon at once.
        let is_value = after.starts_with('=') || value.len() + 1 < after.len();
        let end = value.find(ENDS).unwrap_or(value.len());
        shown.push_str(before);
        if is_value && is_secret(name) && has_literal(&value[..end]) {
            shown.push_str(&after[..after.len() - value.len()]);
            shown.push_str(&hidden(&value[..end]));
            rest = &value[end..];
        } else {
            shown.push_str(&after[..1]);
            rest = &after[1..];
        }
    }
    shown + rest
}

#[cfg(test)]
mod tests {
    use super::{HIDDEN, Line, masked, without};

    #[test]
    fn what_may_be_a_secret_is_hidden_and_nothing_else() {
        let check = |directive: &str, expected: &str| {
            let mut words = directive.split('|').map(str::to_owned);
            let line = Line { name: words.next().unwrap(), words: words.collect(), block: Vec::new() };
            assert_eq!(without(&line).join("|"), expected.replace('#', HIDDEN), "{directive}");
        };
        check("proxy_set_header|authorization|Basic aHVudGVyMg==", "authorization|Basic #");
        check("proxy_set_header|authorization|Bearer ${token}", "authorization|Bearer ${token}");
        check("proxy_set_header|authorization|", "authorization|");
        check("proxy_set_header|x-api-key|hunter2", "x-api-key|#");
        check("proxy_set_header|cookie|session=hunter2", "cookie|#");
        check("add_header|set-cookie|a=b; Path=/", "set-cookie|a=b; Path=/");
        check("proxy_set_header|x-auth|hunter2", "x-auth|#");
        check("proxy_set_header|x-author|me", "x-author|me");
        check("fastcgi_param|DB_PASSWORD|hunter2", "DB_PASSWORD|#");
        check("fastcgi_param|SCRIPT_NAME|/x", "SCRIPT_NAME|/x");
        check("set|${api_token}|hunter2", "${api_token}|#");
        check("set|${color}|blue", "${color}|blue");
        check("secure_link_secret|hunter2", "#");
        check("secure_link_md5|${uri} hunter2", "#");
        check("auth_http_header|x-key|hunter2", "x-key|#");
        check("redis_password|hunter2", "#");
        check("server_tokens|off", "off");
        check("ssl_session_tickets|off", "off");
        check("if|${http_x_api_key}|!=|hunter2", "${http_x_api_key}|!=|#");
        check("if|${http_cookie}|~|lang=(de)", "${http_cookie}|~|lang=(de)");
        check("if|${arg_token}", "${arg_token}");
        check("more_set_headers|Authorization: Basic aHVudGVyMg==", "Authorization: Basic #");
    }

    #[test]
    fn a_text_is_shown_but_for_users_and_what_a_name_calls_secret() {
        let check = |text: &str, expected: &str| assert_eq!(masked(text), expected.replace('#', HIDDEN));
        check(
            "https://svc:hunter2@10.66.0.9:9443/x?apikey=hunter2&b=c",
            "https://#@10.66.0.9:9443/x?apikey=#&b=c",
        );
        check("http://a@b@api/@x", "http://#@api/@x");
        check("http://${user}:${word}@api", "http://${user}:${word}@api");
        check("see http://a:b@c or http://d:e@f", "see http://#@c or http://#@f");
        check("http://api:80/x?a=1", "http://api:80/x?a=1");
        check("http://auth:8080/", "http://auth:8080/");
        check("/x?token=${arg_token}", "/x?token=${arg_token}");
        check("/x?token=hunter2", "/x?token=#");
        check("https://svc:hunter2@${host}:8443/x?key=hunter2", "https://#@${host}:8443/x?key=#");
        check("{\"token\": \"hunter2\", \"a\": 1}", "{\"token\": \"#\", \"a\": 1}");
        check("{\"token\":\"hunter2\"}", "{\"token\":\"#\"}");
        check("Basic aHVudGVyMg==", "Basic #");
        check("Basic words about it", "Basic words about it");
        check("^/a(?<b>.*)${}", "^/a(?<b>.*)${}");
        check("@app", "@app");
        check("a@b.example", "a@b.example");
    }
}
