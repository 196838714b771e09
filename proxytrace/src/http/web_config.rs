//! The file of --web-config, in the format that Prometheus's exporters share (exporter-toolkit). What is not supported is refused by its
//! name: a limit that is written and does not hold would be worse than none.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use hyper::{
    HeaderMap,
    header::{HeaderName, HeaderValue},
};
use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::Value;

use super::files::Files;
use crate::config_file;

/// A file of --web-config that cannot be used, or something that it names.
#[derive(Debug, thiserror::Error)]
#[error("{}: {why}", .path.display())]
pub struct Unusable {
    path: PathBuf,
    why: String,
}

/// Keys of a part of the file.
struct Section {
    /// `None` at the top.
    name: Option<&'static str>,
    supported: &'static [&'static str],
    /// Those that the format has as well.
    unsupported: &'static [&'static str],
}

const SECTIONS: &[Section] = &[
    Section {
        name: None,
        supported: &["tls_server_config", "http_server_config", "basic_auth_users"],
        unsupported: &["rate_limit"],
    },
    Section {
        name: Some("tls_server_config"),
        supported: &[
            "cert_file",
            "key_file",
            "client_auth_type",
            "client_ca_file",
            "min_version",
            "max_version",
        ],
        unsupported: &[
            "cert",
            "key",
            "client_ca",
            "client_allowed_sans",
            "cipher_suites",
            "prefer_server_cipher_suites",
            "curve_preferences",
        ],
    },
    Section { name: Some("http_server_config"), supported: &["http2", "headers"], unsupported: &[] },
];

/// The header fields that the format knows, and the values that it allows; any where there are none.
const HEADERS: &[(&str, &[&str])] = &[
    ("Content-Security-Policy", &[]),
    ("Strict-Transport-Security", &[]),
    ("X-Content-Type-Options", &["nosniff"]),
    ("X-Frame-Options", &["deny", "sameorigin"]),
    ("X-XSS-Protection", &[]),
];

/// What the file says.
#[derive(Debug, Default)]
pub(super) struct WebConfig {
    pub(super) tls: Option<TlsSection>,
    http: Option<HttpSection>,
    /// The hash of each user's password.
    pub(super) users: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Deserialize)]
pub(super) struct TlsSection {
    pub(super) cert_file: PathBuf,
    pub(super) key_file: PathBuf,
    #[serde(default)]
    pub(super) client_auth_type: ClientAuth,
    #[serde(default, deserialize_with = "unless_empty")]
    pub(super) client_ca_file: Option<PathBuf>,
    #[serde(default)]
    pub(super) min_version: Version,
    #[serde(default = "Version::newest")]
    pub(super) max_version: Version,
}

/// Whether a client needs a certificate. Those ways in which nobody checks it are not supported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub(super) enum ClientAuth {
    #[default]
    #[serde(rename = "NoClientCert", alias = "")]
    None,
    #[serde(rename = "VerifyClientCertIfGiven")]
    IfGiven,
    #[serde(rename = "RequireAndVerifyClientCert")]
    Required,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub(super) enum Version {
    #[default]
    #[serde(rename = "TLS12")]
    Tls12,
    #[serde(rename = "TLS13")]
    Tls13,
}

