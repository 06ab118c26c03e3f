//! `rumqttc`'s names for reasons and errors, in words.

use std::fmt::Debug;

/// The words of a name: `NotAuthorized` becomes `not authorized`.
pub(super) fn words(name: &impl Debug) -> String {
    let name = format!("{name:?}");
    match name.as_str() {
        "BadUserNamePassword" => return "bad user name or password".to_owned(),
        "BadClientId" => return "client identifier not valid".to_owned(),
        "RefusedProtocolVersion" => return "unsupported protocol version".to_owned(),
        "Failure" => return "refused, without a reason".to_owned(),
        _ => {}
    }
    let mut words = String::with_capacity(name.len() + 4);
    let mut is_after_lower = false;
    for letter in name.chars() {
        if letter.is_uppercase() && is_after_lower {
            words.push(' ');
        }
        is_after_lower = letter.is_lowercase() || letter.is_ascii_digit();
        words.extend(letter.to_lowercase());
    }
    words.replace("pkid", "packet identifier").replace("qo s", "QoS ")
}

/// Adds what the broker wrote itself.
pub(super) fn with_detail(reason: String, detail: Option<&String>) -> String {
    match detail {
        Some(detail) if !detail.is_empty() => format!("{reason} (it says: {detail})"),
        _ => reason,
    }
}

#[cfg(test)]
mod tests {
    use rumqttc::v5::mqttbytes::v5::{ConnectReturnCode, PubAckReason, SubscribeReasonCode};

    use super::*;

    #[test]
    fn names_become_words() {
        assert_eq!(words(&PubAckReason::QuotaExceeded), "quota exceeded");
        assert_eq!(words(&SubscribeReasonCode::PkidInUse), "packet identifier in use");
        assert_eq!(words(&ConnectReturnCode::BadUserNamePassword), "bad user name or password");
        assert_eq!(words(&ConnectReturnCode::QoSNotSupported), "QoS not supported");
    }
}
