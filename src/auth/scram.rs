//! SCRAM-SHA-256 (RFC 5802, RFC 7677), both sides: the built-in enhanced authentication. [MQTT-4.12]
//!
//! The Client's first message travels in CONNECT (or in AUTH 0x19), the challenge in AUTH 0x18, the proof in AUTH 0x18,
//! the server's signature in CONNACK (or in AUTH 0x00). The server stores no password, only a verifier for the proof.
//! It does not offer channel binding and refuses Clients that require it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, Mac};
use rand::TryRngCore;
use rand::rngs::OsRng;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::access::{Exchange, ExchangeStep, Principal};
use crate::packet::reason_code::ReasonCode;

/// The Authentication Method.
pub(crate) const METHOD: &str = "SCRAM-SHA-256";

/// Iterations for new passwords. RFC 7677 requires at least 4,096; Clients do this work.
pub(crate) const DEFAULT_ITERATIONS: u32 = 4096;

/// Most iterations that a Client accepts from a server (about a second of work).
const MAX_ITERATIONS: u32 = 1_000_000;

/// Longest message of either side: names and nonces are short.
const MAX_MESSAGE_BYTES: usize = 4096;

type Key = [u8; 32];

/// What the server stores instead of a password.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Verifier {
    /// Salt of the password.
    pub(crate) salt: Vec<u8>,
    /// Iterations of the hash.
    pub(crate) iterations: u32,
    /// Checks the Client's proof.
    pub(crate) stored_key: Key,
    /// Creates the server's signature.
    pub(crate) server_key: Key,
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Verifier").field("iterations", &self.iterations).finish_non_exhaustive()
    }
}

impl Verifier {
    /// Creates the verifier of a password; `None` if the password has characters that SCRAM prohibits.
    #[must_use]
    pub(crate) fn new(password: &str, salt: &[u8], iterations: u32) -> Option<Self> {
        let salted = salted_password(password, salt, iterations)?;
        let stored_key = Sha256::digest(hmac(&salted, &[b"Client Key"])).into();
        let server_key = hmac(&salted, &[b"Server Key"]);
        Some(Self { salt: salt.to_vec(), iterations, stored_key, server_key })
    }

    /// Creates a verifier for an unknown user: the same each time, and no proof matches it.
    #[must_use]
    pub(crate) fn fake(user_name: &str, secret: &[u8], iterations: u32) -> Self {
        let salt = hmac(secret, &[b"salt", user_name.as_bytes()]);
        let stored_key = hmac(secret, &[b"stored key", user_name.as_bytes()]);
        let server_key = hmac(secret, &[b"server key", user_name.as_bytes()]);
        Self { salt: salt.iter().copied().take(16).collect(), iterations, stored_key, server_key }
    }

    /// Writes it as text: `SCRAM-SHA-256$iterations$salt$stored key$server key`.
    #[must_use]
    pub(crate) fn to_text(&self) -> String {
        let [salt, stored_key, server_key] =
            [&self.salt[..], &self.stored_key, &self.server_key].map(|part| BASE64.encode(part));
        format!("{METHOD}${}${salt}${stored_key}${server_key}", self.iterations)
    }

    /// Reads what [`Verifier::to_text`] wrote.
    #[must_use]
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let parts: Vec<&str> = text.split('$').collect();
        let [method, iterations, salt, stored_key, server_key] = parts[..] else { return None };
        let key = |text: &str| Key::try_from(BASE64.decode(text).ok()?).ok();
        Some(Self {
            iterations: iterations.parse().ok().filter(|_| method == METHOD)?,
            salt: BASE64.decode(salt).ok().filter(|salt| !salt.is_empty())?,
            stored_key: key(stored_key)?,
            server_key: key(server_key)?,
        })
    }
}

