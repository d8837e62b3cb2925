//! TLS by libpq's modes: which certificates are asked for and believed.
//!
//! | mode | chain | host name | without TLS |
//! |---|---|---|---|
//! | `disable` | | | always |
//! | `allow`, `prefer` | if there is a file of authorities | no | if the server says no, or the handshake fails |
//! | `require` | if there is a file of authorities | no | never |
//! | `verify-ca` | yes | no | never |
//! | `verify-full` | yes | yes | never |
//!
//! A certificate that is checked and found wrong ends the attempt in every mode; libpq would go on without TLS
//! for `prefer`. A certificate that itself stands in the file of authorities is trusted as it is, and a
//! certificate without host names in it is compared by its common name, both as OpenSSL and libpq have it.

use super::certificate::Certificate;
use super::error::{PG_TLS, settings};
use super::settings::TlsMode;
use crate::contract::CodedError;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme, SupportedProtocolVersion};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Whom to trust.
pub(super) enum Roots {
    /// The system's authorities, where any are asked for.
    Default,
    /// The system's.
    System,
    /// Those of a PEM file.
    File(PathBuf),
}

/// The files of TLS.
pub(super) struct Files {
    pub(super) roots: Roots,
    /// Certificate and key.
    pub(super) client: Option<(PathBuf, PathBuf)>,
    /// The oldest TLS 1.x.
    pub(super) oldest: u8,
    /// The newest TLS 1.x.
    pub(super) newest: u8,
}

/// How to encrypt.
pub(super) struct Tls {
    mode: TlsMode,
    /// Without asking first (PostgreSQL 17 and later).
    pub(super) direct: bool,
    config: Option<Arc<ClientConfig>>,
}

impl Tls {
    /// Reads the files.
    pub(super) fn new(mode: TlsMode, direct: bool, files: Files) -> Result<Self, CodedError> {
        if mode == TlsMode::Disable {
            return Ok(Self { mode, direct, config: None });
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = Arc::new(Verifier::new(mode, &files.roots, &provider)?);
        let versions: Vec<&'static SupportedProtocolVersion> = [(2, &rustls::version::TLS12), (3, &rustls::version::TLS13)]
            .into_iter()
            .filter(|(minor, _)| (files.oldest..=files.newest).contains(minor))
            .map(|(_, version)| version)
            .collect();
        let failed = |error: Error| CodedError::definite(PG_TLS, format!("TLS was not set up: {error}"));
        let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(&versions).map_err(failed)?;
        let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
        let mut config = match &files.client {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => builder.with_client_auth_cert(certificates(certificate)?, private_key(key)?).map_err(|error| {
                let files = format!("{} and {}", certificate.display(), key.display());
                CodedError::definite(PG_TLS, format!("the client's certificate and key in {files} cannot be used: {error}"))
                    .hint("check that the key is the certificate's")
            })?,
        };
        if direct {
            config.alpn_protocols = vec![b"postgresql".to_vec()];
        }
        Ok(Self { mode, direct, config: Some(Arc::new(config)) })
    }

    /// Whether a connection on which the server says that it has no TLS goes on without.
    pub(super) fn prefers(&self) -> bool {
        self.mode == TlsMode::Prefer
    }

    /// The ways to try, in order: with TLS or without.
    pub(super) fn ways(&self) -> Vec<Option<Arc<ClientConfig>>> {
        let with = self.config.clone();
        match self.mode {
            TlsMode::Disable => vec![None],
            TlsMode::Allow => vec![None, with],
            TlsMode::Prefer => vec![with, None],
            TlsMode::Require | TlsMode::VerifyCa | TlsMode::VerifyFull => vec![with],
        }
    }
}

fn unreadable(path: &Path, why: impl std::fmt::Display) -> CodedError {
    CodedError::definite(PG_TLS, format!("the file {} was not read: {why}", path.display()))
}

/// The certificates of a PEM file.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, CodedError> {
    let text = std::fs::read(path).map_err(|error| unreadable(path, error))?;
    let found: Vec<_> = CertificateDer::pem_slice_iter(&text).collect::<Result<_, _>>().map_err(|_| unreadable(path, "it is not PEM"))?;
    if found.is_empty() { Err(unreadable(path, "it holds no certificate")) } else { Ok(found) }
}

