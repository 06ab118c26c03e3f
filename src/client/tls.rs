//! What a failed TLS handshake means, with the option that cures it.

use std::io;

use rumqttc::TlsError;
use rustls::{CertificateError, Error};

/// The reason in words.
pub(super) fn explain(error: &TlsError) -> String {
    match error {
        TlsError::Io(error) => explain_io(error),
        TlsError::TLS(error) => explain_rustls(error),
        other => other.to_string(),
    }
}

/// Whether an I/O error comes from TLS.
pub(super) fn is_tls(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<Error>())
}

/// The reason in words, of an error that may have been wrapped.
pub(super) fn explain_io(error: &io::Error) -> String {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(inner) => explain_rustls(inner),
        None if error.kind() == io::ErrorKind::UnexpectedEof => {
            "the broker closed the connection during the handshake; does this port speak TLS, and \
             does it want a client certificate (--cert and --key)?"
                .to_owned()
        }
        None => error.to_string(),
    }
}

fn explain_rustls(error: &Error) -> String {
    let cure = match error {
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            "its certificate is signed by an authority that is not trusted; is --cafile the right one?"
        }
        Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => "its certificate is for another name; connect by that name (-h), or use --insecure",
        Error::InvalidCertificate(
            CertificateError::Expired | CertificateError::ExpiredContext { .. },
        ) => "its certificate has expired",
        Error::AlertReceived(_) => {
            "the broker refused our side; does it want a client certificate (--cert and --key)?"
        }
        Error::InvalidMessage(_) => "the answer is not TLS; does this port speak TLS?",
        _ => return error.to_string(),
    };
    format!("{cure} ({error})")
}
