//! The archive that an image is handed on as: an OCI layout with an index of all architectures, and for each the list of its parts, which
//! names the image that it is about (`subject`).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use xtask_tools::shell;

use crate::lab::Lab;

/// An image for one architecture.
pub(crate) struct Platform {
    /// As container engines call the architecture.
    pub(crate) name: &'static str,
    /// Its id.
    pub(crate) image: String,
    /// The file with the list of its parts, in CycloneDX.
    pub(crate) sbom: PathBuf,
}

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const EMPTY: &str = "application/vnd.oci.empty.v1+json";
const CYCLONE_DX: &str = "application/vnd.cyclonedx+json";

/// Packs images into an archive in the directory `dist`.
pub(crate) fn pack(lab: &Lab<'_>, version: &str, platforms: &[Platform], dist: &Path) -> Result<PathBuf> {
    // Names of an earlier run are in the way.
    let _ = lab.output("buildah", &["manifest", "rm", "proxytrace-all"]);
    lab.run("buildah", &["manifest", "create", "proxytrace-all"]).context("begin a list of images")?;
    for platform in platforms {
        lab.output("buildah", &["manifest", "add", "proxytrace-all", &platform.image])?;
    }
    let directory = lab.root.work.join("layout");
    xtask_tools::private_apt::remove(&directory)?;
    let to = format!("oci:/lab/layout:{version}");
    lab.output(
        "buildah",
        &["manifest", "push", "--quiet", "--all", "--format", "oci", "proxytrace-all", &to],
    )?;

    let layout = Layout(directory);
    let mut top = layout.read(&layout.0.join("index.json"))?;
    let mut index = layout.read(&layout.blob(&top["manifests"][0]["digest"])?)?;
    index["mediaType"] = INDEX.into();
    let images = index["manifests"].as_array().cloned().unwrap_or_default();
    for platform in platforms {
        let image = images.iter().find(|image| image["platform"]["architecture"] == platform.name);
        let image = image.with_context(|| format!("buildah left out {}", platform.name))?;
        let attached = attach(&layout, platform, image)?;
        index["manifests"].as_array_mut().context("an index has manifests")?.push(attached);
    }
    let digested = layout.add(INDEX, index.to_string().as_bytes())?;
    for (field, value) in digested.as_object().into_iter().flatten() {
        top["manifests"][0][field] = value.clone();
    }
    fs::write(layout.0.join("index.json"), top.to_string()).context("write the layout's index")?;

    let archive = dist.join(format!("proxytrace-{version}-image.tar"));
    let mut tar = Command::new("tar");
    tar.args([
        "--create",
        "--sort=name",
        "--mtime=@0",
        "--owner=0",
        "--group=0",
        "--numeric-owner",
        "--mode=u=rwX,go=rX",
        "--file",
    ]);
    shell::run(tar.arg(&archive).arg("--directory").arg(&layout.0).arg("."))?;
    Ok(archive)
}

/// Adds the list of parts of an image; gives what an index has to say of it.
fn attach(layout: &Layout, platform: &Platform, image: &Value) -> Result<Value> {
    let sbom = fs::read(&platform.sbom).with_context(|| format!("read {}", platform.sbom.display()))?;
    let subject =
        json!({ "mediaType": image["mediaType"], "digest": image["digest"], "size": image["size"] });
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": CYCLONE_DX,
        "config": layout.add(EMPTY, b"{}")?,
        "layers": [layout.add(CYCLONE_DX, &sbom)?],
        "subject": subject,
    });
    let mut descriptor = layout.add(MANIFEST, manifest.to_string().as_bytes())?;
    descriptor["artifactType"] = CYCLONE_DX.into();
    // So that no engine takes it for an image that it could run.
    descriptor["platform"] = json!({ "architecture": "unknown", "os": "unknown" });
    Ok(descriptor)
}

/// A directory in the layout of the Open Container Initiative.
struct Layout(PathBuf);

impl Layout {
    fn read(&self, path: &Path) -> Result<Value> {
        let text = fs::read(path).with_context(|| format!("read {}", path.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("{} is not JSON", path.display()))
    }

    fn blob(&self, digest: &Value) -> Result<PathBuf> {
        let digest = digest.as_str().context("a descriptor has a digest")?;
        Ok(self.0.join("blobs").join(digest.replace(':', "/")))
    }

    /// Adds a blob; gives its descriptor.
    fn add(&self, media_type: &str, content: &[u8]) -> Result<Value> {
        let unnamed = self.0.join("blobs/sha256/unnamed");
        fs::write(&unnamed, content).with_context(|| format!("write {}", unnamed.display()))?;
        let printed = shell::output(Command::new("sha256sum").arg(&unnamed))?;
        let digest = printed.split_whitespace().next().context("sha256sum prints a sum")?;
        fs::rename(&unnamed, unnamed.with_file_name(digest)).context("name a blob")?;
        Ok(json!({ "mediaType": media_type, "digest": format!("sha256:{digest}"), "size": content.len() }))
    }
}
