//! Text that a Client has sent, on its way into the log: escaped, so that it cannot look like lines or colours of the log,
//! and bounded.

use std::fmt::{self, Write as _};

/// Characters that are shown.
const MAX_CHARACTERS: usize = 128;

/// A text from a Client. `Display` and `Debug` show it in quotes, escaped, and cut after [`MAX_CHARACTERS`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ClientText<T>(pub T);

impl<T: AsRef<str>> fmt::Display for ClientText<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.as_ref();
        formatter.write_char('"')?;
        let mut characters = text.char_indices();
        for (_, character) in characters.by_ref().take(MAX_CHARACTERS) {
            write!(formatter, "{}", character.escape_debug())?;
        }
        formatter.write_char('"')?;
        match characters.next() {
            Some((at, _)) => write!(formatter, "... ({} bytes more)", text.len() - at),
            None => Ok(()),
        }
    }
}

impl<T: AsRef<str>> fmt::Debug for ClientText<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::ClientText;

    #[test]
    fn text_stays_in_its_line_and_short() {
        assert_eq!(ClientText("sensor-1").to_string(), "\"sensor-1\"");
        assert_eq!(ClientText("a\n\u{1b}[31m\"").to_string(), r#""a\n\u{1b}[31m\"""#);
        let long = "é".repeat(1000);
        let shown = ClientText(&long).to_string();
        assert!(shown.ends_with("\"... (1744 bytes more)"), "{shown}");
        assert_eq!(shown.matches('é').count(), 128);
    }
}
