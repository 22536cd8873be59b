//! Logs on stderr, metrics and traces.

mod collector;
mod escape;
mod statements;

pub mod metrics;
pub mod traces;

use std::io::{self, IsTerminal};

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt};

use self::escape::JsonEscaper;
use self::statements::StatementTimer;
use self::traces::Traces;
use crate::config::{LogFormat, LogSettings};
pub use crate::domain::error::error_chain;

/// Installs the log, the timing of statements, and the export of traces if it is enabled.
pub fn init(settings: &LogSettings, traces: &Traces) {
    let log = fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false);
    let log = match settings.log_format {
        LogFormat::Human => log.boxed(),
        LogFormat::Json => {
            let json = log.json().flatten_event(true);
            let json = json.with_current_span(true).with_span_list(false);
            json.with_writer(|| JsonEscaper(io::stderr())).boxed()
        }
    };
    let filter = settings.log.clone().add_directive(traces::exclude_from_log());
    tracing_subscriber::registry()
        .with(log.with_filter(filter))
        .with(StatementTimer::layer())
        .with(traces.layer())
        .init();
}