impl Version {
    const fn newest() -> Self {
        Self::Tls13
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct HttpSection {
    http2: bool,
    headers: Option<BTreeMap<String, Value>>,
}

/// A path that is written as `""` is none, as in a file that a template has made.
fn unless_empty<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<PathBuf>, D::Error> {
    let path = Option::<PathBuf>::deserialize(deserializer)?;
    Ok(path.filter(|path| !path.as_os_str().is_empty()))
}

impl WebConfig {
    /// Reads the file.
    pub(super) fn read(path: &Path, files: &mut Files) -> Result<Self, Unusable> {
        let unusable = |why: String| Unusable { path: path.to_owned(), why };
        let bytes = files.read(path).map_err(|error| unusable(config_file::why_unreadable(&error)))?;
        let text = String::from_utf8(bytes).map_err(|error| unusable(error.to_string()))?;
        Self::parse(&text).map_err(unusable)
    }

    fn parse(text: &str) -> Result<Self, String> {
        let is_blank = |line: &str| matches!(line.trim().as_bytes(), [] | [b'#', ..] | b"---");
        if text.lines().all(is_blank) {
            return Ok(Self::default());
        }
        let value: Value = serde_saphyr::from_str(text).map_err(|error| first_line(&error))?;
        check_keys(&value)?;
        let config = Self {
            tls: section(&value, "tls_server_config")?,
            http: section(&value, "http_server_config")?,
            users: section(&value, "basic_auth_users")?,
        };
        if config.http.as_ref().is_some_and(|http| http.http2) {
            return Err("http_server_config.http2: true is not supported; HTTP/1.1 is spoken".to_owned());
        }
        if let Some(TlsSection {
            cert_file,
            key_file,
            client_auth_type,
            client_ca_file,
            min_version,
            max_version,
        }) = &config.tls
        {
            for (name, path) in [("cert_file", cert_file), ("key_file", key_file)] {
                if path.as_os_str().is_empty() {
                    return Err(format!("tls_server_config.{name} is empty; write the path of a file (PEM)"));
                }
            }
            if (*client_auth_type == ClientAuth::None) != client_ca_file.is_none() {
                return Err("tls_server_config: client_auth_type and client_ca_file go together".to_owned());
            }
            if min_version > max_version {
                return Err("tls_server_config: min_version is above max_version".to_owned());
            }
        }
        config.headers()?;
        Ok(config)
    }

    /// Fields that each answer gets.
    pub(super) fn headers(&self) -> Result<HeaderMap, String> {
        let fields = self.http.iter().flat_map(|http| &http.headers).flatten();
        fields
            .map(|(name, value)| {
                let wrong = |why: &str| format!("http_server_config.headers: {name}: {why}");
                let Some((_, allowed)) = HEADERS.iter().find(|(known, _)| known == name) else {
                    let known: Vec<_> = HEADERS.iter().map(|(known, _)| *known).collect();
                    return Err(wrong(&format!("unknown; the format knows {}", known.join(", "))));
                };
                let value = match value {
                    Value::String(text) => text.clone(),
                    // YAML takes `X-XSS-Protection: 0` for a number.
                    Value::Number(_) | Value::Bool(_) => value.to_string(),
                    Value::Null => String::new(),
                    Value::Array(_) | Value::Object(_) => return Err(wrong("a text is expected here")),
                };
                if !allowed.is_empty() && !allowed.contains(&&*value) {
                    return Err(wrong(&format!("{value:?} has no meaning; write {}", allowed.join(" or "))));
                }
                let parsed = HeaderName::from_bytes(name.as_bytes()).ok();
                let value = HeaderValue::from_str(&value).ok();
                parsed.zip(value).ok_or_else(|| wrong("not the value of a header field"))
            })
            .collect()
    }
}

impl Unusable {
    pub(super) fn new(path: &Path, why: String) -> Self {
        Self { path: path.to_owned(), why }
    }
}

fn check_keys(value: &Value) -> Result<(), String> {
    for Section { name, supported, unsupported } in SECTIONS {
        let at = name.map_or(Some(value), |name| value.get(name));
        let shown = |key: &str| name.map_or(key.to_owned(), |name| format!("{name}.{key}"));
        let mut keys = match at {
            None | Some(Value::Null) if name.is_some() => continue,
            Some(Value::Object(keys)) => keys.keys(),
            Some(Value::Null) => return Ok(()),
            _ => return Err(format!("{} is not a table of keys", name.unwrap_or("the file"))),
        };
        if let Some(key) = keys.find(|key| !supported.contains(&&***key)) {
            if unsupported.contains(&&**key) {
                return Err(format!("{} is not supported; remove it", shown(key)));
            }
            let all = supported.iter().chain(*unsupported).copied();
            let hint = match config_file::nearest(key, all) {
                Some(nearest) => format!("did you mean {nearest}?"),
                None => format!("there can be {}", supported.join(", ")),
            };
            return Err(format!("unknown key {}; {hint}", shown(key)));
        }
    }
    Ok(())
}

/// A part of the file, where it is there.
fn section<T: DeserializeOwned>(value: &Value, name: &str) -> Result<Option<T>, String> {
    let at = value.get(name).cloned().unwrap_or_default();
    serde_json::from_value(at).map_err(|error| format!("{name}: {error}"))
}

fn first_line(error: &impl ToString) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::{ClientAuth, Version, WebConfig};

    #[test]
    fn the_format_of_the_exporters_is_read() {
        let text = "tls_server_config:\n  cert_file: a.crt\n  key_file: a.key\n  min_version: TLS13\n  \
                    client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.crt\n\
                    http_server_config:\n  http2: false\n  headers:\n    X-Frame-Options: deny\n\
                    basic_auth_users:\n  alice: $2y$10$abc\n";
        let config = WebConfig::parse(text).unwrap();
        let tls = config.tls.as_ref().unwrap();
        assert_eq!((tls.client_auth_type, tls.min_version), (ClientAuth::Required, Version::Tls13));
        assert_eq!(config.headers().unwrap()["x-frame-options"], "deny");
        assert_eq!(config.users.unwrap()["alice"], "$2y$10$abc");
        let text = "http_server_config:\n  headers:\n    X-XSS-Protection: 0\n";
        assert_eq!(WebConfig::parse(text).unwrap().headers().unwrap()["x-xss-protection"], "0");
        for empty in [
            "",
            "# nothing\n",
            "  # nothing\n",
            "---\n",
            "null\n",
            "{}\n",
            "basic_auth_users:\n",
            "tls_server_config:\n",
            "http_server_config:\n  headers:\n",
        ] {
            let config = WebConfig::parse(empty).unwrap();
            assert!(config.tls.is_none() && config.users.is_none(), "{empty}");
        }
    }

    #[test]
    fn what_is_not_supported_is_refused_by_name() {
        let check = |text: &str, expected: &str| {
            let error = WebConfig::parse(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        };
        let tls = |more: &str| format!("tls_server_config: {{cert_file: a, key_file: b{more}}}");
        check("rate_limit: {burst: 1}", "rate_limit is not supported");
        check(&tls(", client_allowed_sans: [a]"), "tls_server_config.client_allowed_sans is not supported");
        check(&tls(", cipher_suites: [a]"), "tls_server_config.cipher_suites is not supported");
        check(&tls(", cert_fil: a"), "unknown key tls_server_config.cert_fil; did you mean cert_file?");
        check("basic_auth_user: {}", "unknown key basic_auth_user; did you mean basic_auth_users?");
        check(&tls(", client_auth_type: RequireAnyClientCert"), "RequireAnyClientCert");
        check(&tls(", client_auth_type: RequireAndVerifyClientCert"), "go together");
        check(&tls(", client_auth_type: RequireAndVerifyClientCert, client_ca_file: ''"), "go together");
        check("tls_server_config: {cert_file: '', key_file: b}", "tls_server_config.cert_file is empty");
        check("TLS_server_config: {}", "did you mean tls_server_config?");
        check(
            "zzz: 1",
            "unknown key zzz; there can be tls_server_config, http_server_config, basic_auth_users",
        );
        check("basic_auth_users: {a: 1}", "basic_auth_users: invalid type: integer `1`");
        check("basic_auth_users: {a: }", "basic_auth_users: invalid type: null");
        check("http_server_config: {headers: {X-Frame-Options: maybe}}", "write deny or sameorigin");
        check(
            "http_server_config: {headers: {X-XSS-Protection: [1]}}",
            "X-XSS-Protection: a text is expected here",
        );
        check(&tls(", min_version: TLS10"), "TLS10");
        check(&tls(", min_version: TLS13, max_version: TLS12"), "above max_version");
        check("tls_server_config: {cert_file: a}", "key_file");
        check("tls_server_config: yes", "tls_server_config is not a table");
        check("http_server_config: {http2: true}", "http2: true is not supported");
        check("http_server_config: {headers: {X-Mine: a}}", "X-Mine: unknown");
        check("[a]", "the file is not a table");
        check("a: b: c", "");
    }
}
