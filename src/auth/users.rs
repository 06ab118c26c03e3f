//! The users file: the users and the hashes of their passwords.
//!
//! A text file with one line per user:
//!
//! ```text
//! # comment
//! @secret:BASE64
//! NAME:$argon2id$v=19$m=19456,t=2,p=1$SALT$HASH:SCRAM-SHA-256$ITERATIONS$SALT$STORED-KEY$SERVER-KEY
//! ```
//!
//! The first hash (a PHC string) checks a password that comes in CONNECT; the second verifies SCRAM-SHA-256 and is empty
//! if the password has characters that SCRAM prohibits. `@secret` keeps the answers for unknown users the same across
//! restarts. A name has no control characters and does not begin with `#` or `@`; it may contain a colon. `petrel
//! passwd` writes the file; the broker reads it at startup and on SIGHUP.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use argon2::password_hash::{PasswordHash, SaltString};
use argon2::{Algorithm, Argon2, Params, PasswordHasher, PasswordVerifier, Version};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD as BASE64, STANDARD_NO_PAD as BASE64_NO_PAD};
use hmac::{Hmac, Mac};
use parking_lot::{Mutex, RwLock};
use sha2::Sha256;
use subtle::ConstantTimeEq;

use crate::auth::mosquitto_passwords;
use crate::auth::scram::{DEFAULT_ITERATIONS, Verifier, Verifiers, random_bytes};

/// Why a users file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum UsersError {
    /// It cannot be read.
    #[error("cannot read the users file {file}: {error}", file = file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// The error of the operating system.
        error: std::io::Error,
    },
    /// A line does not have the documented form.
    #[error("{file}:{line}: {problem}", file = file.display())]
    Line {
        /// The file.
        file: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A name that the file cannot contain.
    #[error(
        "a user name has 1 to 255 bytes, no control characters, and does not begin with # or @"
    )]
    Name,
    /// The operating system cannot provide random bytes.
    #[error("the operating system provides no random bytes")]
    NoRandomness,
    /// The hash function failed, for example for lack of memory.
    #[error("cannot hash the password: {0}")]
    Hash(String),
}

/// How expensive a password is to guess.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HashCost {
    /// Memory for argon2id, in KiB.
    pub memory_kib: u32,
    /// Passes of argon2id over that memory.
    pub passes: u32,
    /// Iterations of SCRAM-SHA-256.
    pub scram_iterations: u32,
}

impl Default for HashCost {
    fn default() -> Self {
        // The first recommendation of OWASP for argon2id.
        Self { memory_kib: 19_456, passes: 2, scram_iterations: DEFAULT_ITERATIONS }
    }
}

/// The format of a users file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UsersFormat {
    /// Petrel's own.
    #[default]
    Petrel,
    /// mosquitto's password file, which has nothing for SCRAM.
    Mosquitto,
}

/// One user.
#[derive(Debug)]
pub(crate) struct User {
    /// PHC string, or a hash of mosquitto.
    hash: String,
    /// For SCRAM.
    verifier: Option<Verifier>,
    /// Digest of the last correct password, so that many reconnections do not cost as many hashes.
    recent: Mutex<Option<[u8; 32]>>,
}

/// The content of a users file.
#[derive(Debug, Default)]
pub struct Users {
    secret: Vec<u8>,
    users: BTreeMap<String, User>,
}

impl Users {
    /// Reads the text of a users file. `file` is for messages.
    ///
    /// # Errors
    /// [`UsersError::Line`] for the first line that does not have the documented form.
    pub fn parse(text: &str, file: &Path) -> Result<Self, UsersError> {
        Self::parse_as(UsersFormat::Petrel, text, file)
    }

