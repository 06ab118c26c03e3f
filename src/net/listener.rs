//! Binds listeners: creates listening sockets from settings.
//!
//! All listeners are bound before any of them accepts, so with a mistake in one of them the broker does not start,
//! rather than work partly. Errors name the listener, its address and a fix, because they are read at a console and in
//! a hurry.

use std::fmt;
use std::fs::{self, Permissions};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use socket2::{Domain, Protocol, SockAddr, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, UnixListener};

use crate::config::settings::{ListenAddress, ListenerSettings};
use crate::net::tls::{TlsAcceptor, TlsError};

/// Connections that the kernel completes before we accept them; limited by `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// TCP keepalive, so that a dead peer is noticed even if the Client's Keep Alive is 0.
const KEEPALIVE_IDLE: Duration = Duration::from_mins(2);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_PROBES: u32 = 4;

/// Unsent bytes that the kernel accepts for one Client. Otherwise a Client that stops reading fills a send buffer of up
/// to megabytes before its outbox, which has a limit, begins to fill.
const UNSENT_BYTES: u32 = 128 * 1024;

/// Why a listener could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The address is in use.
    #[error(
        "listener `{listener}`: {address} is in use; stop what listens there (`ss -lntxp` shows it) \
         or choose another address"
    )]
    InUse {
        /// Name of the listener.
        listener: String,
        /// Its address.
        address: ListenAddressText,
    },
    /// No permission to bind this port or to write to this directory.
    #[error(
        "listener `{listener}`: no permission to listen on {address}; ports below 1024 need the \
         capability CAP_NET_BIND_SERVICE, a Unix socket needs a directory that Petrel may write to"
    )]
    Permission {
        /// Name of the listener.
        listener: String,
        /// Its address.
        address: ListenAddressText,
    },
    /// No interface of this machine has this address.
    #[error(
        "listener `{listener}`: this machine does not have the address of {address}; `ip address` lists its addresses, 0.0.0.0 and [::] stand for all of them"
    )]
    NoSuchAddress {
        /// Name of the listener.
        listener: String,
        /// Its address.
        address: ListenAddressText,
    },
    /// The path of a Unix socket exists and is not a socket.
    #[error(
        "listener `{listener}`: {path} exists and is not a socket; remove it or choose another path"
    )]
    NotASocket {
        /// Name of the listener.
        listener: String,
        /// Its path.
        path: PathBuf,
    },
    /// Any other error of the operating system.
    #[error("listener `{listener}`: cannot listen on {address}: {source}")]
    System {
        /// Name of the listener.
        listener: String,
        /// Its address.
        address: ListenAddressText,
        /// The error of the operating system.
        source: io::Error,
    },
    /// Its certificates could not be loaded.
    #[error("listener `{listener}`: {source}")]
    Tls {
        /// Name of the listener.
        listener: String,
        /// What is wrong with them.
        source: TlsError,
    },
}

/// An address as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenAddressText(pub(crate) ListenAddress);

impl fmt::Display for ListenAddressText {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            ListenAddress::Tcp(address) => write!(formatter, "{address}"),
            ListenAddress::Unix { path, .. } => write!(formatter, "{}", path.display()),
        }
    }
}

/// A listening socket. The kernel completes connections, which are not accepted yet.
#[derive(Debug)]
pub(crate) enum ListeningSocket {
    /// TCP.
    Tcp(TcpListener),
    /// Unix; the file is removed on drop.
    Unix(UnixListener, SocketFile),
}

/// One bound listener.
#[derive(Debug)]
pub(crate) struct BoundListener {
    /// As configured.
    pub(crate) settings: ListenerSettings,
    /// Where it actually listens, with the real port if the settings say 0.
    pub(crate) address: ListenAddress,
    pub(crate) socket: ListeningSocket,
    pub(crate) tls: Option<TlsAcceptor>,
}

