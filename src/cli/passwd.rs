//! `petrel passwd`: edits a users file.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, IsTerminal, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use petrel::auth::users::{HashCost, Users};
use rustix::fs::{FlockOperation, flock};

use crate::cli::{complain, say};

/// Adds a user to a users file, or changes a password.
///
/// Prompts for the password without echo, or reads one line from standard input if that is not a terminal or with
/// --stdin. Only hashes are written: argon2id for CONNECT, a SCRAM-SHA-256 verifier for enhanced authentication. The
/// file is replaced atomically and is readable by its owner only. A running broker rereads it on SIGHUP.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  petrel passwd users.txt ann                    add ann, or change her password
  echo s3cret | petrel passwd users.txt ann      the same in a script
  petrel passwd users.txt ann --verify           exit code 0 if the password is correct, else 1
  petrel passwd users.txt ann --delete
  petrel passwd users.txt --list

Then name the file in the configuration:
  [auth]
  users_file = \"users.txt\"")]
pub(crate) struct PasswdCommand {
    /// The users file; created if it does not exist
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The user
    #[arg(value_name = "NAME", required_unless_present = "list")]
    name: Option<String>,
    /// Remove the user
    #[arg(short = 'D', long, conflicts_with_all = ["list", "verify"])]
    delete: bool,
    /// List the users
    #[arg(long, conflicts_with = "name")]
    list: bool,
    /// Check a password instead of setting it
    #[arg(long)]
    verify: bool,
    /// Read the password from standard input even if that is a terminal
    #[arg(long)]
    stdin: bool,
    /// Memory for the argon2id hash, in KiB
    #[arg(long, value_name = "KIB", default_value_t = HashCost::default().memory_kib)]
    #[arg(value_parser = clap::value_parser!(u32).range(8..=1_048_576))]
    memory: u32,
    /// Passes for the argon2id hash
    #[arg(long, value_name = "COUNT", default_value_t = HashCost::default().passes)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=100))]
    passes: u32,
    /// Iterations for the SCRAM-SHA-256 verifier; clients do this work
    #[arg(long, value_name = "COUNT", default_value_t = HashCost::default().scram_iterations)]
    #[arg(value_parser = clap::value_parser!(u32).range(4096..=1_000_000))]
    iterations: u32,
}

/// Longest password accepted, in bytes.
const MAX_PASSWORD_BYTES: u64 = 1024;

