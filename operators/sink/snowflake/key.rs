//! The private key: read once, kept in memory only, wiped with the value.
//!
//! Takes PEM of PKCS#8, encrypted (PBES2) or not, and of PKCS#1. Never logged; an error names what is
//! wrong with the text's form and nothing of the text.

use super::errors::SF_KEY;
use crate::contract::{CodedError, SecretString};
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{KeyPair, RSA_PKCS1_SHA256, RsaKeyPair};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use pkcs8::{EncryptedPrivateKeyInfo, SecretDocument};
use secrecy::ExposeSecret;

/// An RSA key that signs, and the fingerprint Snowflake knows its public half by.
pub(super) struct Key {
    pair: RsaKeyPair,
    fingerprint: String,
}

fn refused(why: &str) -> CodedError {
    CodedError::definite(SF_KEY, format!("the private key was not read: {why}"))
        .hint("give an RSA key in PEM, such as `openssl genrsa 2048 | openssl pkcs8 -topk8 -nocrypt -out snowflake.p8` makes")
}

impl Key {
    /// Reads a key from its PEM text.
    pub(super) fn read(pem: &SecretString, passphrase: Option<&SecretString>) -> Result<Self, CodedError> {
        let (label, document) = SecretDocument::from_pem(pem.expose_secret().trim_start()).map_err(|_| refused("the text is not PEM"))?;
        let pair = match label {
            "PRIVATE KEY" => RsaKeyPair::from_pkcs8(document.as_bytes()),
            "RSA PRIVATE KEY" => RsaKeyPair::from_der(document.as_bytes()),
            "ENCRYPTED PRIVATE KEY" => {
                let Some(passphrase) = passphrase else {
                    return Err(refused("it is encrypted and the setting private_key_passphrase is missing"));
                };
                let sealed =
                    EncryptedPrivateKeyInfo::try_from(document.as_bytes()).map_err(|_| refused("its encryption is not PBES2 of PKCS#5"))?;
                let plain = sealed.decrypt(passphrase.expose_secret()).map_err(|_| refused("private_key_passphrase does not open it"))?;
                RsaKeyPair::from_pkcs8(plain.as_bytes())
            }
            "PUBLIC KEY" | "CERTIFICATE" => return Err(refused("it is a public key; the private one is needed")),
            _ => return Err(refused("the PEM is not a private key")),
        }
        .map_err(|_| refused("it is not an RSA key of 2048 to 8192 bits"))?;
        let public: PublicKeyX509Der<'_> = pair.public_key().as_der().map_err(|_| refused("its public half was not derived"))?;
        let fingerprint = format!("SHA256:{}", STANDARD.encode(digest(&SHA256, public.as_ref())));
        Ok(Self { pair, fingerprint })
    }

    /// A key's PEM text, not encrypted: for whoever signs with it elsewhere.
    pub(super) fn plain_pem(pem: &SecretString, passphrase: Option<&SecretString>) -> Result<SecretString, CodedError> {
        let (label, document) = SecretDocument::from_pem(pem.expose_secret().trim_start()).map_err(|_| refused("the text is not PEM"))?;
        let (true, Some(passphrase)) = (label == "ENCRYPTED PRIVATE KEY", passphrase) else { return Ok(pem.clone()) };
        let sealed =
            EncryptedPrivateKeyInfo::try_from(document.as_bytes()).map_err(|_| refused("its encryption is not PBES2 of PKCS#5"))?;
        let plain = sealed.decrypt(passphrase.expose_secret()).map_err(|_| refused("private_key_passphrase does not open it"))?;
        let text = plain.to_pem("PRIVATE KEY", pkcs8::LineEnding::LF).map_err(|_| refused("it does not become PEM"))?;
        Ok(SecretString::from(text.as_str()))
    }

    /// `SHA256:` and the base64 digest of the public key, as `DESCRIBE USER` shows it in `RSA_PUBLIC_KEY_FP`.
    pub(super) fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Signs with RS256.
    pub(super) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, CodedError> {
        let mut signature = vec![0; self.pair.public_modulus_len()];
        self.pair
            .sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature)
            .map_err(|_| CodedError::definite(SF_KEY, "the private key did not sign"))?;
        Ok(signature)
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Key({})", self.fingerprint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FINGERPRINT: &str = "SHA256:v4qVrUJZF21pcWn8sHEmpMdFiGokN0owONoOxAAu/5o=";

    #[test]
    fn forms_of_a_key() {
        let plain = include_str!("tests/test-key.p8");
        let encrypted = include_str!("tests/test-key-encrypted.p8");
        let pkcs1 = include_str!("tests/test-key-pkcs1.pem");
        let windows = plain.replace('\n', "\r\n");
        for (form, pem, passphrase, expected) in [
            ("PKCS#8", plain, None, Ok(())),
            ("PKCS#8 with carriage returns", &windows, None, Ok(())),
            ("encrypted", encrypted, Some("opensesame"), Ok(())),
            ("PKCS#1", pkcs1, None, Ok(())),
            ("wrong passphrase", encrypted, Some("sesame"), Err("does not open it")),
            ("no passphrase", encrypted, None, Err("private_key_passphrase is missing")),
            ("not PEM", "MIIE", None, Err("not PEM")),
            ("empty", "", None, Err("not PEM")),
            ("cut", &plain[..plain.len() / 2], None, Err("not PEM")),
            ("not a key", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", None, Err("not PEM")),
        ] {
            let passphrase = passphrase.map(SecretString::from);
            match (Key::read(&SecretString::from(pem), passphrase.as_ref()), expected) {
                (Ok(key), Ok(())) => assert_eq!(key.fingerprint(), FINGERPRINT, "{form}"),
                (Err(error), Err(why)) => {
                    assert_eq!(error.code.id, "SF0001", "{form}");
                    assert!(error.message.contains(why), "{form}: {error}");
                }
                (got, _) => panic!("{form}: {got:?}"),
            }
        }
    }
}