/// The key of a PEM file that only its owner reads, or root's with reading for a group, as libpq asks.
fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, CodedError> {
    let meta = std::fs::metadata(path).map_err(|error| unreadable(path, error))?;
    let forbidden = if meta.uid() == 0 { 0o037 } else { 0o077 };
    if meta.mode() & forbidden != 0 {
        return Err(unreadable(path, "others may read or change the key").hint(format!("chmod 0600 {}", path.display())));
    }
    let text = std::fs::read(path).map_err(|error| unreadable(path, error))?;
    PrivateKeyDer::from_pem_slice(&text)
        .map_err(|_| unreadable(path, "it holds no private key that can be read").hint("a PEM key without a passphrase is needed"))
}

/// What is asked of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Check {
    Nothing,
    Chain,
    ChainAndName,
}

/// Checks the server's certificate as far as the mode says.
#[derive(Debug)]
struct Verifier {
    check: Check,
    roots: RootCertStore,
    trusted: Vec<CertificateDer<'static>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Verifier {
    fn new(mode: TlsMode, roots: &Roots, provider: &CryptoProvider) -> Result<Self, CodedError> {
        let check = match (mode, roots) {
            (TlsMode::VerifyFull, _) => Check::ChainAndName,
            (TlsMode::VerifyCa, _) | (_, Roots::File(_) | Roots::System) => Check::Chain,
            _ => Check::Nothing,
        };
        let mut store = RootCertStore::empty();
        let mut trusted = Vec::new();
        match roots {
            _ if check == Check::Nothing => {}
            Roots::File(path) => {
                trusted = certificates(path)?;
                for certificate in &trusted {
                    store.add(certificate.clone()).map_err(|error| unreadable(path, error))?;
                }
            }
            Roots::Default | Roots::System => {
                let (added, _) = store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
                if added == 0 {
                    return Err(settings("the system has no certificates of authorities").hint("give them as `tls.ca_file`"));
                }
            }
        }
        Ok(Self { check, roots: store, trusted, algorithms: provider.signature_verification_algorithms })
    }

    /// Whether a certificate that is trusted as it is has not run out.
    fn in_time(certificate: &CertificateDer<'_>, now: UnixTime) -> Result<(), Error> {
        match Certificate::parse(certificate).and_then(|parsed| parsed.is_valid_at(now.as_secs())) {
            Some(true) => Ok(()),
            Some(false) => Err(CertificateError::Expired.into()),
            None => Err(CertificateError::BadEncoding.into()),
        }
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.check == Check::Nothing {
            return Ok(ServerCertVerified::assertion());
        }
        let parsed = ParsedCertificate::try_from(end_entity)?;
        if self.trusted.iter().any(|trusted| trusted == end_entity) {
            Self::in_time(end_entity, now)?;
        } else {
            verify_server_cert_signed_by_trust_anchor(&parsed, &self.roots, intermediates, now, self.algorithms.all)?;
        }
        if self.check == Check::ChainAndName
            && let Err(error) = verify_server_name(&parsed, server_name)
        {
            let named = Certificate::parse(end_entity).is_some_and(|certificate| certificate.common_name_is(&server_name.to_str()));
            if !named {
                return Err(error);
            }
        }
        Ok(ServerCertVerified::assertion())
    }

    // Where nothing is asked of the certificate, its key's signature proves nothing either, and certificates too
    // old to be parsed (version 1) still encrypt.
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        match self.check {
            Check::Nothing => Ok(HandshakeSignatureValid::assertion()),
            _ => verify_tls12_signature(message, certificate, signed, &self.algorithms),
        }
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        match self.check {
            Check::Nothing => Ok(HandshakeSignatureValid::assertion()),
            _ => verify_tls13_signature(message, certificate, signed, &self.algorithms),
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
