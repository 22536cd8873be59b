//! What conditions in MongoDB's form mean, and which are refused.

use super::*;
use crate::domain::condition::{ModelAssociationField as F, Test};

fn parsed(json: &str) -> Condition<F> {
    parse("condition", json).unwrap_or_else(|error| panic!("{json}: {error}"))
}

fn refusal(json: &str) -> String {
    match parse::<F>("condition", json) {
        Err(RequestError::WithoutCode(why)) => why.into_owned(),
        Err(error @ RequestError::WrongType { .. }) => format!("1199000 {error}"),
        other => panic!("{json}: {other:?}"),
    }
}

fn is_id(id: i64) -> Condition<F> {
    Condition::Test(F::Id, Test::IntegerIn(vec![id]))
}

fn is_model(model: &str) -> Condition<F> {
    Condition::Test(F::SourceModel, Test::TextIn(vec![model.to_owned()]))
}

#[test]
fn all_fields_and_operators_of_an_object_must_be_true() {
    assert!(parsed("{}").is_always());
    let expected = Condition::All(vec![is_id(5), is_model("host")]);
    assert_eq!(parsed(r#"{"id": 5, "bk_obj_id": "host"}"#), expected);
    assert_eq!(parsed(r#"{"$and": [{"id": 5}, {"bk_obj_id": "host"}]}"#), expected);
    let range = |min, max| Condition::Test(F::Id, Test::IntegerRange { min, max });
    let expected = Condition::All(vec![range(6, i64::MAX), range(i64::MIN, 9)]);
    assert_eq!(parsed(r#"{"id": {"$gt": 5, "$lte": 9}}"#), expected);
}

#[test]
fn negations_match_missing_fields() {
    for json in [
        r#"{"x": {"$ne": 1}}"#,
        r#"{"x": {"$nin": [1, "a"]}}"#,
        r#"{"x": {"$exists": false}}"#,
        r#"{"x": null}"#,
        r#"{"x": {"$not": {"$gt": 1}}}"#,
        r#"{"x": {"$not": {"$regex": "a"}}}"#,
        r#"{"id": {"$exists": true}}"#,
        r#"{"ispre": {"$exists": "a"}}"#,
        r#"{"id": {"$ne": "5"}}"#,
        r#"{"$nor": [{"x": 1}, {"id": {"$exists": 0}}]}"#,
    ] {
        assert!(parsed(json).is_always(), "{json}");
    }
    for json in [
        r#"{"x": 1}"#,
        r#"{"x": {"$in": [1]}}"#,
        r#"{"x": {"$exists": 1}}"#,
        r#"{"x": {"$regex": ""}}"#,
        r#"{"id": {"$exists": null}}"#,
        r#"{"id": {"$regex": "5"}}"#,
        r#"{"id": {"$in": []}}"#,
        r#"{"bk_obj_id": ["host"]}"#,
        r#"{"bk_obj_id": {}}"#,
        r#"{"bk_obj_id.x": "host"}"#,
    ] {
        assert!(parsed(json).is_never(), "{json}");
    }
    assert_eq!(parsed(r#"{"id": {"$ne": 5}}"#), Condition::not(is_id(5)));
    let either = Condition::Any(vec![is_id(5), is_model("host")]);
    assert_eq!(parsed(r#"{"$or": [{"id": 5}, {"bk_obj_id": "host"}]}"#), either);
    let nor = parsed(r#"{"$nor": [{"id": 5}, {"bk_obj_id": "host"}]}"#);
    assert_eq!(nor, Condition::not(either));
}

#[test]
fn the_option_i_makes_a_pattern_case_insensitive() {
    let pattern = Pattern::parse("a", true).unwrap();
    let expected = Condition::Test(F::SourceModel, Test::TextMatches(pattern));
    for operators in [r#""$regex": "a", "$options": "i""#, r#""$options": "ii", "$regex": "(?i)a""#]
    {
        assert_eq!(parsed(&format!(r#"{{"bk_obj_id": {{{operators}}}}}"#)), expected);
    }
}

#[test]
fn a_top_level_key_can_be_ignored() {
    let json = r#"{"id": 5, "tenant": {"$where": 1}}"#;
    assert_eq!(parse_without::<F>("condition", json, &["tenant"]), Ok(is_id(5)));
    assert!(
        parse_without::<F>("condition", r#"{"$or": [{"tenant": 1}]}"#, &["tenant"])
            .unwrap()
            .is_never()
    );
}

#[test]
fn what_is_not_supported_is_refused_with_its_place_and_nothing_that_was_sent() {
    for (json, why) in [
        (r#"{"$where": "1"}"#, "condition: the operator $where is not supported"),
        (
            r#"{"$or": [{"id": 1}, {"$where": "1"}]}"#,
            "condition.$or[1]: the operator $where is not supported",
        ),
        (r#"{"id": {"$mod": [2, 0]}}"#, "condition.id: the operator $mod is not supported"),
        (
            r#"{"secret": {"$function": {}}}"#,
            "condition.<unknown>: the operator $function is not supported",
        ),
        (r#"{"id": {"$secret": 1}}"#, "condition.id: unknown operator"),
        (r#"{"$secret": 1}"#, "condition: unknown operator"),
        (r#"{"id": {"$gt": 1, "secret": 2}}"#, "condition.id: unknown operator"),
        (r#"{"$gt": 1}"#, "condition: $gt cannot stand here"),
        (r#"{"id": {"$or": []}}"#, "condition.id: $or cannot stand here"),
        (r#"{"id": {"$in": [[{"$regex": "a"}]]}}"#, "condition.id.$in: $regex cannot stand here"),
        (r#"{"id": {"a": {"$gt": 1}}}"#, "condition.id: $gt cannot stand here"),
        (r#"{"id": {"$in": 5}}"#, "condition.id.$in: expected an array, got an integer"),
        (r#"{"$and": {}}"#, "condition.$and: expected an array, got an object"),
        (r#"{"$and": []}"#, "condition.$and: expected an array that is not empty"),
        (r#"{"$and": [5]}"#, "condition.$and[0]: expected an object, got an integer"),
        (r#"{"id": {"$not": 5}}"#, "condition.id.$not: expected an object of operators"),
        (r#"{"id": {"$not": {}}}"#, "condition.id.$not: expected an object of operators"),
        (r#"{"id": {"$not": {"a": 1}}}"#, "condition.id.$not: unknown operator"),
        (
            r#"{"bk_obj_id": {"$options": "i"}}"#,
            "condition.bk_obj_id.$options: $options without $regex",
        ),
        (
            r#"{"bk_obj_id": {"$regex": 5}}"#,
            "condition.bk_obj_id.$regex: expected a string, got an integer",
        ),
        (
            r#"{"bk_obj_id": {"$regex": "(?=secret)"}}"#,
            "condition.bk_obj_id.$regex: the pattern is invalid: look-around, including look-ahead and look-behind, is not supported",
        ),
        (
            r#"{"bk_obj_id": {"$regex": "a", "$options": "s"}}"#,
            "condition.bk_obj_id.$options: the option s is not supported",
        ),
        (
            r#"{"bk_obj_id": {"$regex": "a", "$options": "q"}}"#,
            "condition.bk_obj_id.$options: unknown option",
        ),
        (r#""secret""#, "1199000 condition: expected an object, got a string"),
        ("null", "1199000 condition: expected an object, got null"),
        (r#"{"id": 1, "id": 2}"#, "1199000 condition.id: given twice"),
        (r#"{"id": {"$gt": 1, "$gt": 2}}"#, "1199000 condition.id.$gt: given twice"),
        (r#"{"secret": 1, "secret": 2}"#, "1199000 condition.<unknown>: given twice"),
    ] {
        assert_eq!(refusal(json), why, "{json}");
    }
}

#[test]
fn depth_tests_and_values_are_limited() {
    let nested =
        |levels: usize| format!("{}{{}}{}", r#"{"$and":["#.repeat(levels), "]}".repeat(levels));
    assert!(parsed(&nested(DEPTH_LIMIT - 1)).is_always());
    assert!(refusal(&nested(DEPTH_LIMIT)).ends_with("nested deeper than 10 levels"));
    assert!(refusal(&nested(50_000)).ends_with("nested deeper than 10 levels"));
    let nots = format!(r#"{{"id":{}1{}}}"#, r#"{"$not":"#.repeat(50_000), "}".repeat(50_000));
    assert!(refusal(&nots).ends_with("nested deeper than 10 levels"));
    let lists = format!(r#"{{"id":{}1{}}}"#, "[".repeat(50_000), "]".repeat(50_000));
    assert!(refusal(&lists).ends_with("nested deeper than 10 levels"));

    let tests = |count| format!(r#"{{"$or":[{}]}}"#, vec![r#"{"id":{"$gt":5}}"#; count].join(","));
    assert!(!parsed(&tests(250)).is_never());
    assert_eq!(refusal(&tests(251)), "condition.$or: more than 500 tests in the condition");
    assert!(refusal(&tests(50_000)).ends_with("more than 500 tests in the condition"));
    let members: Vec<_> = (0..50_000).map(|number| format!(r#""{number}":1"#)).collect();
    assert!(
        refusal(&format!("{{{}}}", members.join(",")))
            .ends_with("more than 500 tests in the condition")
    );

    let values = |count| format!(r#"{{"id":{{"$in":[{}]}}}}"#, vec!["5"; count].join(","));
    assert_eq!(parsed(&values(VALUE_LIMIT)), is_id(5));
    let why = "condition.id.$in: more than 10000 values in the condition";
    assert_eq!(refusal(&values(VALUE_LIMIT + 1)), why);
    assert_eq!(refusal(&values(500_000)), why);
}
