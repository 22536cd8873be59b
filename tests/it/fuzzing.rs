//! The corpus of the fuzz targets, once more.

use std::panic::catch_unwind;

use crate::tidy::files;

#[expect(unreachable_pub, reason = "the fuzz targets call it from outside")]
#[path = "../../fuzz/harness.rs"]
mod harness;

fn replay(target: &str, holds: fn(&[u8])) {
    let fails = |path: &std::path::PathBuf| {
        let input = std::fs::read(path).unwrap();
        catch_unwind(|| holds(&input)).is_err()
    };
    let failing: Vec<_> =
        files(&format!("fuzz/corpus/{target}"), "").into_iter().filter(fails).collect();
    assert!(failing.is_empty(), "{target} fails on {failing:?}");
}

#[test]
fn every_request_is_answered_as_requests_are() {
    replay("request", harness::request);
}

#[test]
fn every_body_means_what_the_oracle_says() {
    replay("body", harness::body);
}

#[test]
fn every_file_of_an_export_is_read_or_refused() {
    replay("import", harness::import);
}
