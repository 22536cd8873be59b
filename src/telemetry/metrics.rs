//! Metrics for Prometheus. Label values are a fixed set: none is taken from a request.

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge};
use metrics_exporter_prometheus::PrometheusRecorder;
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use metrics_process::Collector;
use strum::{IntoStaticStr, VariantArray};

use crate::domain::error::DetailError;

/// Upper bounds of the histograms' buckets, in seconds. The last exceeds the request timeout.
const BUCKETS: [f64; 14] =
    [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0];

const COUNTERS: [(&str, &str); 6] = [
    ("cmdb_replica_failures_total", "Requests that the primary answered after the replica failed"),
    ("cmdb_database_timeouts_total", "Requests that timed out waiting for a database connection"),
    ("cmdb_requests_shed_total", "Requests refused because the server was overloaded"),
    ("cmdb_connections_refused_total", "Connections closed because their peer has too many"),
    ("cmdb_requests_limited_total", "Requests refused by the rate limit of their caller"),
    ("cmdb_trace_export_failures_total", "Failed requests to the collector of traces"),
];

const GAUGES: [(&str, &str); 12] = [
    (
        "cmdb_database_commits",
        "1 if PostgreSQL acknowledged the last commit of the server's own in time, else 0",
    ),
    ("cmdb_database_connections", "Database connections by state: in_use or idle"),
    ("cmdb_database_connections_max", "Maximum number of database connections"),
    (
        "cmdb_database_durable",
        "1 if PostgreSQL flushes every commit to disk, 0 if a crash can lose acknowledged ones",
    ),
    ("cmdb_database_waiting", "Requests waiting for a database connection"),
    ("cmdb_database_waiting_commits", "Commits that wait for a synchronous standby"),
    ("cmdb_replica_lag_seconds", "How far the replica that answers reads is behind"),
    ("cmdb_replica_used", "1 if the replica answers reads, 0 if the primary does"),
    ("cmdb_client_connections", "Client connections"),
    ("cmdb_tls_certificate_expiry_seconds", "Unix time at which the TLS certificate expires"),
    ("cmdb_ready", "1 if /readyz responds with 200, else 0"),
    ("cmdb_build_info", "Always 1, with the version as a label"),
];

const DURATIONS: [(&str, &str); 3] = [
    ("cmdb_database_commit_seconds", "Duration of the small commits of the server's own"),
    ("cmdb_request_duration_seconds", "Time from the head of a request to its response"),
    ("cmdb_statement_duration_seconds", "Duration of the SQL statements of requests"),
];

/// What is wrong with a request that is not valid HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum Malformed {
    /// The method, or the bytes are not HTTP at all.
    Method,
    /// The request target.
    Uri,
    /// A version other than HTTP/1.0 and HTTP/1.1.
    Version,
    /// The form of a header.
    Header,
    /// The size of the head or the number of its headers.
    HeadTooLarge,
    /// `Host` is missing or repeated.
    Host,
    /// The length of the body is invalid or ambiguous.
    Framing,
    /// Anything else.
    Other,
}

impl Malformed {
    /// Its name in metrics and the log.
    pub fn name(self) -> &'static str {
        self.into()
    }
}

/// The metrics recorded so far.
pub struct Metrics {
    handle: PrometheusHandle,
    process: Collector,
}

impl Metrics {
    /// Installs the recorder of the process.
    pub fn install() -> Result<Self, BuildError> {
        let (recorder, metrics) = Self::new()?;
        metrics::set_global_recorder(recorder)?;
        metrics.describe();
        Ok(metrics)
    }

    /// A recorder that is not installed, and its metrics.
    pub fn new() -> Result<(PrometheusRecorder, Self), BuildError> {
        let durations = Matcher::Suffix("_seconds".to_owned());
        let recorder =
            PrometheusBuilder::new().set_buckets_for_metric(durations, &BUCKETS)?.build_recorder();
        let handle = recorder.handle();
        Ok((recorder, Self { handle, process: Collector::default() }))
    }

    /// Describes each metric, and sets counters to 0: Prometheus' `increase()` ignores first
    /// values.
    pub fn describe(&self) {
        describe_counter!(
            "cmdb_requests_total",
            "Requests by route, HTTP status and response code"
        );
        describe_counter!("cmdb_details_total", "Details of batches by result");
        describe_counter!("cmdb_malformed_requests_total", "Requests that are not valid HTTP");
        for (name, description) in COUNTERS {
            describe_counter!(name, description);
            counter!(name).increment(0);
        }
        for (name, description) in GAUGES {
            describe_gauge!(name, description);
        }
        for (name, description) in DURATIONS {
            describe_histogram!(name, Unit::Seconds, description);
        }
        self.process.describe();
        for verdict in DetailError::ALL.iter().map(|error| error.name()).chain(["created"]) {
            counter!("cmdb_details_total", "verdict" => verdict).increment(0);
        }
        for kind in Malformed::VARIANTS {
            counter!("cmdb_malformed_requests_total", "kind" => kind.name()).increment(0);
        }
        gauge!("cmdb_client_connections").increment(0);
        gauge!("cmdb_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1);
    }

    /// All metrics in the text format of Prometheus.
    pub fn render(&self) -> String {
        self.process.collect();
        self.handle.render()
    }

    /// Adds recorded durations to the histograms, which frees their memory.
    pub fn run_upkeep(&self) {
        self.handle.run_upkeep();
    }
}