    fn parse_as(format: UsersFormat, text: &str, file: &Path) -> Result<Self, UsersError> {
        let mut users = Self::default();
        // Editors may add a byte order mark, carriage returns and trailing blanks.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        for (index, line) in text.lines().enumerate() {
            let line = line.trim_end();
            let parsed = match format {
                UsersFormat::Petrel => users.parse_line(line),
                UsersFormat::Mosquitto => users.parse_line_of_mosquitto(line),
            };
            parsed.map_err(|problem| UsersError::Line {
                file: file.to_owned(),
                line: index + 1,
                problem,
            })?;
        }
        if users.secret.is_empty() {
            users.secret = random_bytes::<32>().ok_or(UsersError::NoRandomness)?.to_vec();
        }
        Ok(users)
    }

    fn parse_line_of_mosquitto(&mut self, line: &str) -> Result<(), &'static str> {
        let Some((name, hash)) = mosquitto_passwords::parse_line(line)? else { return Ok(()) };
        if name.is_empty() || name.chars().any(char::is_control) {
            return Err("this is not a user name");
        }
        let user = User { hash: hash.to_owned(), verifier: None, recent: Mutex::default() };
        match self.users.insert(name.to_owned(), user) {
            None => Ok(()),
            Some(_) => Err("this user is in the file twice"),
        }
    }

    fn parse_line(&mut self, line: &str) -> Result<(), &'static str> {
        if line.trim().is_empty() || line.starts_with('#') {
            return Ok(());
        }
        if let Some(secret) = line.strip_prefix("@secret:") {
            let secret = BASE64.decode(secret.trim_end()).ok().filter(|secret| secret.len() >= 16);
            self.secret =
                secret.ok_or("@secret must be followed by at least 16 bytes in base64")?;
            return Ok(());
        }
        let mut parts = line.rsplitn(3, ':');
        let (Some(verifier), Some(hash), Some(name)) = (parts.next(), parts.next(), parts.next())
        else {
            return Err("expected NAME:HASH:VERIFIER; `petrel passwd` writes such lines");
        };
        if !is_name(name) {
            return Err("this is not a user name");
        }
        if PasswordHash::new(hash).is_err() || !hash.starts_with("$argon2") {
            return Err("the second field is not an argon2 hash");
        }
        let verifier = match verifier {
            "" => None,
            text => Some(Verifier::parse(text).ok_or("the third field is not a SCRAM verifier")?),
        };
        let user = User { hash: hash.to_owned(), verifier, recent: Mutex::default() };
        match self.users.insert(name.to_owned(), user) {
            None => Ok(()),
            Some(_) => Err("this user is in the file twice"),
        }
    }

    /// Writes the file's text.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = String::from(
            "# Users of Petrel. Edit with `petrel passwd`; the broker rereads this file on SIGHUP.\n",
        );
        let secret = BASE64.encode(&self.secret);
        // Writing to a String cannot fail.
        let _infallible = writeln!(text, "@secret:{secret}");
        for (name, user) in &self.users {
            let verifier = user.verifier.as_ref().map(Verifier::to_text).unwrap_or_default();
            let _infallible = writeln!(text, "{name}:{}:{verifier}", user.hash);
        }
        text
    }

    /// Adds a user or changes a password. True if the user is new.
    ///
    /// # Errors
    /// [`UsersError::Name`], [`UsersError::NoRandomness`], [`UsersError::Hash`].
    pub fn set(&mut self, name: &str, password: &str, cost: HashCost) -> Result<bool, UsersError> {
        if !is_name(name) {
            return Err(UsersError::Name);
        }
        let salt = random_bytes::<16>().ok_or(UsersError::NoRandomness)?;
        let verifier = Verifier::new(password, &salt, cost.scram_iterations);
        let hash = hash_password(password.as_bytes(), cost)?;
        let user = User { hash, verifier, recent: Mutex::default() };
        Ok(self.users.insert(name.to_owned(), user).is_none())
    }

    /// Removes a user. False if there was no user with this name.
    pub fn remove(&mut self, name: &str) -> bool {
        self.users.remove(name).is_some()
    }

    /// The names, sorted, each with whether SCRAM is possible.
    pub fn names(&self) -> impl Iterator<Item = (&str, bool)> {
        self.users.iter().map(|(name, user)| (&**name, user.verifier.is_some()))
    }

    /// Checks a password with the full hash. An unknown name is checked against a hash that no password has, so that
    /// the time of a refusal does not reveal which names exist.
    #[must_use]
    pub fn verify(&self, name: &str, password: &[u8]) -> bool {
        let user = self.users.get(name);
        let hash = user.map_or_else(|| self.nobodys_hash(), |user| user.hash.clone());
        if let Some(is_right) = mosquitto_passwords::verify(&hash, password) {
            return is_right && user.is_some();
        }
        let Ok(hash) = PasswordHash::new(&hash) else { return false };
        Argon2::default().verify_password(password, &hash).is_ok() && user.is_some()
    }

    /// A hash as expensive as a user's, for which nobody knows a password.
    fn nobodys_hash(&self) -> String {
        let first = self.users.values().next();
        if let Some(hash) = first.and_then(|user| mosquitto_passwords::nobodys_hash(&user.hash)) {
            return hash;
        }
        let params = first.and_then(|user| params_of(&user.hash));
        let HashCost { memory_kib, passes, .. } = HashCost::default();
        let (memory_kib, passes, lanes) = params.map_or((memory_kib, passes, 1), |known| {
            (known.m_cost(), known.t_cost(), known.p_cost())
        });
        let (salt, output) = (BASE64_NO_PAD.encode([0; 16]), BASE64_NO_PAD.encode([0; 32]));
        format!("$argon2id$v=19$m={memory_kib},t={passes},p={lanes}${salt}${output}")
    }

    /// Keeps the remembered digests of users that have not changed since the file was last read; returns the users that
    /// were changed or removed.
    fn take_over_from(&self, earlier: &Self) -> Vec<String> {
        let mut changed = Vec::new();
        for (name, user) in &earlier.users {
            match self.users.get(name) {
                Some(same) if same.hash == user.hash && same.verifier == user.verifier => {
                    *same.recent.lock() = *user.recent.lock();
                }
                Some(_) | None => changed.push(name.clone()),
            }
        }
        changed
    }

    /// Whether this password was accepted before, without the full hash.
    fn is_recent(&self, name: &str, digest: &[u8; 32]) -> bool {
        let recent = self.users.get(name).and_then(|user| *user.recent.lock());
        recent.is_some_and(|recent| recent.ct_eq(digest).into())
    }

    fn remember(&self, name: &str, digest: [u8; 32]) {
        if let Some(user) = self.users.get(name) {
            *user.recent.lock() = Some(digest);
        }
    }
}

