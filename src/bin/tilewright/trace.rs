//! What the library tells of itself, on the standard error: warnings always, the rest where `TILEWRIGHT_TRACE` asks.

use std::fmt::Write as _;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use crate::failure::{Failure, Result, say};

/// The words of `TILEWRIGHT_TRACE`, and the targets of the library's events that they stand for.
const WORDS: &[(&str, &str)] =
    &[("plan", "tilewright::plan"), ("wgsl", "tilewright::wgsl"), ("time", "tilewright::time")];

/// Begin to listen.
///
/// # Errors
/// [`Failure::Usage`] for words that do not exist.
pub fn listen() -> Result<()> {
    let text = std::env::var("TILEWRIGHT_TRACE").unwrap_or_default();
    let targets = targets(&text).map_err(Failure::Usage)?;
    // Fails where somebody listens already, which nobody does.
    let _ = tracing::subscriber::set_global_default(Listener { targets });
    Ok(())
}

fn targets(text: &str) -> std::result::Result<Vec<&'static str>, String> {
    let words = text.split(',').map(str::trim).filter(|word| !word.is_empty());
    let target = |word: &str| match WORDS.iter().find(|(known, _)| *known == word) {
        Some((_, target)) => Ok(*target),
        None => {
            let known: Vec<&str> = WORDS.iter().map(|(known, _)| *known).collect();
            Err(format!("TILEWRIGHT_TRACE: unknown word {word:?}; there are: {}", known.join(", ")))
        }
    };
    words.map(target).collect()
}

struct Listener {
    targets: Vec<&'static str>,
}

impl Subscriber for Listener {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let target = metadata.target();
        self.targets.contains(&target)
            || (*metadata.level() <= Level::WARN && target.starts_with("tilewright"))
    }

    fn event(&self, event: &Event<'_>) {
        let mut text = Text::default();
        event.record(&mut text);
        if *event.metadata().level() <= Level::WARN {
            say(&format!("warning: {}{}", text.message, text.fields));
        } else {
            say(&format!("{}{}", text.message, text.fields));
        }
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// An event's message, and its other fields as ` name=value`.
#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_checked() {
        assert_eq!(targets(""), Ok(vec![]));
        assert_eq!(targets("time, plan"), Ok(vec!["tilewright::time", "tilewright::plan"]));
        assert!(targets("time,clock").unwrap_err().contains("\"clock\"; there are: plan, wgsl, time"));
    }
}
