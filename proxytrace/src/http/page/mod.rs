//! `/`: the page for people, one file made of the sources beside this one. What it runs and how it looks is named by hash in its
//! policy, so that a browser runs nothing else, whatever names a configuration has.

use std::sync::LazyLock;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hyper::{
    HeaderMap, StatusCode,
    header::{
        CACHE_CONTROL, CONTENT_SECURITY_POLICY, HeaderName, HeaderValue, REFERRER_POLICY,
        X_CONTENT_TYPE_OPTIONS,
    },
};
use ring::digest::{SHA256, digest};

use super::{Answer, body::Body, response};

const FRAME: &str = include_str!("page.html");

const STYLE: &str = include_str!("page.css");

/// In the order in which they use each other.
const SCRIPTS: &[&str] = &[
    include_str!("text.js"),
    include_str!("model.js"),
    include_str!("charts.js"),
    include_str!("table.js"),
    include_str!("detail.js"),
    include_str!("main.js"),
];

/// What stands in the frame where they go.
const STYLE_MARK: &str = "/* page.css */";
const SCRIPT_MARK: &str = "/* scripts */";

struct Made {
    text: String,
    policy: String,
}

static PAGE: LazyLock<Made> = LazyLock::new(|| {
    let script = format!("\"use strict\";\n(() => {{\n{}}})();\n", SCRIPTS.concat());
    let hash = |text: &str| format!("'sha256-{}'", STANDARD.encode(digest(&SHA256, text.as_bytes())));
    // Without inline code, frames, forms or anything from elsewhere; it asks the agent, and nobody else.
    let policy = format!(
        "default-src 'none'; script-src {}; style-src {}; img-src data:; connect-src 'self'; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'",
        hash(&script),
        hash(STYLE)
    );
    Made { text: FRAME.replace(STYLE_MARK, STYLE).replace(SCRIPT_MARK, &script), policy }
});

/// The page.
pub(super) fn page() -> Answer {
    let mut answer = response(StatusCode::OK, "text/html; charset=utf-8", Body::whole(PAGE.text.as_str()));
    if let Ok(policy) = HeaderValue::from_str(&PAGE.policy) {
        answer.headers_mut().insert(CONTENT_SECURITY_POLICY, policy);
    }
    protect(answer.headers_mut());
    answer
}

/// What answers to browsers have: they are kept nowhere, taken for what they are, and no other site has them.
pub(super) fn protect(headers: &mut HeaderMap) {
    let fields = [
        (CACHE_CONTROL, "no-store"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ];
    headers.extend(fields.map(|(name, value)| (name, HeaderValue::from_static(value))));
}

#[cfg(test)]
mod tests {
    use super::{PAGE, SCRIPTS};

    #[test]
    fn the_page_is_whole_and_names_nothing_elsewhere() {
        let page = &PAGE.text;
        assert!(!page.contains("/* page.css */") && !page.contains("/* scripts */"));
        assert!(page.matches("<script>").count() == 1 && page.matches("<style>").count() == 1);
        // The name of a vocabulary is no address, and nobody asks for it.
        let page = page.replace("http://www.w3.org/2000/svg", "");
        for other in ["http://", "https://", "//cdn", "@import", "url("] {
            assert!(!page.contains(other), "{other}");
        }
        assert!(PAGE.policy.matches("'sha256-").count() == 2 && !PAGE.policy.contains("unsafe"));
    }

    /// What others have named becomes text, never a part of the page.
    #[test]
    fn scripts_make_no_html_of_text() {
        let script = SCRIPTS.concat();
        for way in [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "Function(",
            ".onclick",
        ] {
            assert!(!script.contains(way), "{way}");
        }
    }
}
