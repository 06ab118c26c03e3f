//! Warnings about risky settings, logged once at startup.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use petrel::config::settings::Settings;
use tracing::warn;

/// Permission bits that a file with secrets should not have: only its owner, and its group for reading, should have
/// access.
const LOOSE: u32 = 0o027;

/// Warns about running as root, and about files with secrets that others can read.
pub(crate) fn warn_of(settings: &Settings) {
    if rustix::process::geteuid().is_root() {
        warn!(
            "running as root, which Petrel does not need: a fault would put the whole machine at risk; run it as a user \
             of its own, and use systemd or setcap for ports below 1024"
        );
    }
    for (what, path) in secrets(settings) {
        let Ok(found) = fs::metadata(path) else { continue };
        if is_loose(found.mode()) {
            let (file, mode) = (path.display(), format!("{:04o}", found.mode() & 0o7777));
            warn!(%file, mode, "others can read or change this {what}: `chmod 0600` it, or 0640 for a group");
        }
    }
}

fn is_loose(mode: u32) -> bool {
    mode & LOOSE != 0
}

fn secrets(settings: &Settings) -> impl Iterator<Item = (&'static str, &Path)> {
    let users = settings.users_file.as_deref().map(|path| ("users file", path));
    let mosquitto = settings.password_file.as_deref().map(|path| ("password file", path));
    let tls = settings.listeners.iter().filter_map(|listener| listener.tls.as_ref());
    let keys = tls.map(|tls| ("private key", &*tls.key));
    let bridges = &settings.file.bridge;
    let passwords =
        bridges.iter().map(|bridge| ("password file", Path::new(&bridge.password_file)));
    let bridge_keys = bridges.iter().map(|bridge| ("private key", Path::new(&bridge.tls.key)));
    let of_bridges = passwords.chain(bridge_keys).filter(|(_, path)| !path.as_os_str().is_empty());
    users.into_iter().chain(mosquitto).chain(keys).chain(of_bridges)
}

#[cfg(test)]
mod tests {
    use super::is_loose;

    #[test]
    fn owner_and_a_group_that_reads_are_in_order() {
        for mode in [0o100_600, 0o100_640, 0o100_400, 0o100_700] {
            assert!(!is_loose(mode), "{mode:o}");
        }
        for mode in [0o100_644, 0o100_660, 0o100_604, 0o100_777] {
            assert!(is_loose(mode), "{mode:o}");
        }
    }
}