fn is_name(name: &str) -> bool {
    (1..=255).contains(&name.len())
        && !name.starts_with(['#', '@'])
        && !name.chars().any(char::is_control)
}

fn hash_password(password: &[u8], cost: HashCost) -> Result<String, UsersError> {
    let error = |error: &dyn std::fmt::Display| UsersError::Hash(error.to_string());
    let salt = random_bytes::<16>().ok_or(UsersError::NoRandomness)?;
    let salt = SaltString::encode_b64(&salt).map_err(|e| error(&e))?;
    let params = Params::new(cost.memory_kib, cost.passes, 1, None).map_err(|e| error(&e))?;
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    Ok(argon2.hash_password(password, &salt).map_err(|e| error(&e))?.to_string())
}

fn params_of(hash: &str) -> Option<Params> {
    Params::try_from(&PasswordHash::new(hash).ok()?).ok()
}

/// The users file of a running broker.
#[derive(Debug)]
pub struct UsersFile {
    path: PathBuf,
    format: UsersFormat,
    users: RwLock<Arc<Users>>,
    /// Users who were changed or removed since startup, with the revision in which that happened.
    changed: Mutex<HashMap<String, u64>>,
    revision: AtomicU64,
    /// Key for the digests of recent passwords: new in each process, so that they are worthless elsewhere.
    digest_key: [u8; 32],
}

