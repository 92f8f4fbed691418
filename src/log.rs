//! The log: lines to standard error or to systemd's journal, and the newest of them to the node's own ring.

use std::{fmt::Write, sync::Arc};

use kit::log::LogRing;
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{EnvFilter, Layer, filter::filter_fn, layer::Context, prelude::*};

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
    let out = match (config.to, config.format) {
        (LogTarget::Journal, _) => tracing_journald::layer()
            .map_err(LogError::Journal)?
            .with_field_prefix(Some("HYPHA".into()))
            .boxed(),
        (LogTarget::Stdout, LogFormat::Text) => lines.with_ansi(false).boxed(),
        (LogTarget::Stdout, LogFormat::Json) => lines.json().boxed(),
        (LogTarget::Stderr, LogFormat::Text) => lines.with_ansi(false).with_writer(std::io::stderr).boxed(),
        (LogTarget::Stderr, LogFormat::Json) => lines.json().with_writer(std::io::stderr).boxed(),
    };
    // The WebSocket library traces whole frames, with credentials and numbers in them; no level lets that in.
    let discreet = filter_fn(|meta| !meta.target().starts_with("tungstenite"));
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
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}
