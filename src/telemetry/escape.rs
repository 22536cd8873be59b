//! Escapes characters that could change how a line of the JSON log is displayed.

use std::io::{self, Write};

/// Line separators that JSON allows unescaped, and the controls of bidirectional text. The human
/// log escapes them as Rust's debug format does.
fn is_hidden(character: char) -> bool {
    matches!(
        character,
        '\u{85}' | '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}'
    )
}

/// A writer of JSON that replaces these characters with `\uXXXX`. They can occur only in strings,
/// so the JSON keeps its meaning. Each call of `write` must consist of whole characters.
pub(super) struct JsonEscaper<W>(pub(super) W);

impl<W: Write> Write for JsonEscaper<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        if text.contains(is_hidden) {
            let escape = |c| {
                if is_hidden(c) { format!("\\u{:04x}", u32::from(c)) } else { c.to_string() }
            };
            self.0.write_all(text.chars().map(escape).collect::<String>().as_bytes())?;
        } else {
            self.0.write_all(bytes)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::layer::SubscriberExt;
    use tracing_subscriber::{Registry, fmt};

    use super::*;

    const HIDDEN: &str = "\u{85}\u{61c}\u{200e}\u{200f}\u{2028}\u{2029}\u{202a}\u{202b}\u{202c}\
                          \u{202d}\u{202e}\u{2066}\u{2067}\u{2068}\u{2069}";

    /// A log in memory.
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Log {
        /// Logs `user` with a subscriber that writes here.
        fn of(self, user: &str, subscriber: impl tracing::Subscriber + Send + Sync) -> String {
            tracing::subscriber::with_default(subscriber, || tracing::info!(user, "answered"));
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    #[test]
    fn both_formats_of_the_log_escape_line_separators_and_bidirectional_controls() {
        let user = format!("用户\\\"{HIDDEN}\n");
        let (log, json_log) = (Log::default(), Log::default());
        let writer = json_log.clone();
        let json = fmt::layer().json().flatten_event(true);
        let json = json.with_writer(move || JsonEscaper(writer.clone()));
        let line = json_log.of(&user, Registry::default().with(json));
        assert!(!line.chars().any(is_hidden), "{line}");
        let read: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(read["user"], user);
        assert!(line.contains("用户"), "{line}");

        let writer = log.clone();
        let human = fmt::layer().with_ansi(false).with_writer(move || writer.clone());
        let line = log.of(&user, Registry::default().with(human));
        assert!(!line.chars().any(is_hidden) && line.contains("用户"), "{line}");
        assert_eq!(line.lines().count(), 1);
    }
}
