//! Text that a Client has sent, on its way into the log. Handed over as a text, not as something printed, it is escaped by
//! whatever form the log has, so that it cannot look like lines or colours of it; here it is bounded.

use std::borrow::Cow;

/// Characters that are shown.
const MAX_CHARACTERS: usize = 128;

/// The text, or its beginning and how much is missing.
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
