//! Start-up of a walsender's connection: who we are, the proof of it, the server's parameters.
//!
//! ```text
//! we:     startup { user, database, replication=database, … }
//! server: 'R' 0 ok | 3 password | 5 md5 salt | 10 SASL mechanisms | 11 continue | 12 final     (manual, 53.2.1)
//! we:     'p' …
//! server: 'S'… 'K' 'Z'
//! ```
//! Guarantees: a server that begins SCRAM must finish it, and so prove that it knows the password too.

use super::error::{PG_AUTHENTICATION, Stage, broken, refused};
use super::wire::{Fields, Wire, garbled, tag, text};
use crate::contract::CodedError;
use bytes::{Buf, Bytes, BytesMut};
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramSha256};
use postgres_protocol::message::frontend;
use secrecy::{ExposeSecret, SecretString};
use std::collections::HashMap;
use std::io;

const STAGE: Stage = Stage::Connecting { replication: true };

/// Who we are.
pub(super) struct Login<'a> {
    pub(super) user: &'a str,
    pub(super) password: Option<&'a SecretString>,
    /// Channel binding: `None` never, `Some(true)` always, else where the server offers it.
    pub(super) require_binding: Option<bool>,
    /// Parameters of the start-up packet.
    pub(super) parameters: Vec<(&'a str, &'a str)>,
    /// What and where, for messages.
    pub(super) doing: &'a str,
}

/// What the server said of the session.
#[derive(Default)]
pub(super) struct Session {
    pub(super) backend_pid: i32,
    pub(super) parameters: HashMap<String, String>,
}

