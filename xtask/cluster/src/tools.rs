//! Programs of others that `cargo xtask setup` brings: Helm, kubectl, and what looks for mistakes in manifests.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Where they are.
#[derive(Debug)]
pub struct Tools {
    setup: PathBuf,
}

impl Tools {
    /// Those below the target directory.
    #[must_use]
    pub fn below(target: &Path) -> Self {
        Self { setup: target.join("setup") }
    }

    /// Where a program is.
    fn path(&self, place: &str) -> PathBuf {
        self.setup.join(place)
    }

    /// The directory with Helm and kubectl.
    #[must_use]
    pub fn helm_and_kubectl(&self) -> PathBuf {
        self.path("helm-4.3.1")
    }

    /// Helm, with nothing of the user's own.
    #[must_use]
    pub fn helm(&self) -> Command {
        let mut command = Command::new(self.helm_and_kubectl().join("helm"));
        command.env_remove("KUBECONFIG");
        command
    }

    /// kubectl, for `kustomize`.
    #[must_use]
    pub fn kubectl(&self) -> Command {
        Command::new(self.helm_and_kubectl().join("kubectl"))
    }

    /// kubernetes-validate: the schemas of each version.
    #[must_use]
    pub fn validate(&self) -> Command {
        Command::new(self.path("kubernetes-validate-1.37.0/bin/kubernetes-validate"))
    }

    /// The Python that kubernetes-validate runs with: it has a validator of schemas.
    #[must_use]
    pub fn validate_python(&self) -> Command {
        Command::new(self.path("kubernetes-validate-1.37.0/bin/python"))
    }

    /// checkov: what is unwise.
    #[must_use]
    pub fn checkov(&self) -> Command {
        let mut command = Command::new(self.path("checkov-3.3.30/bin/python"));
        command.arg(self.path("checkov-3.3.30/bin/checkov"));
        command
    }

    /// hadolint: the same for a Containerfile.
    #[must_use]
    pub fn hadolint(&self) -> Command {
        Command::new(self.path("hadolint-2.15.1/bin/hadolint"))
    }
}
