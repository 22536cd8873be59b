//! Times the SQL statements of requests, which run in spans named `db.…`.

use std::time::{Duration, Instant};

use metrics::histogram;
use tracing::span::{Attributes, Id};
use tracing::{Subscriber, warn};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, filter_fn};
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

/// The prefix of the names of statements' spans.
const PREFIX: &str = "db.";

/// A statement that takes this long or longer is logged.
const SLOW_STATEMENT: Duration = Duration::from_millis(500);

/// Records the duration of each statement, and logs slow ones.
pub(super) struct StatementTimer;

struct StartedAt(Instant);

impl StatementTimer {
    /// The layer, limited to the spans of statements.
    pub(super) fn layer<S: Subscriber + for<'a> LookupSpan<'a>>() -> impl Layer<S> {
        let is_statement = filter_fn(|meta| meta.is_span() && meta.name().starts_with(PREFIX));
        Self.with_filter(is_statement.with_max_level_hint(LevelFilter::INFO))
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for StatementTimer {
    fn on_new_span(&self, _: &Attributes<'_>, id: &Id, ctx: Context<'_, S>) {
        if let Some(span) = ctx.span(id) {
            span.extensions_mut().insert(StartedAt(Instant::now()));
        }
    }

    fn on_close(&self, id: Id, ctx: Context<'_, S>) {
        let Some(span) = ctx.span(&id) else { return };
        let Some(StartedAt(start)) = span.extensions_mut().remove() else { return };
        let (statement, duration) = (span.name().trim_start_matches(PREFIX), start.elapsed());
        histogram!("cmdb_statement_duration_seconds", "statement" => statement).record(duration);
        if duration >= SLOW_STATEMENT {
            let duration_ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
            warn!(statement, duration_ms, "slow statement");
        }
    }
}