fn hmac(key: &[u8], parts: &[&[u8]]) -> Key {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of every length");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

fn salted_password(password: &str, salt: &[u8], iterations: u32) -> Option<Key> {
    let prepared = stringprep::saslprep(password).ok()?;
    Some(pbkdf2::pbkdf2_hmac_array::<Sha256, 32>(prepared.as_bytes(), salt, iterations))
}

/// Random bytes from the operating system; `None` if it cannot provide them.
#[must_use]
pub fn random_bytes<const N: usize>() -> Option<[u8; N]> {
    let mut bytes = [0; N];
    OsRng.try_fill_bytes(&mut bytes).ok().map(|()| bytes)
}

fn random_nonce() -> Option<String> {
    random_bytes::<18>().map(|bytes| BASE64.encode(bytes))
}

/// Where the server looks up verifiers.
pub(crate) trait Verifiers: Send {
    /// The verifier of this user, or a fake one that looks like a real one.
    fn verifier(&self, user_name: &str) -> Verifier;
}

/// The server's side of one authentication.
pub(crate) struct ScramServer<V> {
    verifiers: V,
    /// Fixed in tests only.
    nonce: Option<String>,
    state: ServerState,
}

enum ServerState {
    /// Nothing was received yet.
    Start,
    /// The challenge was sent.
    Challenged(Box<Challenge>),
    /// Finished: every further step is refused.
    Over,
}

struct Challenge {
    user_name: String,
    verifier: Verifier,
    /// The expected value of the Client's `c=`.
    binding: String,
    nonce: String,
    /// client-first-message-bare and server-first-message, joined by a comma.
    transcript: String,
}

impl<V: Verifiers> ScramServer<V> {
    /// Creates a server that expects the Client's first message.
    pub(crate) fn new(verifiers: V) -> Self {
        Self { verifiers, nonce: random_nonce(), state: ServerState::Start }
    }

    fn challenge(&mut self, data: &[u8]) -> Option<(Challenge, String)> {
        let first = ClientFirst::parse(data)?;
        let nonce = format!("{}{}", first.nonce, self.nonce.take()?);
        let verifier = self.verifiers.verifier(&first.user_name);
        let salt = BASE64.encode(&verifier.salt);
        let message = format!("r={nonce},s={salt},i={}", verifier.iterations);
        let transcript = format!("{},{message}", first.bare);
        let binding = BASE64.encode(first.gs2_header);
        let user_name = first.user_name;
        Some((Challenge { user_name, verifier, binding, nonce, transcript }, message))
    }
}

impl Challenge {
    /// Checks the Client's proof; returns the server's signature.
    fn check(&self, data: &[u8]) -> Option<String> {
        let message = readable(data)?;
        let (without_proof, proof) = message.rsplit_once(",p=")?;
        let mut fields = without_proof.split(',');
        let binding = fields.next()?.strip_prefix("c=")?;
        let nonce = fields.next()?.strip_prefix("r=")?;
        let proof = Key::try_from(BASE64.decode(proof).ok()?).ok()?;

        let transcript = [self.transcript.as_bytes(), b",", without_proof.as_bytes()];
        let signature = hmac(&self.verifier.stored_key, &transcript);
        let mut client_key = proof;
        client_key.iter_mut().zip(signature).for_each(|(byte, mask)| *byte ^= mask);
        let stored_key: Key = Sha256::digest(client_key).into();
        let fits = stored_key.ct_eq(&self.verifier.stored_key)
            & nonce.as_bytes().ct_eq(self.nonce.as_bytes())
            & binding.as_bytes().ct_eq(self.binding.as_bytes());
        if !bool::from(fits) {
            return None;
        }
        let signature = hmac(&self.verifier.server_key, &transcript);
        Some(format!("v={}", BASE64.encode(signature)))
    }
}

impl<V: Verifiers> Exchange for ScramServer<V> {
    fn step(&mut self, data: &[u8]) -> ExchangeStep {
        // 0x87 is the only code for a failed authentication that both CONNACK and DISCONNECT can carry.
        let refuse = ExchangeStep::Refuse(ReasonCode::NotAuthorized);
        match std::mem::replace(&mut self.state, ServerState::Over) {
            // A Client may omit its first message from CONNECT; an empty challenge asks for it.
            ServerState::Start if data.is_empty() => {
                self.state = ServerState::Start;
                ExchangeStep::Continue(Vec::new())
            }
            ServerState::Start => match self.challenge(data) {
                Some((challenge, message)) => {
                    self.state = ServerState::Challenged(Box::new(challenge));
                    ExchangeStep::Continue(message.into_bytes())
                }
                None => refuse,
            },
            ServerState::Challenged(challenge) => match challenge.check(data) {
                Some(signature) => {
                    let principal = Principal { user_name: Some(challenge.user_name.into()) };
                    ExchangeStep::Accept(principal, Some(signature.into_bytes()))
                }
                None => refuse,
            },
            ServerState::Over => refuse,
        }
    }
}

struct ClientFirst<'a> {
    gs2_header: &'a str,
    bare: &'a str,
    user_name: String,
    nonce: &'a str,
}

