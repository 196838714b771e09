//! The bill of materials (SBOM) in the form of CycloneDX: what is in the program, of both its halves.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result};
use serde_json::Value;
use xtask_tools::{cargo, shell, source_date};

use crate::targets::Target;

/// The halves of the program, by their packages; the kernel's is for its own instruction set.
const PROGRAM: &str = "proxytrace";
const KERNEL_HALF: (&str, &str) = ("proxytrace-ebpf", "bpfel-unknown-none");

/// Makes it of the source at `place`, where the tool leaves files.
pub(crate) fn make(target: &Target, place: &Path) -> Result<String> {
    let mut whole = described(place, PROGRAM, target.triple)?;
    let (package, triple) = KERNEL_HALF;
    add(&mut whole, &described(place, package, triple)?);
    // Wherever it was made.
    let text = serde_json::to_string_pretty(&whole)?;
    Ok(text.replace(&format!("file://{}", place.display()), "file:///proxytrace") + "\n")
}

/// What is in a package for a target.
fn described(place: &Path, package: &str, triple: &str) -> Result<Value> {
    let mut tool = cargo::cargo(&["cyclonedx", "--quiet", "--format", "json", "--spec-version", "1.5"]);
    tool.args(["--no-build-deps", "--target", triple, "--override-filename", "bill"]);
    tool.current_dir(place).env(source_date::VARIABLE, source_date::seconds()?).stdout(Stdio::null());
    shell::run(&mut tool)?;
    let file = place.join(package).join("bill.json");
    let text = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
    serde_json::from_str(&text).with_context(|| format!("read {}", file.display()))
}

/// Adds what another one has and this one does not.
fn add(whole: &mut Value, other: &Value) {
    for (list, key) in [("components", "bom-ref"), ("dependencies", "ref")] {
        let Some(known) = whole[list].as_array_mut() else { continue };
        let names: BTreeSet<String> = known.iter().map(|entry| entry[key].to_string()).collect();
        let others = other[list].as_array().cloned().unwrap_or_default();
        known.extend(others.into_iter().filter(|entry| !names.contains(&entry[key].to_string())));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::add;

    #[test]
    fn what_only_the_other_half_is_made_of_is_added() {
        let mut whole = json!({
            "components": [{"bom-ref": "a"}, {"bom-ref": "b"}],
            "dependencies": [{"ref": "a", "dependsOn": ["b"]}],
        });
        add(
            &mut whole,
            &json!({
                "components": [{"bom-ref": "b"}, {"bom-ref": "c"}],
                "dependencies": [{"ref": "a"}, {"ref": "c"}],
            }),
        );
        let expected = json!({
            "components": [{"bom-ref": "a"}, {"bom-ref": "b"}, {"bom-ref": "c"}],
            "dependencies": [{"ref": "a", "dependsOn": ["b"]}, {"ref": "c"}],
        });
        assert_eq!(whole, expected);
    }
}
