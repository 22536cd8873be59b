//! The cost of a batch of 200 without the database: decoding the request, planning the links,
//! encoding the answer.

#![expect(clippy::unwrap_used, reason = "a program for developers")]

use std::hint::black_box;

use cmdb_associations::domain::association::Mapping;
use cmdb_associations::domain::batch::{CreateLinks, Detail, LinkedEnd, StoredState, plan};
use cmdb_associations::domain::error::DetailError;
use cmdb_associations::domain::language::Language;
use cmdb_associations::http::batch::{CreateManyBody, CreateManyData};
use cmdb_associations::http::json::{JsonObject, field_names};
use cmdb_associations::http::{Api, Envelope};
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
            let known = field_names::<CreateManyBody>();
            JsonObject::parse(black_box(&body), known).unwrap().decode::<CreateManyBody>().unwrap()
        });
    });
}

fn plan_batch(c: &mut Criterion) {
    let details: Vec<_> =
        (0..200).map(|n| Detail { source: Some(n % 7), target: Some(n) }).collect();
    let taken = StoredState {
        source_of_target: Some(LinkedEnd { instance_id: 8, link_id: None }),
        ..StoredState::default()
    };
    let free = StoredState::default();
    let stored: Vec<_> = (0..200).map(|n| if n % 2 == 0 { taken } else { free }).collect();
    c.bench_function("plan 200 fresh", |b| {
        b.iter(|| plan(Mapping::OneToMany, black_box(&details), &[]));
    });
    c.bench_function("plan 200, half refused", |b| {
        b.iter(|| plan(Mapping::OneToMany, black_box(&details), &stored));
    });
}

fn encode(c: &mut Criterion) {
    let links = CreateLinks {
        model_association: "bk_switch_connect_host".to_owned(),
        source_model: "bk_switch".to_owned(),
        target_model: "host".to_owned(),
        ..CreateLinks::default()
    };
    let created: Vec<_> = (1_000_000..1_000_200).map(Ok).collect();
    let refused = vec![Err(DetailError::AlreadyExists.into()); 200];
    for (name, outcomes) in [("encode 200 created", created), ("encode 200 refused", refused)] {
        c.bench_function(name, |b| {
            b.iter(|| {
                let id = "06111a8efac445bcbb0269614e86e14c";
                let language = Language::English;
                let data = CreateManyData::new(black_box(&outcomes), &links, language);
                let envelope = Envelope::new(Api::Gateway, Some(data), None, language, id);
                serde_json::to_vec(&envelope).unwrap()
            });
        });
    }
}

criterion_group!(benches, decode, plan_batch, encode);
criterion_main!(benches);
