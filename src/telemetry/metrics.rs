//! What Prometheus reads. Labels have few values, all of them ours: none comes from a request.

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge};
use metrics_exporter_prometheus::PrometheusRecorder;
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use metrics_process::Collector;

use crate::domain::error::DetailError;

/// Upper ends of the histograms' buckets, in seconds: from a hit to the longest deadline.
const BUCKETS: [f64; 14] =
    [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0];

/// What was counted so far.
pub struct Metrics {
    handle: PrometheusHandle,
    process: Collector,
}

impl Metrics {
    /// Counts from now on, for the whole process.
    pub fn install() -> Result<Self, BuildError> {
        let (recorder, metrics) = Self::new()?;
        metrics::set_global_recorder(recorder)?;
        metrics.describe();
        Ok(metrics)
    }

    /// What counts, and what was counted by it.
    pub fn new() -> Result<(PrometheusRecorder, Self), BuildError> {
        let durations = Matcher::Suffix("_seconds".to_owned());
        let recorder =
            PrometheusBuilder::new().set_buckets_for_metric(durations, &BUCKETS)?.build_recorder();
        let handle = recorder.handle();
        Ok((recorder, Self { handle, process: Collector::default() }))
    }

    /// Says what each of them is, and begins at zero what is counted, so that its first increase is seen.
    pub fn describe(&self) {
        describe_counter!(
            "cmdb_requests_total",
            "Requests by route, HTTP status and the code of the answer"
        );
        describe_histogram!(
            "cmdb_request_duration_seconds",
            Unit::Seconds,
            "From a request's head to its answer"
        );
        describe_counter!("cmdb_details_total", "Details by what became of them");
        describe_histogram!(
            "cmdb_statement_duration_seconds",
            Unit::Seconds,
            "Statements of requests"
        );
        describe_gauge!("cmdb_database_connections", "Connections to the database, in use or idle");
        describe_gauge!("cmdb_database_connections_max", "The most connections to the database");
        describe_gauge!(
            "cmdb_database_waiting",
            "Requests that wait for a connection to the database"
        );
        describe_counter!("cmdb_database_timeouts_total", "Requests that waited for one in vain");
        describe_counter!(
            "cmdb_requests_shed_total",
            "Requests refused because there were too many"
        );
        describe_counter!(
            "cmdb_requests_limited_total",
            "Requests refused by an application's rate limit"
        );
        describe_gauge!("cmdb_client_connections", "Connections of clients");
        describe_gauge!(
            "cmdb_tls_certificate_expiry_seconds",
            Unit::Seconds,
            "When the certificate expires, since 1970"
        );
        describe_gauge!("cmdb_ready", "1 while /readyz is 200, else 0");
        describe_gauge!("cmdb_build_info", "1, and the version");
        self.process.describe();
        for verdict in DetailError::ALL.map(DetailError::name).into_iter().chain(["created"]) {
            counter!("cmdb_details_total", "verdict" => verdict).increment(0);
        }
        for name in [
            "cmdb_database_timeouts_total",
            "cmdb_requests_shed_total",
            "cmdb_requests_limited_total",
        ] {
            counter!(name).increment(0);
        }
        gauge!("cmdb_client_connections").increment(0);
        gauge!("cmdb_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1);
    }

    /// All of them, in Prometheus' text format.
    pub fn render(&self) -> String {
        self.process.collect();
        self.handle.render()
    }

    /// Sorts what was recorded into its buckets, which takes memory until then.
    pub fn sort(&self) {
        self.handle.run_upkeep();
    }
}