impl UsersFile {
    /// Reads the file.
    ///
    /// # Errors
    /// [`UsersError`] if it cannot be read or has a mistake.
    pub fn open(path: &Path) -> Result<Self, UsersError> {
        Self::open_as(UsersFormat::Petrel, path)
    }

    /// The same for a file in this format.
    ///
    /// # Errors
    /// [`UsersError`] if it cannot be read or has a mistake.
    pub fn open_as(format: UsersFormat, path: &Path) -> Result<Self, UsersError> {
        let users = RwLock::new(Arc::new(read(format, path)?));
        let digest_key = random_bytes().ok_or(UsersError::NoRandomness)?;
        let (changed, revision) = (Mutex::default(), AtomicU64::new(0));
        Ok(Self { path: path.to_owned(), format, users, changed, revision, digest_key })
    }

    /// Rereads the file; if it has a mistake, the old users stay. Returns how many users were removed or changed.
    ///
    /// # Errors
    /// [`UsersError`] if it cannot be read or has a mistake.
    pub(crate) fn reload(&self) -> Result<usize, UsersError> {
        let users = read(self.format, &self.path)?;
        let mut current = self.users.write();
        let changed = users.take_over_from(&current);
        let count = changed.len();
        if count > 0 {
            let revision = self.revision.load(Ordering::Relaxed) + 1;
            self.changed.lock().extend(changed.into_iter().map(|name| (name, revision)));
            self.revision.store(revision, Ordering::Release);
        }
        *current = Arc::new(users);
        Ok(count)
    }

    /// Whether users can authenticate with SCRAM.
    #[must_use]
    pub(crate) fn offers_scram(&self) -> bool {
        self.format == UsersFormat::Petrel
    }

    /// Rises with each reload that changed or removed a user.
    #[must_use]
    pub(crate) fn revision(&self) -> u64 {
        self.revision.load(Ordering::Acquire)
    }

    /// Whether this user was changed or removed after this revision.
    #[must_use]
    pub(crate) fn is_changed_since(&self, name: &str, revision: u64) -> bool {
        self.changed.lock().get(name).is_some_and(|at| *at > revision)
    }

    /// The current users.
    #[must_use]
    pub(crate) fn users(&self) -> Arc<Users> {
        Arc::clone(&self.users.read())
    }

    /// Whether [`UsersFile::verify`] would take long.
    #[must_use]
    pub(crate) fn is_slow(&self, name: &str, password: &[u8]) -> bool {
        !self.users().is_recent(name, &self.digest(name, password))
    }

    /// Whether this is the password of this user. Uses a core for as long as the hash takes.
    #[must_use]
    pub(crate) fn verify(&self, name: &str, password: &[u8]) -> bool {
        let users = self.users();
        let digest = self.digest(name, password);
        if users.is_recent(name, &digest) {
            return true;
        }
        let is_right = users.verify(name, password);
        if is_right {
            users.remember(name, digest);
        }
        is_right
    }

    fn digest(&self, name: &str, password: &[u8]) -> [u8; 32] {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.digest_key)
            .expect("HMAC takes keys of every length");
        mac.update(&(name.len() as u64).to_be_bytes());
        mac.update(name.as_bytes());
        mac.update(password);
        mac.finalize().into_bytes().into()
    }
}

impl Verifiers for Arc<UsersFile> {
    fn verifier(&self, user_name: &str) -> Verifier {
        let users = self.users();
        let known = users.users.get(user_name).and_then(|user| user.verifier.clone());
        known.unwrap_or_else(|| {
            let mut others = users.users.values().filter_map(|user| user.verifier.as_ref());
            let iterations = others.next().map_or(DEFAULT_ITERATIONS, |user| user.iterations);
            Verifier::fake(user_name, &users.secret, iterations)
        })
    }
}

fn read(format: UsersFormat, path: &Path) -> Result<Users, UsersError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Users::parse_as(format, &text, path),
        Err(error) => Err(UsersError::Unreadable { file: path.to_owned(), error }),
    }
}

#[cfg(test)]
mod tests;