impl PasswdCommand {
    /// Runs the command.
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let name = self.name.as_deref().unwrap_or_default();
        if self.list {
            for (name, scram) in read(&self.file)?.names() {
                say(&format!("{name}{}", if scram { "" } else { "  (no SCRAM)" }))?;
            }
            return Ok(ExitCode::SUCCESS);
        }
        if self.verify {
            let right = read(&self.file)?.verify(name, self.password(Ask::Once)?.as_bytes());
            if !right {
                complain("wrong name or password");
                return Ok(ExitCode::FAILURE);
            }
            say("the password is correct")?;
            return Ok(ExitCode::SUCCESS);
        }
        if self.delete {
            return edit(&self.file, |users| {
                if !users.remove(name) {
                    bail!("there is no user {name} in {}", self.file.display());
                }
                Ok(format!("removed {name}"))
            });
        }
        // Before the lock, because a person may take long to answer.
        let password = self.password(Ask::Twice)?;
        let cost = HashCost {
            memory_kib: self.memory,
            passes: self.passes,
            scram_iterations: self.iterations,
        };
        edit(&self.file, |users| {
            let is_new = users.set(name, &password, cost)?;
            let done = if is_new { "added" } else { "changed the password of" };
            Ok(format!("{done} {name}"))
        })
    }

    fn password(&self, ask: Ask) -> anyhow::Result<String> {
        let stdin = io::stdin();
        let password = if self.stdin || !stdin.is_terminal() {
            let mut line = String::new();
            stdin.lock().take(MAX_PASSWORD_BYTES + 2).read_line(&mut line)?;
            line.trim_end_matches(['\n', '\r']).to_owned()
        } else {
            let password = rpassword::prompt_password("Password: ")?;
            if ask == Ask::Twice && rpassword::prompt_password("Again: ")? != password {
                bail!("the passwords differ; nothing was changed");
            }
            password
        };
        if password.is_empty() {
            bail!("the password is empty; nothing was changed");
        }
        if password.len() as u64 > MAX_PASSWORD_BYTES {
            bail!("the password is longer than {MAX_PASSWORD_BYTES} bytes; nothing was changed");
        }
        Ok(password)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Ask {
    Once,
    Twice,
}

fn read(file: &Path) -> anyhow::Result<Users> {
    let text = fs::read_to_string(file)
        .with_context(|| format!("cannot read the users file {}", file.display()))?;
    Ok(Users::parse(&text, file)?)
}

/// Changes the file under a lock and replaces it atomically.
fn edit(
    file: &Path,
    change: impl FnOnce(&mut Users) -> anyhow::Result<String>,
) -> anyhow::Result<ExitCode> {
    // A link stays a link: its target is replaced.
    let file = &fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
    let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    let directory = File::open(parent)
        .with_context(|| format!("cannot open the directory {}", parent.display()))?;
    // Held until the end, so that two editors cannot lose each other's changes.
    flock(&directory, FlockOperation::LockExclusive)?;

    let exists = file.exists();
    let mut users = if exists { read(file)? } else { Users::parse("", file)? };
    let done = change(&mut users)?;
    replace(file, &users.to_text())
        .with_context(|| format!("cannot write the users file {}", file.display()))?;
    directory.sync_all()?;
    say(&format!("{done} in {}{}", file.display(), if exists { "" } else { " (a new file)" }))?;
    Ok(ExitCode::SUCCESS)
}

fn replace(file: &Path, text: &str) -> io::Result<()> {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let draft = file.with_file_name(format!(".{name}.new"));
    // Left behind by an editor that was killed: nobody else holds the lock.
    if draft.exists() {
        fs::remove_file(&draft)?;
    }
    let mut out = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    if let Ok(old) = fs::metadata(file) {
        // Keeps the owner, since an administrator may edit a file of the broker's account, and read access of the
        // group.
        let now = out.metadata()?;
        if (old.uid(), old.gid()) != (now.uid(), now.gid()) {
            fchown(&out, Some(old.uid()), Some(old.gid()))?;
        }
        out.set_permissions(fs::Permissions::from_mode(old.mode() & 0o640 | 0o600))?;
    }
    out.write_all(text.as_bytes())?;
    out.sync_all()?;
    fs::rename(&draft, file)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHEAP: HashCost = HashCost { memory_kib: 8, passes: 1, scram_iterations: 4096 };

    fn add(file: &Path, name: &str) {
        edit(file, |users| Ok(users.set(name, "secret", CHEAP).map(|_| String::new())?)).unwrap();
    }

    fn mode(file: &Path) -> u32 {
        fs::metadata(file).unwrap().mode() & 0o777
    }

    #[test]
    fn a_new_file_is_for_its_owner_only_and_grows() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("users.txt");
        add(&file, "ann");
        add(&file, "bob");
        assert_eq!(mode(&file), 0o600);
        let users = read(&file).unwrap();
        assert_eq!(users.names().count(), 2);
        assert!(users.verify("bob", b"secret"));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "no draft is left");
    }

    #[test]
    fn a_group_that_may_read_keeps_that_and_others_lose_it() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("users.txt");
        add(&file, "ann");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o664)).unwrap();
        add(&file, "bob");
        assert_eq!(mode(&file), 0o640);
    }

    #[test]
    fn a_refused_change_leaves_the_file_alone() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("users.txt");
        add(&file, "ann");
        let before = fs::read(&file).unwrap();
        assert!(edit(&file, |_| bail!("no")).is_err());
        assert_eq!(fs::read(&file).unwrap(), before);
        fs::write(&file, "broken").unwrap();
        assert!(edit(&file, |_| Ok(String::new())).is_err());
        assert_eq!(fs::read(&file).unwrap(), b"broken");
    }

    #[test]
    fn a_link_stays_a_link() {
        let directory = tempfile::tempdir().unwrap();
        let (file, link) = (directory.path().join("users.txt"), directory.path().join("link"));
        add(&file, "ann");
        std::os::unix::fs::symlink(&file, &link).unwrap();
        add(&link, "bob");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(read(&file).unwrap().names().count(), 2);
    }
}
