//! What `proxytrace check` prints for programs is as its schema says.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::check::Place;

/// What of a value is not as the schema says; `at` is where it is.
fn wrong(value: &Value, schema: &Value, root: &Value, at: &str) -> Vec<String> {
    if let Some(reference) = schema["$ref"].as_str() {
        let target = root.pointer(reference.trim_start_matches('#')).expect("what is referred to");
        return wrong(value, target, root, at);
    }
    let mut found = Vec::new();
    let is_of_type = match schema["type"].as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("integer") => value.is_u64(),
        Some(other) => panic!("{other} is not known here"),
        None => true,
    };
    let is_one = schema["enum"].as_array().is_none_or(|values| values.contains(value));
    let is_enough = schema["minimum"].as_u64().is_none_or(|least| value.as_u64() >= Some(least));
    if !(is_of_type && is_one && is_enough) {
        found.push(format!("{at}: {value}"));
    }
    for (key, value) in value.as_object().into_iter().flatten() {
        match schema["properties"].get(key) {
            Some(schema) => found.extend(wrong(value, schema, root, &format!("{at}.{key}"))),
            None => found.push(format!("{at}.{key} is not in the schema")),
        }
    }
    for key in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if value.get(key).is_none() {
            found.push(format!("{at}.{key} is missing"));
        }
    }
    for (number, value) in value.as_array().into_iter().flatten().enumerate() {
        found.extend(wrong(value, &schema["items"], root, &format!("{at}[{number}]")));
    }
    found
}

#[test]
fn json_is_as_its_schema_says() {
    let schema = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/check.schema.json");
    let schema: Value = serde_json::from_str(&fs::read_to_string(schema).expect("read it")).expect("JSON");
    let place = Place::new();
    let passing = |port: u16| {
        format!(
            "http {{ proxy_connect_timeout 1m; upstream api {{ server 127.0.0.1:{port}; }} upstream idle {{ server 10.0.0.1; }}
             # proxytrace: allow server-name-odd
             server {{ listen 80; server_name https://a; location / {{ proxy_pass http://api; }} location /b {{ proxy_pass http://gone.internal; }} }} }}"
        )
    };
    let [old, new] = [8001, 8002].map(|port| place.write(&format!("{port}.conf"), &passing(port)));
    let broken = place.write_as_is("broken.conf", "http {\n    server }\n}\n");
    let dump = place.write_as_is("dump", "# configuration file /etc/nginx/nginx.conf:\nevents {}\nhttp {}\n");
    for arguments in [
        &["--probe", "--against", &old, &new][..],
        &["--no-resolve", &new],
        &["-q", "--fail-on", "warning", &new],
        &[&broken],
        &["--against", &old, &dump],
    ] {
        let (_, stdout, stderr) = place.check(&[&["--format", "json"], arguments].concat());
        let report: Value = serde_json::from_str(&stdout).unwrap_or_else(|_| panic!("{stdout}{stderr}"));
        assert_eq!(wrong(&report, &schema, &schema, "report"), [""; 0], "{arguments:?}: {stdout}");
    }
    let (_, stdout, _) = place.check(&["--format", "json", "--probe", "--against", &old, &new]);
    let report: Value = serde_json::from_str(&stdout).expect("a report");
    let is_filled = |key: &str| report[key].as_array().is_some_and(|values| !values.is_empty());
    assert!(is_filled("findings") && is_filled("probes") && report["allowed"] == 1, "{report}");
    assert_eq!(report["changes"]["peers"].as_array().map(Vec::len), Some(1), "{report}");
    let (_, stdout, _) = place.check(&["--format", "json", "-q", &new]);
    assert!(!stdout.contains("\"note\""), "{stdout}");
}