impl Login<'_> {
    fn rejected(&self, why: &str) -> CodedError {
        CodedError::definite(PG_AUTHENTICATION, format!("{}: {why}", self.doing))
    }

    fn broken(&self, error: io::Error) -> CodedError {
        broken(self.doing, STAGE, error)
    }

    fn password(&self) -> Result<&[u8], CodedError> {
        let password = self.password.ok_or_else(|| {
            self.rejected("the server asks for a password and none is given").hint("set `password`, or add a line to ~/.pgpass (mode 0600)")
        })?;
        Ok(password.expose_secret().as_bytes())
    }

    /// Starts the session.
    pub(super) async fn start(&self, wire: &mut Wire) -> Result<Session, CodedError> {
        let mut out = BytesMut::new();
        frontend::startup_message(self.parameters.iter().copied(), &mut out).map_err(|error| self.broken(error))?;
        wire.send(&out).await.map_err(|error| self.broken(error))?;
        self.authenticate(wire).await?;
        let mut session = Session::default();
        loop {
            let (tag, mut body) = wire.next().await.map_err(|error| self.broken(error))?;
            match tag {
                tag::READY => return Ok(session),
                tag::ERROR => return Err(refused(self.doing, STAGE, &Fields::parse(&body))),
                tag::PARAMETER_STATUS => {
                    let pair = text(&mut body).and_then(|name| Ok((name, text(&mut body)?)));
                    let (name, value) = pair.map_err(|error| self.broken(error))?;
                    session.parameters.insert(name, value);
                }
                tag::BACKEND_KEY => {
                    session.backend_pid = body.try_get_i32().map_err(|_| self.broken(garbled("a backend's key without its number")))?;
                }
                tag::NOTICE | tag::NEGOTIATE_VERSION => {}
                _ => {
                    return Err(
                        self.broken(garbled("what answers is not a PostgreSQL server: a message out of place after authentication"))
                    );
                }
            }
        }
    }

    async fn authenticate(&self, wire: &mut Wire) -> Result<(), CodedError> {
        let mut bound = false;
        loop {
            let (tag, mut body) = wire.next().await.map_err(|error| self.broken(error))?;
            match tag {
                tag::AUTHENTICATION => {}
                tag::ERROR => return Err(refused(self.doing, STAGE, &Fields::parse(&body))),
                tag::NOTICE | tag::NEGOTIATE_VERSION => continue,
                _ => return Err(self.broken(garbled("what answers is not a PostgreSQL server"))),
            }
            let kind = body.try_get_i32().map_err(|_| self.broken(garbled("a request to authenticate without its kind")))?;
            if self.require_binding == Some(true) && !bound && kind != 10 {
                return Err(self.rejected("channel binding is required and the server does not use it"));
            }
            let mut out = BytesMut::new();
            let written = match kind {
                0 => return Ok(()),
                3 => frontend::password_message(self.password()?, &mut out),
                5 => {
                    let salt = body.get(..4).and_then(|salt| salt.try_into().ok());
                    let salt = salt.ok_or_else(|| self.broken(garbled("a request for an MD5 password without its salt")))?;
                    frontend::password_message(md5_hash(self.user.as_bytes(), self.password()?, salt).as_bytes(), &mut out)
                }
                10 => {
                    bound = self.scram(wire, body).await?;
                    continue;
                }
                _ => return Err(self.rejected("the server asks for an authentication that is not supported (GSSAPI, SSPI or newer)")),
            };
            written.map_err(|error| self.broken(error))?;
            wire.send(&out).await.map_err(|error| self.broken(error))?;
        }
    }

    /// SCRAM-SHA-256 (RFC 7677), bound to the TLS session where both sides can; whether it was.
    async fn scram(&self, wire: &mut Wire, mut body: Bytes) -> Result<bool, CodedError> {
        let (mut plain, mut plus) = (false, false);
        while body.first().is_some_and(|byte| *byte != 0) {
            let mechanism = text(&mut body).map_err(|error| self.broken(error))?;
            plain |= mechanism == SCRAM_SHA_256;
            plus |= mechanism == SCRAM_SHA_256_PLUS;
        }
        let end_point = self.require_binding.and_then(|_| wire.socket.end_point());
        let (mechanism, binding) = match end_point {
            Some(hash) if plus => (SCRAM_SHA_256_PLUS, ChannelBinding::tls_server_end_point(hash)),
            _ if self.require_binding == Some(true) => {
                return Err(self.rejected("channel binding is required and this connection cannot have it"));
            }
            Some(_) if plain => (SCRAM_SHA_256, ChannelBinding::unrequested()),
            None if plain => (SCRAM_SHA_256, ChannelBinding::unsupported()),
            _ => return Err(self.rejected("the server offers no authentication that is supported (SCRAM-SHA-256)")),
        };
        let failed = |error: io::Error| self.rejected(&format!("SCRAM failed: {error}"));
        let mut scram = ScramSha256::new(self.password()?, binding);
        let mut out = BytesMut::new();
        frontend::sasl_initial_response(mechanism, scram.message(), &mut out).map_err(failed)?;
        wire.send(&out).await.map_err(|error| self.broken(error))?;
        scram.update(&self.sasl(wire, 11).await?).map_err(failed)?;
        out.clear();
        frontend::sasl_response(scram.message(), &mut out).map_err(failed)?;
        wire.send(&out).await.map_err(|error| self.broken(error))?;
        scram.finish(&self.sasl(wire, 12).await?).map_err(failed)?;
        Ok(mechanism == SCRAM_SHA_256_PLUS)
    }

    /// The next step of the server in SCRAM.
    async fn sasl(&self, wire: &mut Wire, kind: i32) -> Result<Bytes, CodedError> {
        loop {
            let (tag, mut body) = wire.next().await.map_err(|error| self.broken(error))?;
            match tag {
                tag::AUTHENTICATION if body.try_get_i32().is_ok_and(|found| found == kind) => return Ok(body),
                tag::ERROR => return Err(refused(self.doing, STAGE, &Fields::parse(&body))),
                tag::NOTICE => {}
                _ => return Err(self.rejected("the server left SCRAM before its end, without proof that it knows the password")),
            }
        }
    }
}
