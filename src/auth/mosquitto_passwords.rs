//! mosquitto's password files, as `mosquitto_passwd` writes them: one `NAME:HASH` for each line.
//!
//! A hash is `$6$SALT$HASH` (SHA-512 of password and salt), `$7$ITERATIONS$SALT$HASH` (PBKDF2 with HMAC-SHA-512), or, since
//! mosquitto 2.1, argon2id as a PHC string. Salt and hash of the first two are in base64. Lines that begin with `#` and empty
//! lines are skipped. Plain passwords, which old versions allowed, are refused.

use argon2::password_hash::PasswordHash;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use pbkdf2::pbkdf2_hmac_array;
use sha2::{Digest, Sha512};
use subtle::ConstantTimeEq;

/// Most iterations of PBKDF2: some seconds.
const MAX_ITERATIONS: u32 = 10_000_000;

/// A hash other than argon2id.
struct Sha512Hash {
    /// `None`: SHA-512 once, without PBKDF2.
    iterations: Option<u32>,
    salt: Vec<u8>,
    hash: Vec<u8>,
}

/// Reads one line: name and hash, or `None` if there is nothing in it.
///
/// # Errors
/// What is wrong with it.
pub(super) fn parse_line(line: &str) -> Result<Option<(&str, &str)>, &'static str> {
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let Some((name, hash)) = line.split_once(':') else {
        return Err("expected NAME:HASH; `mosquitto_passwd` writes such lines");
    };
    let is_argon2id = hash.starts_with("$argon2id$") && PasswordHash::new(hash).is_ok();
    if !is_argon2id && Sha512Hash::parse(hash).is_none() {
        return Err(
            "the hash is none of $6$, $7$ and $argon2id$; `mosquitto_passwd -U` hashes plain passwords",
        );
    }
    Ok(Some((name, hash)))
}

/// Whether a password belongs to a hash with SHA-512; `None` if the hash is another.
pub(super) fn verify(hash: &str, password: &[u8]) -> Option<bool> {
    let known = Sha512Hash::parse(hash)?;
    let computed: [u8; 64] = match known.iterations {
        Some(iterations) => pbkdf2_hmac_array::<Sha512, 64>(password, &known.salt, iterations),
        None => Sha512::new().chain_update(password).chain_update(&known.salt).finalize().into(),
    };
    Some(computed.as_slice().ct_eq(&known.hash).into())
}

/// A hash as expensive as this one, for which nobody knows a password; `None` if it is not one with SHA-512.
pub(super) fn nobodys_hash(like: &str) -> Option<String> {
    let known = Sha512Hash::parse(like)?;
    let (salt, hash) = (BASE64.encode([0; 12]), BASE64.encode([0; 64]));
    Some(match known.iterations {
        Some(iterations) => format!("$7${iterations}${salt}${hash}"),
        None => format!("$6${salt}${hash}"),
    })
}

impl Sha512Hash {
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.strip_prefix('$')?.split('$');
        let iterations = match parts.next()? {
            "6" => None,
            "7" => {
                let iterations = parts.next()?.parse().ok();
                Some(iterations.filter(|count| (1..=MAX_ITERATIONS).contains(count))?)
            }
            _ => return None,
        };
        let salt = BASE64.decode(parts.next()?).ok()?;
        let hash = BASE64.decode(parts.next()?).ok()?;
        (parts.next().is_none() && hash.len() == 64).then_some(Self { iterations, salt, hash })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Written by `mosquitto_passwd` 2.0.11, for the password `pass word`.
    const SIX: &str = "$6$7G3hf1vDvIVIR2sO$pCTIFxzvvjKGq0jGHYcck8jC2NCBTlSfOMqauIc0cd5AtWaSxT/BGTHAaWQbkZq+iaL7X1KLFIaTGunc1YwQZw==";
    const SEVEN: &str = "$7$101$Hli4OGuj5sPx6Ez3$64IeP6YUMHZUfkU4Us2G7onhWdHR8K00nZBrNkJgr1TVJCMhdsuf3WZDeocDbKy9To/LoTGuSqXLRxw9fETKNA==";

    #[test]
    fn hashes_of_mosquitto_passwd_are_verified() {
        for hash in [SIX, SEVEN] {
            assert_eq!(parse_line(&format!("ann:{hash}")), Ok(Some(("ann", hash))));
            assert_eq!(verify(hash, b"pass word"), Some(true));
            assert_eq!(verify(hash, b"password"), Some(false));
            let nobodys = nobodys_hash(hash).unwrap();
            assert_eq!(verify(&nobodys, b"pass word"), Some(false));
        }
        assert_eq!(verify("$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$aGFzaGhhc2g", b"x"), None);
    }

    #[test]
    fn other_lines_are_skipped_or_refused() {
        assert_eq!(parse_line(""), Ok(None));
        assert_eq!(parse_line("# ann"), Ok(None));
        let argon = "$argon2id$v=19$m=47104,t=1,p=1$c2FsdHNhbHRzYWx0$aGFzaGhhc2hoYXNoaGFzaA";
        assert_eq!(parse_line(&format!("ann:{argon}")), Ok(Some(("ann", argon))));
        let zero = SEVEN.replace("$101$", "$0$");
        let many = SEVEN.replace("$101$", "$4000000000$");
        for hash in ["secret", "", "$6$AAAA$AAAA", "$7$x$AAAA$AAAA", "$5$AAAA$AAAA", &*zero, &*many]
        {
            assert!(parse_line(&format!("ann:{hash}")).is_err(), "{hash}");
        }
        assert!(parse_line("ann").is_err());
    }
}