impl<'a> ClientFirst<'a> {
    /// Reads `n,,n=user,r=nonce`. RFC 5802 section 7.
    fn parse(data: &'a [u8]) -> Option<Self> {
        let message = readable(data)?;
        let mut parts = message.splitn(3, ',');
        let (binding, identity, bare) = (parts.next()?, parts.next()?, parts.next()?);
        // `p=` requires channel binding. `y` means that the Client supports it but believes that we do not, which is
        // true, so this is no downgrade.
        if !matches!(binding, "n" | "y") {
            return None;
        }
        let header_bytes = binding.len() + identity.len() + 2;
        let mut fields = bare.split(',');
        // A mandatory extension (`m=`) would come first, and we support none.
        let user_name = decode_name(fields.next()?.strip_prefix("n=")?)?;
        let nonce = fields.next()?.strip_prefix("r=")?;
        if nonce.is_empty() || user_name.is_empty() {
            return None;
        }
        // Acting on behalf of another user is not supported.
        if !identity.is_empty() && decode_name(identity.strip_prefix("a=")?)? != user_name {
            return None;
        }
        Some(Self { gs2_header: message.get(..header_bytes)?, bare, user_name, nonce })
    }
}

fn readable(data: &[u8]) -> Option<&str> {
    std::str::from_utf8(data).ok().filter(|text| text.len() <= MAX_MESSAGE_BYTES)
}

/// Undoes `=2C` and `=3D`, then prepares the name; `None` for any other use of `=`.
fn decode_name(text: &str) -> Option<String> {
    let mut parts = text.split('=');
    let mut name = parts.next()?.to_owned();
    for part in parts {
        let (character, rest) = match part.split_at_checked(2)? {
            ("2C", rest) => (',', rest),
            ("3D", rest) => ('=', rest),
            _ => return None,
        };
        name.push(character);
        name.push_str(rest);
    }
    stringprep::saslprep(&name).ok().map(std::borrow::Cow::into_owned)
}

fn encode_name(name: &str) -> String {
    name.replace('=', "=3D").replace(',', "=2C")
}

/// The Client's side of one authentication.
pub struct ScramClient {
    password: String,
    bare: String,
    nonce: String,
    /// The signature expected from the server, after the proof was sent.
    expected: Option<String>,
}

/// Why a Client aborts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ScramError {
    /// A name or password with characters that SCRAM prohibits.
    #[error("the user name or password has characters that SCRAM prohibits")]
    Prohibited,
    /// The operating system cannot provide random bytes.
    #[error("the operating system provides no random bytes")]
    NoRandomness,
    /// The server's message is not what RFC 5802 describes.
    #[error("the server's authentication data is malformed")]
    Malformed,
    /// The server asks for too few iterations to be safe, or for too many to be plausible.
    #[error("the server asks for an unreasonable number of iterations")]
    Iterations,
    /// The server does not know the password, so it is not the server it claims to be.
    #[error("the server's signature is wrong")]
    WrongSignature,
}

