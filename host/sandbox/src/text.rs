//! Texts of guests and tools, made fit for one line of a log or of an answer.
//!
//! Called when something is refused or fails, and per log line of a policy. Invariant:
//! what comes out has no control character, so it can neither start a line of its own
//! nor move a terminal's cursor.

use std::borrow::Cow;

/// Bytes of a guest's text that are kept.
const TEXT_BYTES_MAX: usize = 1_024;

/// Joins a tool's message of several lines into one.
pub(crate) fn one_line(text: &str) -> String {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.map(printable).collect::<Vec<_>>().join("; ")
}

/// The text with its control characters escaped.
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    if !text.chars().any(char::is_control) {
        return Cow::Borrowed(text);
    }
    let escape =
        |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    Cow::Owned(text.chars().map(escape).collect())
}

/// What a guest says for itself: printable, and short enough for a log line.
pub(crate) fn quoted(text: &str) -> String {
    let end = text.floor_char_boundary(TEXT_BYTES_MAX);
    let kept = text.get(..end).unwrap_or_default();
    let cut = if end < text.len() { "…" } else { "" };
    format!("{}{cut}", printable(kept))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_stays_on_its_line() {
        assert_eq!(printable("plain é"), "plain é");
        assert_eq!(printable("a\r\nb\u{1b}[2Jc"), "a\\r\\nb\\u{1b}[2Jc");
        assert_eq!(one_line(" a\n\n  b\u{7}\n"), "a; b\\u{7}");
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert_eq!(quoted("é\n"), "é\\n");
        let cut = quoted(&format!("a{}", "é".repeat(1000)));
        assert!(cut.len() <= TEXT_BYTES_MAX + "…".len() && cut.ends_with("é…"));
    }
}