impl BoundListener {
    /// Binds one listener and loads its certificates. Must be called in a Tokio runtime.
    pub(crate) fn bind(settings: &ListenerSettings) -> Result<Self, ListenError> {
        let listener = || settings.rules.name.clone();
        let tls = match &settings.tls {
            Some(tls) => Some(
                TlsAcceptor::load(tls.clone(), &settings.transport)
                    .map_err(|source| ListenError::Tls { listener: listener(), source })?,
            ),
            None => None,
        };
        let (socket, address) = match &settings.address {
            ListenAddress::Tcp(address) => bind_tcp(*address)
                .map_err(|error| explain(listener(), settings.address.clone(), error))?,
            ListenAddress::Unix { path, mode } => {
                if !remove_stale_socket(path)
                    .map_err(|error| explain(listener(), settings.address.clone(), error))?
                {
                    return Err(ListenError::NotASocket {
                        listener: listener(),
                        path: path.clone(),
                    });
                }
                let socket = bind_unix(path, *mode)
                    .map_err(|error| explain(listener(), settings.address.clone(), error))?;
                (socket, settings.address.clone())
            }
        };
        Ok(Self { settings: settings.clone(), address, socket, tls })
    }
}

fn explain(listener: String, address: ListenAddress, source: io::Error) -> ListenError {
    let address = ListenAddressText(address);
    match source.kind() {
        io::ErrorKind::AddrInUse => ListenError::InUse { listener, address },
        io::ErrorKind::PermissionDenied => ListenError::Permission { listener, address },
        io::ErrorKind::AddrNotAvailable => ListenError::NoSuchAddress { listener, address },
        _ => ListenError::System { listener, address, source },
    }
}

fn bind_tcp(address: SocketAddr) -> io::Result<(ListeningSocket, ListenAddress)> {
    let socket = match open_tcp(address) {
        // The kernel has no IPv6: `[::]` stands for every address, so listen on IPv4.
        Err(error)
            if address.ip().is_unspecified()
                && address.is_ipv6()
                && error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error()) =>
        {
            tracing::warn!(%address, "no IPv6 on this machine, listening on IPv4 only");
            open_tcp(SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port())))?
        }
        other => other?,
    };
    let listener = TcpListener::from_std(socket.into())?;
    let bound = listener.local_addr()?;
    Ok((ListeningSocket::Tcp(listener), ListenAddress::Tcp(bound)))
}

fn open_tcp(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    socket.set_reuse_address(true)?;
    // Accepted sockets inherit these options from the listening one, which saves two system calls for each of them.
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_notsent_lowat(UNSENT_BYTES)?;
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_IDLE)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(KEEPALIVE_PROBES);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

/// Binds a Unix socket. Nobody can connect before `listen`, so the file has its mode before it can be used.
fn bind_unix(path: &Path, mode: u32) -> io::Result<ListeningSocket> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::unix(path)?)?;
    let file = SocketFile::claim(path)?;
    fs::set_permissions(path, Permissions::from_mode(mode))?;
    socket.listen(BACKLOG)?;
    Ok(ListeningSocket::Unix(UnixListener::from_std(socket.into())?, file))
}

/// Removes the socket of a killed broker. Returns `Ok(false)` if a process listens on it, or if it is not a socket.
fn remove_stale_socket(path: &Path) -> io::Result<bool> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        Err(error) => return Err(error),
    };
    if !metadata.file_type().is_socket() {
        return Ok(false);
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_someone) => Err(io::ErrorKind::AddrInUse.into()),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path)?;
            Ok(true)
        }
        Err(error) => Err(error),
    }
}

/// The file of a Unix socket. Removed on drop, unless another process has replaced it.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl SocketFile {
    fn claim(path: &Path) -> io::Result<Self> {
        let metadata = fs::symlink_metadata(path)?;
        Ok(Self { path: path.to_owned(), device: metadata.dev(), inode: metadata.ino() })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|found| found.dev() == self.device && found.ino() == self.inode);
        if ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::debug!(path = %self.path.display(), %error, "cannot remove the socket file");
        }
    }
}