/// The Client's next action.
#[derive(Debug, PartialEq, Eq)]
pub enum ClientStep {
    /// Send this Authentication Data in AUTH 0x18.
    Send(Vec<u8>),
    /// The server has proved that it knows the password.
    Done,
}

impl ScramClient {
    /// Creates a Client for this user.
    ///
    /// # Errors
    /// [`ScramError::Prohibited`] and [`ScramError::NoRandomness`].
    pub fn new(user_name: &str, password: &str) -> Result<Self, ScramError> {
        Self::with_nonce(user_name, password, random_nonce().ok_or(ScramError::NoRandomness)?)
    }

    fn with_nonce(user_name: &str, password: &str, nonce: String) -> Result<Self, ScramError> {
        let name = stringprep::saslprep(user_name).map_err(|_| ScramError::Prohibited)?;
        let bare = format!("n={},r={nonce}", encode_name(&name));
        Ok(Self { password: password.to_owned(), bare, nonce, expected: None })
    }

    /// The first message, for CONNECT or AUTH 0x19.
    #[must_use]
    pub fn first(&self) -> Vec<u8> {
        format!("n,,{}", self.bare).into_bytes()
    }

    /// Handles the Authentication Data of the server's AUTH or CONNACK.
    ///
    /// # Errors
    /// [`ScramError`]: the Client must close the connection.
    pub fn step(&mut self, data: &[u8]) -> Result<ClientStep, ScramError> {
        let message = readable(data).ok_or(ScramError::Malformed)?;
        match self.expected.take() {
            Some(expected) if message.as_bytes().ct_eq(expected.as_bytes()).into() => {
                Ok(ClientStep::Done)
            }
            Some(_) => Err(ScramError::WrongSignature),
            None if message.is_empty() => Ok(ClientStep::Send(self.first())),
            None => self.prove(message).map(ClientStep::Send),
        }
    }

    fn prove(&mut self, challenge: &str) -> Result<Vec<u8>, ScramError> {
        let mut fields = challenge.split(',');
        let mut field = |name: &str| fields.next().and_then(|field| field.strip_prefix(name));
        let (nonce, salt, iterations) = (field("r="), field("s="), field("i="));
        let nonce = nonce.filter(|nonce| nonce.len() > self.nonce.len());
        let nonce = nonce.filter(|nonce| nonce.starts_with(&self.nonce));
        let nonce = nonce.ok_or(ScramError::Malformed)?;
        let salt = salt.and_then(|salt| BASE64.decode(salt).ok()).ok_or(ScramError::Malformed)?;
        let iterations: u32 =
            iterations.and_then(|count| count.parse().ok()).ok_or(ScramError::Malformed)?;
        if !(DEFAULT_ITERATIONS..=MAX_ITERATIONS).contains(&iterations) {
            return Err(ScramError::Iterations);
        }

        let salted = salted_password(&self.password, &salt, iterations);
        let salted = salted.ok_or(ScramError::Prohibited)?;
        let without_proof = format!("c=biws,r={nonce}");
        let transcript = format!("{},{challenge},{without_proof}", self.bare);
        let client_key = hmac(&salted, &[b"Client Key"]);
        let signature = hmac(&Sha256::digest(client_key), &[transcript.as_bytes()]);
        let mut proof = client_key;
        proof.iter_mut().zip(signature).for_each(|(byte, mask)| *byte ^= mask);
        let server_key = hmac(&salted, &[b"Server Key"]);
        let signature = hmac(&server_key, &[transcript.as_bytes()]);
        self.expected = Some(format!("v={}", BASE64.encode(signature)));
        Ok(format!("{without_proof},p={}", BASE64.encode(proof)).into_bytes())
    }
}

#[cfg(test)]
mod tests;
