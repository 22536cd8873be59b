//! Replays the corpus of the fuzz targets.

use std::panic::catch_unwind;

use crate::tidy::files;

#[expect(unreachable_pub, reason = "the fuzz targets call it from outside")]
#[path = "../../fuzz/harness.rs"]
mod harness;

/// Runs a target on every file of its corpus.
fn replay(target: &str, run: fn(&[u8])) {
    let fails = |path: &std::path::PathBuf| {
        let input = std::fs::read(path).unwrap();
        catch_unwind(|| run(&input)).is_err()
    };
    let failing: Vec<_> =
        files(&format!("fuzz/corpus/{target}"), "").into_iter().filter(fails).collect();
    assert!(failing.is_empty(), "{target} fails on {failing:?}");
}

#[test]
fn every_request_of_the_corpus_is_answered_in_the_envelope() {
    replay("request", harness::request);
}

#[test]
fn every_body_of_the_corpus_is_refused_as_the_oracle_predicts() {
    replay("body", harness::body);
}

#[test]
fn every_condition_of_the_corpus_is_parsed_or_refused() {
    replay("condition", harness::condition);
}

#[test]
fn every_export_file_of_the_corpus_is_read_or_refused() {
    replay("import", harness::import);
}
