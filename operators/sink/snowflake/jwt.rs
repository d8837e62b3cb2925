//! The key-pair JWT: what the SQL API takes as its bearer, and what a scoped token is bought with.
//!
//! ```text
//! header  {"alg":"RS256","typ":"JWT"}
//! claims  {"iss":"ACCOUNT.USER.SHA256:<fingerprint>","sub":"ACCOUNT.USER","iat":s,"exp":s}
//! ```
//! Signed anew five minutes before it ends; Snowflake allows a life of one hour.

use super::key::Key;
use crate::contract::CodedError;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

const LIFE: u64 = 59 * 60;
const RENEW_BEFORE: u64 = 5 * 60;

/// Makes and keeps the JWT of one user.
pub(super) struct Jwt {
    key: Key,
    subject: String,
    current: Mutex<Option<(Arc<str>, u64)>>,
}

/// The account as a JWT names it: upper case, without the region of a locator.
fn account_name(account: &str) -> String {
    account.split('.').next().unwrap_or_default().to_uppercase()
}

/// Seconds since 1970.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

impl Jwt {
    /// For a user of an account.
    pub(super) fn new(key: Key, account: &str, user: &str) -> Self {
        let subject = format!("{}.{}", account_name(account), user.to_uppercase());
        Self { key, subject, current: Mutex::new(None) }
    }

    /// A token that is good for minutes yet.
    pub(super) fn token(&self) -> Result<Arc<str>, CodedError> {
        let now = now();
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((token, expires)) = current.as_ref()
            && now + RENEW_BEFORE < *expires
        {
            return Ok(Arc::clone(token));
        }
        let token: Arc<str> = self.sign(now)?.into();
        *current = Some((Arc::clone(&token), now + LIFE));
        Ok(token)
    }

    /// Drops the kept token, so that the next is new: the server refused it.
    pub(super) fn forget(&self) {
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn sign(&self, issued: u64) -> Result<String, CodedError> {
        let claims = serde_json::json!({
            "iss": format!("{}.{}", self.subject, self.key.fingerprint()),
            "sub": self.subject,
            "iat": issued,
            "exp": issued + LIFE,
        });
        let mut token = URL_SAFE_NO_PAD.encode(br#"{"alg":"RS256","typ":"JWT"}"#);
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(claims.to_string(), &mut token);
        let signature = self.key.sign(token.as_bytes())?;
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        Ok(token)
    }
}

/// When a JWT that somebody else made ends; `None` when it is no JWT or does not say.
pub(super) fn expiry(token: &str) -> Option<u64> {
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    serde_json::from_slice::<serde_json::Value>(&claims).ok()?.get("exp")?.as_u64()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::SecretString;

    fn jwt(account: &str, user: &str) -> Jwt {
        let key = Key::read(&SecretString::from(include_str!("tests/test-key.p8")), None).unwrap();
        Jwt::new(key, account, user)
    }

    #[test]
    fn known_answer() {
        let signed = jwt("acme-prod", "loader").sign(1_700_000_000).unwrap();
        assert_eq!(signed, include_str!("tests/test-key.jwt").trim());
        assert_eq!(expiry(&signed), Some(1_700_000_000 + LIFE));
        assert_eq!(expiry("opaque"), None);
        assert_eq!(jwt("xy12345.us-east-1.aws", "U").subject, "XY12345.U");
    }

    #[test]
    fn kept_until_forgotten() {
        let jwt = jwt("a", "u");
        let first = jwt.token().unwrap();
        assert!(Arc::ptr_eq(&first, &jwt.token().unwrap()));
        jwt.forget();
        assert!(!Arc::ptr_eq(&first, &jwt.token().unwrap()));
    }
}
