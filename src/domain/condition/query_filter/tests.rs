//! What query filters mean, and which are refused.

use super::*;
use crate::domain::condition::pattern::Pattern;
use crate::domain::condition::{Comparison, LinkField as F, Test};

type Outcome = Result<Condition<F>, String>;

/// The condition, or the key of the part that is invalid, or the reason of another refusal.
fn parsed(json: &str) -> Outcome {
    parse(Dialect::Links, "conditions", json).map_err(|error| match error {
        RequestError::InvalidField(key) => key.into_owned(),
        RequestError::WithoutCode(why) => format!("1199998 {why}"),
        RequestError::WrongType { .. } => format!("1199000 {error}"),
        other => panic!("{other}"),
    })
}

fn group(condition: &str, rules: &[String]) -> String {
    format!(r#"{{"condition":"{condition}","rules":[{}]}}"#, rules.join(","))
}

fn rule(field: &str, operator: &str, value: &str) -> String {
    format!(r#"{{"field":"{field}","operator":"{operator}","value":{value}}}"#)
}

/// A filter of one rule.
fn one(field: &str, operator: &str, value: &str) -> Outcome {
    parsed(&group("AND", &[rule(field, operator, value)]))
}

fn invalid(key: &str) -> Outcome {
    Err(format!("conditions.{key}"))
}

fn nested(groups: usize) -> String {
    let (start, end) = (r#"{"condition":"AND","rules":["#, "]}");
    format!("{}{}{}", start.repeat(groups), rule("id", "equal", "5"), end.repeat(groups))
}

#[test]
fn what_is_no_group_or_rule_is_a_wrong_type() {
    for (json, problem) in [
        ("{}", "conditions: expected a group or a rule"),
        ("[]", "conditions: expected an object, got an array"),
        (r#""x""#, "conditions: expected an object, got a string"),
        (r#"{"rules":[]}"#, "conditions: expected a group or a rule"),
        (r#"{"Condition":"AND","rules":[]}"#, "conditions: expected a group or a rule"),
        (
            r#"{"condition":1,"rules":[]}"#,
            "conditions.condition: expected a string, got an integer",
        ),
        (r#"{"condition":"AND","rules":{}}"#, "conditions.rules: expected an array, got an object"),
        (r#"{"condition":"AND","rules":[{}]}"#, "conditions.rules[0]: expected a group or a rule"),
        (
            r#"{"condition":"AND","rules":[null,5]}"#,
            "conditions.rules[1]: expected an object, got an integer",
        ),
        (
            r#"{"condition":"AND","rules":[{"field":5,"operator":"equal"}]}"#,
            "conditions.rules[0].field: expected a string, got an integer",
        ),
        (r#"{"condition":"AND","condition":"OR","rules":[]}"#, "conditions.condition: given twice"),
        // The whole text is parsed before the first rule is checked.
        (
            r#"{"condition":"AND","rules":[{"operator":"x"},{}]}"#,
            "conditions.rules[1]: expected a group or a rule",
        ),
    ] {
        assert_eq!(parsed(json), Err(format!("1199000 {problem}")), "{json}");
    }
    assert_eq!(parsed("null"), Ok(Condition::always()));
}

#[test]
fn groups_are_checked_before_their_rules_and_the_depth_last() {
    let bad = || rule("id", "x", "5");
    assert_eq!(parsed(&rule("id", "equal", "5")), invalid(""));
    assert_eq!(parsed(&group("and", &[bad()])), invalid("condition"));
    assert_eq!(parsed(r#"{"condition":null}"#), invalid("condition"));
    assert_eq!(parsed(r#"{"condition":"AND","rules":null}"#), invalid("rules"));
    assert_eq!(parsed(&group("AND", &["null".to_owned()])), invalid("rules"));
    assert_eq!(parsed(&group("OR", &vec![bad(); 21])), invalid("rules"));
    assert_eq!(parsed(&group("OR", &vec![bad(); 20])), invalid("rules[0].operator"));
    let inner = group("AND", &[rule("id", "equal", "5"), bad()]);
    assert_eq!(parsed(&group("OR", &[inner])), invalid("rules[0].rules[1].operator"));
    assert!(parsed(&nested(2)).is_ok());
    assert_eq!(parsed(&nested(3)), invalid("rules"));
    let deep = nested(3).replace("equal", "x");
    assert_eq!(parsed(&deep), invalid("rules[0].rules[0].rules[0].operator"));
    assert_eq!(parsed(&nested(20_000)), Err("conditions.rules".to_owned()));
}

#[test]
fn a_filter_has_at_most_500_rules() {
    let rules = |count| group("AND", &vec![rule("id", "less", "5"); count]);
    assert!(parsed(&rules(RULE_LIMIT)).is_ok());
    assert_eq!(parsed(&rules(RULE_LIMIT + 1)), invalid("rules"));
    assert_eq!(parsed(&rules(20_000)), invalid("rules"));
}

#[test]
fn a_rule_is_checked_in_the_order_operator_field_value() {
    assert_eq!(one("$x", "between", "null"), invalid("rules[0].operator"));
    assert_eq!(one("id", "EQUAL", "1"), invalid("rules[0].operator"));
    for field in ["", "$x", "a b", "_id", "-a", "é"] {
        assert_eq!(one(field, "equal", "null"), invalid("rules[0].field"), "{field}");
    }
    assert_eq!(one("a-b_c.d0", "equal", "null"), invalid("rules[0].value"));
}

#[test]
fn each_operator_accepts_values_of_its_types() {
    const ALL: [&str; 9] = ["null", "1", "0.5", r#""a""#, r#""""#, "true", "[]", "[[1]]", "{}"];
    for (operators, accepted) in [
        ("equal not_equal", &["1", "0.5", r#""a""#, r#""""#, "true"][..]),
        ("less less_or_equal greater greater_or_equal", &["1", "0.5"]),
        ("begins_with not_begins_with contains", &[r#""a""#]),
        ("not_contains ends_with not_ends_with", &[r#""a""#]),
        ("is_empty is_not_empty is_null is_not_null exist not_exist", &ALL),
    ] {
        for operator in operators.split(' ') {
            for value in ALL {
                let outcome = one("id", operator, value);
                let is_accepted = accepted.contains(&value);
                assert_eq!(outcome.is_ok(), is_accepted, "{operator} {value}");
                if !is_accepted {
                    assert_eq!(outcome, invalid("rules[0].value"), "{operator} {value}");
                }
            }
        }
    }
    for operator in ["in", "not_in"] {
        for value in [r#"["a","b"]"#, "[1,2.5]", "[true]", "[]"] {
            assert!(one("id", operator, value).is_ok(), "{operator} {value}");
        }
        for value in ["1", r#""a""#, "{}", "[null]", "[[1]]", r#"[1,"a"]"#, "[1,true]"] {
            let outcome = one("id", operator, value);
            assert_eq!(outcome, invalid("rules[0].value"), "{operator} {value}");
        }
    }
    assert!(one("id", "in", &format!("[{}]", vec!["1"; 500].join(","))).is_ok());
    let many = format!("[{}]", vec!["1"; 501].join(","));
    assert_eq!(one("id", "in", &many), invalid("rules[0].value"));
}

#[test]
fn a_list_that_is_null_and_a_bad_pattern_are_other_refusals() {
    let why = |text: &str| Err(format!("1199998 conditions.rules[0].value: {text}"));
    assert_eq!(one("id", "in", "null"), why("expected an array, got null"));
    let bad = one("bk_obj_id", "contains", r#""(""#);
    assert_eq!(bad, why("the pattern is invalid: unclosed group"));
    // Everything that is invalid is found before, the depth included.
    let bad = rule("id", "in", "null");
    let rules = [bad.clone(), rule("id", "x", "5")];
    assert_eq!(parsed(&group("AND", &rules)), invalid("rules[1].operator"));
    assert_eq!(parsed(&nested(3).replace(&rule("id", "equal", "5"), &bad)), invalid("rules"));
}

#[test]
fn texts_are_patterns_and_only_contains_ignores_case() {
    for (operator, value, pattern, is_case_insensitive, is_negated) in [
        ("begins_with", "gd_.*host$", "^gd_.*host$", false, false),
        ("not_begins_with", "a", "^a", false, true),
        ("contains", "run|host", "run|host", true, false),
        ("not_contains", "a", "a", false, true),
        ("ends_with", "host", "host$", false, false),
        ("not_ends_with", "host", "host$", false, true),
    ] {
        let pattern = Pattern::parse(pattern, is_case_insensitive).unwrap();
        let condition = Condition::Test(F::SourceModel, Test::TextMatches(pattern));
        let expected = if is_negated { Condition::not(condition) } else { condition };
        assert_eq!(one("bk_obj_id", operator, &format!(r#""{value}""#)), Ok(expected));
    }
}

#[test]
fn an_unknown_field_is_missing() {
    for (operator, value, is_always) in [
        ("equal", "1", false),
        ("not_equal", "1", true),
        ("in", "[1]", false),
        ("not_in", "[1]", true),
        ("greater", "1", false),
        ("contains", r#""a""#, false),
        ("not_contains", r#""a""#, true),
        ("is_empty", "null", false),
        ("is_not_empty", "null", true),
        ("is_null", "null", true),
        ("is_not_null", "null", false),
        ("exist", "null", false),
        ("not_exist", "null", true),
    ] {
        let expected = Condition::constant(is_always);
        assert_eq!(one("create_time", operator, value), Ok(expected), "{operator}");
    }
    assert_eq!(one("id", "in", "[]"), Ok(Condition::never()));
    assert_eq!(one("id", "not_in", "[]"), Ok(Condition::always()));
}

#[test]
fn times_match_nothing_and_a_date_is_a_text() {
    let operators = [
        "datetime_less",
        "datetime_less_or_equal",
        "datetime_greater",
        "datetime_greater_or_equal",
    ];
    for operator in operators {
        for time in [
            "2020-01-01 00:00:00",
            "2020-01-01T00:00:00+08:00",
            "2020-01-01T00:00:00Z",
            "2020-01-01T00:00:00.123-08:00",
        ] {
            let outcome = one("bk_obj_id", operator, &format!("\"{time}\""));
            assert_eq!(outcome, Ok(Condition::never()), "{time}");
        }
        for other in [
            r#""x""#,
            "5",
            "null",
            r#""""#,
            r#""2020-1-1""#,
            r#""2020-01-01T00:00:00""#,
            r#""2020-01-01T00:00:00.Z""#,
            r#""2020-01-01 00:00""#,
        ] {
            assert_eq!(one("x", operator, other), invalid("rules[0].value"), "{other}");
        }
        assert_eq!(one("id", operator, r#""2020-01-01""#), Ok(Condition::never()));
    }
    let expected = Test::TextCompare(Comparison::Less, "2020-01-01".to_owned());
    let outcome = one("bk_obj_id", "datetime_less", r#""2020-01-01""#);
    assert_eq!(outcome, Ok(Condition::Test(F::SourceModel, expected)));
}
