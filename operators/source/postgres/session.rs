//! A session for statements, for whoever is no source.

use super::connect::ConnectSettings;
use crate::contract::{CodedError, SecretString};
use std::path::Path;

/// Opens one. Relative files of the URL start at `folder`.
///
/// # Errors
/// When the server cannot be reached or refuses.
pub(crate) async fn session(url: &SecretString, purpose: &str, folder: &Path) -> Result<tokio_postgres::Client, CodedError> {
    let settings = ConnectSettings { url: Some(url.clone()), ..ConnectSettings::default() };
    settings.resolve(folder)?.query(purpose).await
}
