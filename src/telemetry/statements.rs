//! Statements of requests on the clock. Their spans are named `db.…`.

use std::time::{Duration, Instant};

use metrics::histogram;
use tracing::span::{Attributes, Id};
use tracing::{Subscriber, warn};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, filter_fn};
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

/// What begins the names of their spans.
const PREFIX: &str = "db.";

/// How long a statement takes that is named in the log.
const SLOW: Duration = Duration::from_millis(500);

/// Times each statement, and names the slow ones.
pub(super) struct Statements;

struct Began(Instant);

impl Statements {
    /// Sees nothing but statements.
    pub(super) fn layer<S>() -> impl Layer<S>
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        let is_statement = filter_fn(|meta| meta.is_span() && meta.name().starts_with(PREFIX));
        Self.with_filter(is_statement.with_max_level_hint(LevelFilter::INFO))
    }
}

impl<S> Layer<S> for Statements
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn on_new_span(&self, _: &Attributes<'_>, id: &Id, ctx: Context<'_, S>) {
        if let Some(span) = ctx.span(id) {
            span.extensions_mut().insert(Began(Instant::now()));
        }
    }

    fn on_close(&self, id: Id, ctx: Context<'_, S>) {
        let Some(span) = ctx.span(&id) else { return };
        let Some(Began(began)) = span.extensions_mut().remove() else { return };
        let (statement, took) = (span.name().trim_start_matches(PREFIX), began.elapsed());
        histogram!("cmdb_statement_duration_seconds", "statement" => statement).record(took);
        if took >= SLOW {
            let duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
            warn!(statement, duration_ms, "slow statement");
        }
    }
}
