//! Certificates for tests, made with the `openssl` command that PostgreSQL's own tests use.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A folder of certificates and their authority.
pub(super) struct Authority {
    folder: tempfile::TempDir,
}

/// What kind of certificate to make.
pub(super) struct Request<'a> {
    pub(super) name: &'a str,
    /// Arguments of the key's making.
    pub(super) key: &'a [&'a str],
    /// Arguments of the signing.
    pub(super) sign: &'a [&'a str],
    pub(super) common_name: &'a str,
    /// Extensions.
    pub(super) extensions: &'a str,
}

pub(super) const ELLIPTIC: &[&str] = &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"];
pub(super) const RSA: &[&str] = &["-newkey", "rsa:2048"];

fn openssl(folder: &Path, words: &[&str]) {
    let output = Command::new("openssl").args(words).current_dir(folder).output().expect("openssl is installed");
    assert!(output.status.success(), "openssl {words:?}: {}", String::from_utf8_lossy(&output.stderr));
}

impl Authority {
    /// A new authority.
    pub(super) fn new() -> Self {
        let authority = Self { folder: tempfile::tempdir().unwrap() };
        authority.self_signed("ca", ELLIPTIC, "an authority");
        authority
    }

    /// A file.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A file's content.
    pub(super) fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap()
    }

    /// A certificate that signs itself, as an authority and as many make a server's.
    pub(super) fn self_signed(&self, name: &str, key_and_sign: &[&str], common_name: &str) {
        let (key, certificate, subject) = (format!("{name}.key"), format!("{name}.crt"), format!("/CN={common_name}"));
        let files = ["-nodes", "-days", "30", "-keyout", &key, "-out", &certificate, "-subj", &subject];
        openssl(self.folder.path(), &[&["req", "-x509"], key_and_sign, &files].concat());
    }

    /// A certificate of the authority.
    pub(super) fn sign(&self, request: &Request<'_>) {
        let (key, certificate) = (format!("{}.key", request.name), format!("{}.crt", request.name));
        let subject = format!("/CN={}", request.common_name);
        std::fs::write(self.path("extensions"), request.extensions).unwrap();
        openssl(self.folder.path(), &[&["req"], request.key, &["-nodes", "-keyout", &key, "-out", "request", "-subj", &subject]].concat());
        let files = ["-in", "request", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "30", "-out", &certificate];
        openssl(self.folder.path(), &[&["x509", "-req"], &files[..], &["-extfile", "extensions"], request.sign].concat());
    }
}
