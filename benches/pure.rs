//! The cost of a batch of 200 without the database: decoding the request, planning the links,
//! encoding the answer.

#![expect(clippy::unwrap_used, reason = "a program for developers")]

use std::collections::BTreeMap;
use std::hint::black_box;

use cmdb_associations::domain::association::Mapping;
use cmdb_associations::domain::batch::{Detail, Fact, plan};
use cmdb_associations::domain::error::DetailError;
use cmdb_associations::domain::language::Language;
use cmdb_associations::http::{Api, Envelope, Fields, KEYS, given};
use cmdb_associations::service::instance_association::Outcome;
use criterion::{Criterion, criterion_group, criterion_main};

fn decode(c: &mut Criterion) {
    let details: Vec<_> = (0..200)
        .map(|n| format!(r#"{{"bk_inst_id":{},"bk_asst_inst_id":{}}}"#, 100_000 + n, 200_000 + n))
        .collect();
    let body = format!(
        r#"{{"bk_app_code":"demo","bk_app_secret":"xxx","bk_username":"admin","bk_obj_id":"bk_switch",
           "bk_asst_obj_id":"host","bk_obj_asst_id":"bk_switch_connect_host","details":[{}]}}"#,
        details.join(",")
    );
    c.bench_function("decode 200 details", |b| {
        b.iter(|| {
            let fields = Fields::read(black_box(&body), &KEYS).unwrap();
            assert_eq!(given(&fields).unwrap().details.unwrap().len(), 200);
        });
    });
}

fn plan_batch(c: &mut Criterion) {
    let details: Vec<_> =
        (0..200).map(|n| Detail { source: Some(n % 7), target: Some(n) }).collect();
    let taken = Fact { source_of_target: Some(8), ..Fact::default() };
    let facts: Vec<_> =
        (0..200).map(|n| if n % 2 == 0 { taken } else { Fact::default() }).collect();
    c.bench_function("plan 200 fresh", |b| {
        b.iter(|| plan(Mapping::OneToMany, black_box(&details), &[]));
    });
    c.bench_function("plan 200, half refused", |b| {
        b.iter(|| plan(Mapping::OneToMany, black_box(&details), &facts));
    });
}

fn encode(c: &mut Criterion) {
    let outcome = |is_created: fn(usize) -> bool| Outcome {
        created: (0..200).filter(|n| is_created(*n)).zip(1_000_000..).collect(),
        refused: (0..200)
            .filter(|n| !is_created(*n))
            .map(|n| (n, DetailError::AlreadyExists))
            .collect::<BTreeMap<_, _>>(),
        source_model: "bk_switch".to_owned(),
        target_model: "host".to_owned(),
        original: None,
    };
    for (name, outcome) in
        [("encode 200 created", outcome(|_| true)), ("encode 200 refused", outcome(|_| false))]
    {
        c.bench_function(name, |b| {
            b.iter(|| {
                let id = "06111a8efac445bcbb0269614e86e14c";
                let envelope =
                    Envelope::new(Api::Gateway, Ok(black_box(&outcome)), Language::English, id);
                serde_json::to_vec(&envelope).unwrap()
            });
        });
    }
}

criterion_group!(benches, decode, plan_batch, encode);
criterion_main!(benches);
