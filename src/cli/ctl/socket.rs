//! Finds the control socket of the running broker.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use petrel::config::table::File;

use crate::cli::configuration::ConfigurationOptions;

/// The data directory of a broker installed as a service, as in `docs/operation.md`.
const INSTALLED: &str = "/var/lib/petrel";

/// No broker answers at any of these places.
#[derive(Debug, thiserror::Error)]
#[error("no broker answers; tried:{}\nuse --socket PATH, --config FILE or PETREL_DATA_DIR to say where it is", list(.0))]
pub(crate) struct NoBroker(Vec<(String, String)>);

fn list(places: &[(String, String)]) -> String {
    let lines: Vec<String> =
        places.iter().map(|(place, why)| format!("\n  {place}: {why}")).collect();
    lines.concat()
}

/// Where the socket may be, best first, and why other places are unusable.
#[derive(Debug, PartialEq, Eq)]
struct Places {
    sockets: Vec<PathBuf>,
    unusable: Vec<(String, String)>,
}

/// Connects to the broker: at `socket` if given, otherwise where the configuration says. If the configuration does not
/// name a data directory, the one of an installed service is tried as well.
pub(crate) fn connect(
    socket: Option<&Path>,
    configuration: &ConfigurationOptions,
) -> Result<UnixStream, NoBroker> {
    let places = match socket {
        Some(socket) => Places { sockets: vec![socket.to_owned()], unusable: Vec::new() },
        None => configured(configuration),
    };
    first_that_answers(places)
}

fn configured(configuration: &ConfigurationOptions) -> Places {
    let default = File::default();
    let installed = Path::new(INSTALLED).join(&default.control.socket);
    let here = Path::new(&default.data_dir).join(&default.control.socket);
    match configuration.load() {
        Ok(settings) => {
            let is_open = settings.file.data_dir == default.data_dir;
            let name = settings.file.control.socket.clone();
            let mut sockets: Vec<PathBuf> = settings.control_socket.into_iter().collect();
            let mut unusable = Vec::new();
            if name.is_empty() {
                unusable.push((
                    "the configuration".to_owned(),
                    "the socket is disabled ([control] socket)".to_owned(),
                ));
            } else if is_open {
                sockets.push(Path::new(INSTALLED).join(name));
            }
            Places { sockets, unusable }
        }
        Err(error) => {
            let first = error.to_string().lines().take(2).collect::<Vec<_>>().join(" ");
            let unusable = vec![("the configuration".to_owned(), first)];
            Places { sockets: vec![here, installed], unusable }
        }
    }
}

fn first_that_answers(places: Places) -> Result<UnixStream, NoBroker> {
    let mut tried = places.unusable;
    for socket in places.sockets {
        match UnixStream::connect(&socket) {
            Ok(stream) => return Ok(stream),
            Err(error) => tried.push((socket.display().to_string(), why(&error))),
        }
    }
    Err(NoBroker(tried))
}

fn why(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "does not exist".to_owned(),
        io::ErrorKind::ConnectionRefused => "stale: no broker listens on it".to_owned(),
        io::ErrorKind::PermissionDenied => {
            "permission denied: use the broker's account, or root".to_owned()
        }
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    fn places(sockets: &[&Path]) -> Places {
        let sockets = sockets.iter().map(|socket| (*socket).to_owned()).collect();
        Places { sockets, unusable: Vec::new() }
    }

    #[test]
    fn the_first_socket_that_answers_is_taken() {
        let directory = tempfile::tempdir().unwrap();
        let (absent, left, there) = (
            directory.path().join("absent"),
            directory.path().join("left"),
            directory.path().join("there"),
        );
        drop(UnixListener::bind(&left).unwrap());
        let _listener = UnixListener::bind(&there).unwrap();
        assert!(first_that_answers(places(&[&absent, &left, &there])).is_ok());
        let error = first_that_answers(places(&[&absent, &left])).unwrap_err().to_string();
        assert!(error.contains(&format!("{}: does not exist", absent.display())), "{error}");
        assert!(error.contains(&format!("{}: stale", left.display())), "{error}");
        assert!(error.contains("PETREL_DATA_DIR"), "{error}");
    }

    #[test]
    fn a_configuration_that_names_a_data_directory_is_the_only_place() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("petrel.toml");
        std::fs::write(&file, "data_dir = \"/srv/petrel\"\n[control]\nsocket = \"x.sock\"\n")
            .unwrap();
        let found = configured(&ConfigurationOptions::of(&file));
        assert_eq!(found, places(&[Path::new("/srv/petrel/x.sock")]));
        std::fs::write(&file, "[log]\n").unwrap();
        let found = configured(&ConfigurationOptions::of(&file)).sockets;
        let here = Path::new("./data/petrel.sock");
        assert_eq!(found, [here, Path::new("/var/lib/petrel/petrel.sock")]);
        std::fs::write(&file, "[logg]\n").unwrap();
        let found = configured(&ConfigurationOptions::of(&file));
        assert_eq!((found.sockets.len(), found.unusable.len()), (2, 1));
    }
}
