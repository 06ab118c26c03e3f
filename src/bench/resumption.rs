//! The TLS state that a client keeps between connections: as with real devices, each one resumes its own session.

use std::sync::Arc;

use parking_lot::Mutex;
use rustls::NamedGroup;
use rustls::client::{ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls::pki_types::ServerName;

/// The TLS session that one client resumes when it connects again; clones are the same client's.
#[derive(Debug, Clone, Default)]
pub(super) struct TlsSession(Arc<Slot>);

impl TlsSession {
    /// As rustls wants it.
    pub(super) fn store(&self) -> Arc<dyn ClientSessionStore> {
        Arc::<Slot>::clone(&self.0)
    }
}

/// Room for one session with one broker: a ticket and the broker's certificates, a few KiB, so that tens of thousands of
/// clients can have theirs. Of several tickets the last is kept.
#[derive(Debug, Default)]
struct Slot(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    /// The key exchange that the broker chose.
    group: Option<NamedGroup>,
    session: Option<Session>,
}

/// Behind a pointer: clients that have not connected yet, or without TLS, hold none.
#[derive(Debug)]
enum Session {
    Tls12(Box<Tls12ClientSessionValue>),
    Tls13(Box<Tls13ClientSessionValue>),
}

/// The name of the server is not looked at: a generator speaks with one broker.
impl ClientSessionStore for Slot {
    fn set_kx_hint(&self, _server_name: ServerName<'static>, group: NamedGroup) {
        self.0.lock().group = Some(group);
    }

    fn kx_hint(&self, _server_name: &ServerName<'_>) -> Option<NamedGroup> {
        self.0.lock().group
    }

    fn set_tls12_session(
        &self,
        _server_name: ServerName<'static>,
        session: Tls12ClientSessionValue,
    ) {
        self.0.lock().session = Some(Session::Tls12(Box::new(session)));
    }

    fn tls12_session(&self, _server_name: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        match &self.0.lock().session {
            Some(Session::Tls12(session)) => Some(Tls12ClientSessionValue::clone(session)),
            Some(Session::Tls13(_)) | None => None,
        }
    }

    fn remove_tls12_session(&self, _server_name: &ServerName<'static>) {
        let session = &mut self.0.lock().session;
        session.take_if(|session| matches!(session, Session::Tls12(_)));
    }

    fn insert_tls13_ticket(
        &self,
        _server_name: ServerName<'static>,
        ticket: Tls13ClientSessionValue,
    ) {
        self.0.lock().session = Some(Session::Tls13(Box::new(ticket)));
    }

    /// A ticket is used once, as TLS 1.3 recommends.
    fn take_tls13_ticket(
        &self,
        _server_name: &ServerName<'static>,
    ) -> Option<Tls13ClientSessionValue> {
        let session = &mut self.0.lock().session;
        match session.take_if(|session| matches!(session, Session::Tls13(_))) {
            Some(Session::Tls13(ticket)) => Some(*ticket),
            Some(Session::Tls12(_)) | None => None,
        }
    }
}
