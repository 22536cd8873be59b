//! Exports traces over OTLP, if the `OTEL_…` variables ask for it.
//!
//! A request has two spans. The span named `request` is for the log. The other one is exported and
//! has the attributes of OpenTelemetry's conventions.

use std::time::Duration;

use axum::http::{HeaderMap, Method, StatusCode};
use opentelemetry::trace::{TraceContextExt, TracerProvider};
use opentelemetry::{Key, global};
use opentelemetry_http::HeaderExtractor;
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::{Metadata, Span, Subscriber, field, info_span};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{Directive, LevelFilter, filter_fn};
use tracing_subscriber::registry::LookupSpan;

use super::collector::CollectorClient;

const NAME: &str = env!("CARGO_PKG_NAME");

/// The target of spans that are exported and not logged.
const TARGET: &str = "trace";

/// How long the export of the last spans may take when the program ends.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(1);

/// The export of traces. By default nothing is exported.
#[derive(Default)]
pub struct Traces(Option<SdkTracerProvider>);

/// Why traces cannot be exported.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub enum Error {
    /// The HTTP client cannot be created.
    Client(#[from] reqwest::Error),
    /// A variable has an invalid value.
    Exporter(#[from] ExporterBuildError),
}

impl Traces {
    /// Exports to the collector that the environment names.
    pub fn exported() -> Result<Self, Error> {
        global::set_text_map_propagator(TraceContextPropagator::new());
        // A service name from the environment takes precedence.
        let mut resource = Resource::builder().build();
        let name = resource.get(&Key::from("service.name"));
        if name.is_none_or(|name| name.as_str().starts_with("unknown_service")) {
            resource = Resource::builder().with_service_name(NAME).build();
        }
        let client = CollectorClient::new()?;
        let exporter = SpanExporter::builder().with_http().with_http_client(client).build()?;
        let provider = SdkTracerProvider::builder().with_resource(resource);
        Ok(Self(Some(provider.with_batch_exporter(exporter).build())))
    }

    /// The layer that exports spans.
    pub(super) fn layer<S>(&self) -> Option<impl Layer<S> + use<S>>
    where
        S: Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
    {
        let layer = tracing_opentelemetry::layer()
            .with_tracer(self.0.as_ref()?.tracer(NAME))
            .with_location(false)
            .with_threads(false)
            .with_tracked_inactivity(false);
        Some(layer.with_filter(filter_fn(is_exported).with_max_level_hint(LevelFilter::INFO)))
    }

    /// Exports the remaining spans.
    pub fn shutdown(self) {
        if let Some(provider) = self.0 {
            let _ = provider.shutdown_with_timeout(SHUTDOWN_TIMEOUT);
        }
    }
}

fn is_exported(meta: &Metadata<'_>) -> bool {
    let is_ours = meta.target() == TARGET || meta.target().starts_with("cmdb_associations");
    meta.is_span() && is_ours && meta.name() != "request"
}

/// Keeps the spans that are only for export out of the log.
pub(super) fn exclude_from_log() -> Directive {
    format!("{TARGET}=off").parse().unwrap_or_else(|_| LevelFilter::OFF.into())
}

/// The exported span of a request. It continues the trace of the caller, if there is one.
pub fn request(method: &Method, route: &str, headers: &HeaderMap) -> Span {
    // OpenTelemetry's conventions name unknown methods `_OTHER`.
    let known = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"];
    let method = if known.contains(&method.as_str()) { method.as_str() } else { "_OTHER" };
    let span = info_span!(
        target: TARGET,
        "HTTP request",
        otel.name = format!("{method} {route}"),
        otel.kind = "server",
        otel.status_code = field::Empty,
        http.request.method = method,
        http.route = route,
        http.response.status_code = field::Empty,
        cmdb.code = field::Empty,
    );
    if !span.is_disabled() {
        let headers = HeaderExtractor(headers);
        let caller = global::get_text_map_propagator(|propagator| propagator.extract(&headers));
        let _ = span.set_parent(caller);
    }
    span
}

/// The trace id of a span, for the log.
pub fn id(span: &Span) -> Option<String> {
    let context = span.context().span().span_context().clone();
    context.is_valid().then(|| context.trace_id().to_string())
}

/// Records the response in the span of its request.
pub fn answered(span: &Span, status: StatusCode, code: u32) {
    span.record("http.response.status_code", status.as_u16());
    span.record("cmdb.code", code);
    if status.is_server_error() {
        span.record("otel.status_code", "ERROR");
    }
}
