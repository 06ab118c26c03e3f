//! Text from a Client for the log. It is logged as a string field, so the log format escapes it, and it cannot imitate
//! lines or colours of the log; this module limits its length.

use std::borrow::Cow;

/// Most characters shown.
const MAX_CHARACTERS: usize = 128;

/// The text, or its beginning and the number of bytes left out.
pub(crate) fn shown(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(MAX_CHARACTERS) {
        None => text.into(),
        Some((at, _)) => {
            let (start, rest) = text.split_at(at);
            format!("{start}... ({} bytes more)", rest.len()).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::shown;

    #[test]
    fn long_text_is_cut() {
        let whole = "é".repeat(128);
        assert_eq!(shown(&whole), whole);
        assert_eq!(shown(&"é".repeat(1000)), format!("{whole}... (1744 bytes more)"));
    }
}
