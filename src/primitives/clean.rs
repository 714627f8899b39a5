//! Text of others made safe to show: the one sanitising type.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Text that cannot drive a terminal: control, C1, bidirectional and zero-width characters are
/// escaped, and the length is bounded. Everything a peer, a file or a user supplies passes here
/// before it reaches a screen or a log.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct CleanText(String);

impl CleanText {
    /// Longest text kept, in characters; the rest is replaced by `…`.
    pub const MAX_CHARS: usize = 4096;

    /// Cleans `text`.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self::limited(text, Self::MAX_CHARS)
    }

    /// Cleans `text` and keeps at most `max_chars` of its characters.
    #[must_use]
    pub fn limited(text: &str, max_chars: usize) -> Self {
        let mut clean = String::with_capacity(text.len().min(4 * max_chars));
        let mut characters = text.chars();
        for character in characters.by_ref().take(max_chars) {
            if is_dangerous(character) {
                clean.extend(character.escape_unicode());
            } else {
                clean.push(character);
            }
        }
        if characters.next().is_some() {
            clean.push('…');
        }
        Self(clean)
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Control characters (C0, DEL, C1), line and paragraph separators, zero-width and bidirectional
/// formatting characters, the byte order mark, interlinear and tag characters.
fn is_dangerous(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{00ad}' | '\u{061c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

impl From<String> for CleanText {
    fn from(text: String) -> Self {
        Self::new(&text)
    }
}

impl From<&str> for CleanText {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

impl From<CleanText> for String {
    fn from(text: CleanText) -> Self {
        text.0
    }
}

impl fmt::Display for CleanText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}
