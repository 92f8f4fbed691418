//! The log: lines to standard error or to systemd's journal, and the newest of them to the node's own ring.

use std::{
    fmt::{Debug, Write},
    sync::Arc,
};

use kit::log::LogRing;
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    EnvFilter, Layer, field::MakeExt, filter::filter_fn, fmt::format::debug_fn, layer::Context, prelude::*,
};

use crate::config::{LogConfig, LogFormat, LogTarget};

#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("log.level {0:?}: {1}")]
    Level(String, tracing_subscriber::filter::ParseError),
    #[error("log.to = \"journal\": systemd's journal does not answer: {0}")]
    Journal(std::io::Error),
}

/// Starts the process's log. The ring sees what the log sees.
pub fn start(config: &LogConfig) -> Result<Arc<LogRing>, LogError> {
    let filter = EnvFilter::try_new(&config.level).map_err(|e| LogError::Level(config.level.clone(), e))?;
    let ring = Arc::<LogRing>::default();
    let lines = tracing_subscriber::fmt::layer();
    // A stranger's text in a field can be neither a line of its own nor an order to the terminal.
    let plain = || {
        debug_fn(|writer, field, value| match field.name() {
            "message" => write!(writer, "{}", clean(value)),
            name => write!(writer, "{name}={}", clean(value)),
        })
        .delimited(" ")
    };
    let out = match (config.to, config.format) {
        (LogTarget::Journal, _) => tracing_journald::layer()
            .map_err(LogError::Journal)?
            .with_field_prefix(Some("HYPHA".into()))
            .boxed(),
        (LogTarget::Stdout, LogFormat::Text) => lines.with_ansi(false).fmt_fields(plain()).boxed(),
        (LogTarget::Stdout, LogFormat::Json) => lines.json().boxed(),
        (LogTarget::Stderr, LogFormat::Text) => {
            lines.with_ansi(false).fmt_fields(plain()).with_writer(std::io::stderr).boxed()
        }
        (LogTarget::Stderr, LogFormat::Json) => lines.json().with_writer(std::io::stderr).boxed(),
    };
    // The WebSocket library traces whole frames, with credentials and numbers in them; no level lets that in. The SSH library
    // repeats texts of peers that have not logged in, and the HTTP library has a line for each request of theirs that it cannot read.
    let discreet = filter_fn(|meta| {
        let of = |library| meta.target().starts_with(library);
        !of("tungstenite") && !of("russh") && !of("actix_http")
    });
    tracing_subscriber::registry().with(filter).with(discreet).with(out).with(RingLayer(ring.clone())).init();
    Ok(ring)
}

struct RingLayer(Arc<LogRing>);

impl<S: Subscriber> Layer<S> for RingLayer {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut text = Text::default();
        event.record(&mut text);
        let meta = event.metadata();
        self.0.record(chrono::Utc::now(), meta.level().as_str(), meta.target(), text.message + &text.fields);
    }
}

/// Longest value of a field, characters.
const LONGEST: usize = 1000;

/// A value with control characters, and those that turn the direction of text, shown as escapes.
fn clean(value: &dyn Debug) -> String {
    let text = format!("{value:?}");
    let mut out = String::with_capacity(text.len());
    for c in text.chars().take(LONGEST) {
        let turns = matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}');
        match c.is_control() || turns {
            true => out.extend(c.escape_default()),
            false => out.push(c),
        }
    }
    if text.chars().nth(LONGEST).is_some() {
        out.push('…');
    }
    out
}

/// The message, and ` name=value` for each other field.
#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        // Writing to a String cannot fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{}", clean(value)),
            name => write!(self.fields, " {name}={}", clean(value)),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_one_line_without_orders_to_the_terminal() {
        let said = format_args!("x\nFAKE INFO logged in user=admin\u{1b}[31m\r\u{202e}y").to_string();
        let shown = clean(&format_args!("{said}"));
        assert_eq!(shown, "x\\nFAKE INFO logged in user=admin\\u{1b}[31m\\r\\u{202e}y");
        assert_eq!(clean(&format_args!("{}", "a".repeat(5000))).chars().count(), LONGEST + 1);
        assert_eq!(clean(&format_args!("Пётр")), "Пётр");
    }
}
