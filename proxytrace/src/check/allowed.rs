//! Findings that a comment in the configuration allows: `# proxytrace: allow ID` at the end of their line, or on lines before it
//! that hold nothing else.

use std::collections::HashMap;

use nginx_conf::Config;

use super::finding::Finding;

/// What such a comment begins with.
const MARK: &str = "# proxytrace: allow ";

/// Takes the allowed findings out, and says how many those were.
pub(super) fn take_out(config: &Config, findings: &mut Vec<Finding>) -> usize {
    let mut allowed: HashMap<(String, u32), Vec<String>> = HashMap::new();
    for file in &config.files {
        let text = String::from_utf8_lossy(&file.text);
        let path = file.path.display().to_string();
        // Those of lines that hold nothing else, for the next line that does.
        let mut waiting = Vec::new();
        for (line, number) in text.lines().zip(1u32..) {
            let code = line.trim_start();
            let ids = line.split_once(MARK).map(|(_, ids)| ids.split([',', ' ']).filter(|id| !id.is_empty()));
            waiting.extend(ids.into_iter().flatten().map(str::to_owned));
            if !code.is_empty() && !code.starts_with('#') && !waiting.is_empty() {
                allowed.insert((path.clone(), number), std::mem::take(&mut waiting));
            }
        }
    }
    if allowed.is_empty() {
        return 0;
    }
    let before = findings.len();
    findings.retain(|finding| {
        let ids = allowed.get(&(finding.file.clone(), finding.line));
        !ids.is_some_and(|ids| ids.iter().any(|id| id == finding.rule.id))
    });
    before - findings.len()
}

#[cfg(test)]
mod tests {
    use crate::check::{examples, examples::found};

    #[test]
    fn a_comment_allows_what_it_names_at_its_place() {
        let check = |text: &str, expected: &[&str]| {
            assert_eq!(examples::ids(text), expected, "{text}");
        };
        let with = |before: &str, behind: &str| {
            format!("http {{\n{before}upstream api {{ {behind}\nserver 10.0.0.5:80; }}\n}}")
        };
        check(&with("", ""), &["upstream-unused"]);
        check(&with("", "# proxytrace: allow upstream-unused"), &[]);
        check(&with("# later in use\n# proxytrace: allow upstream-unused, syntax\n# so\n\n", ""), &[]);
        check(&with("", "# proxytrace: allow upstream-empty"), &["upstream-unused"]);
        check(&with("# proxytrace: allow upstream-unused\n resolver 10.0.0.1;\n", ""), &["upstream-unused"]);
        assert_eq!(found(&with("", "# proxytrace: allow upstream-unused")).allowed, 1);
    }
}
