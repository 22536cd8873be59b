//! How values are compared, as MongoDB compares them. A name that is no field (`None`) counts as a
//! field that every row lacks.
//!
//! Values of different types are never equal, and none is greater: a string is no number, a boolean
//! is no number, an array or object is no value of a field. `5.0` is `5`. Null equals null and a
//! missing field.

use super::json::{Json, Number};
use super::pattern::Pattern;
use super::{Comparison, Condition, Field, Test, ValueType};

/// Whether the field equals the value.
pub(super) fn equal<F: Field>(field: Option<&F>, value: Json<'_>) -> Condition<F> {
    one_of(field, [value])
}

/// Whether the field equals one of the values.
pub(super) fn one_of<'a, F: Field>(
    field: Option<&F>, values: impl IntoIterator<Item = Json<'a>>,
) -> Condition<F> {
    let Some(field) = field else {
        return Condition::constant(values.into_iter().any(|value| matches!(value, Json::Null)));
    };
    if field.field_type().value == ValueType::Json {
        let values: Vec<_> = values.into_iter().filter_map(json_text).collect();
        let has_null = values.iter().any(|value| value == "null");
        let test = (!values.is_empty())
            .then(|| Condition::Test(field.clone(), Test::JsonIn(distinct(values))));
        let is_missing = has_null.then(|| Condition::not(exists(Some(field))));
        return Condition::any(test.into_iter().chain(is_missing));
    }
    let (mut integers, mut texts, mut booleans) = (Vec::new(), Vec::new(), Vec::new());
    let mut has_null = false;
    for value in values {
        match value {
            Json::Null => has_null = true,
            Json::Number(Number::Integer(integer)) => integers.push(integer),
            // PostgreSQL has no text with a NUL.
            Json::Text(text) if !text.contains('\0') => texts.push(text),
            Json::Boolean(boolean) => booleans.push(boolean),
            Json::Number(_) | Json::Text(_) | Json::List(_) | Json::Object(_) => {}
        }
    }
    let (has_values, test) = match field.field_type().value {
        ValueType::Integer => (!integers.is_empty(), Test::IntegerIn(distinct(integers))),
        ValueType::Text => (!texts.is_empty(), Test::TextIn(distinct(texts))),
        ValueType::Boolean => (!booleans.is_empty(), Test::BooleanIn(distinct(booleans))),
        ValueType::Json => return Condition::never(),
    };
    let values = has_values.then(|| Condition::Test(field.clone(), test));
    let null = has_null.then(|| is_null(Some(field)));
    Condition::any(values.into_iter().chain(null))
}

fn distinct<T: Ord>(mut values: Vec<T>) -> Vec<T> {
    values.sort_unstable();
    values.dedup();
    values
}

/// Whether the field is null or missing.
pub(super) fn is_null<F: Field>(field: Option<&F>) -> Condition<F> {
    match field {
        Some(field) if field.field_type().value == ValueType::Json => {
            one_of(Some(field), [Json::Null])
        }
        Some(field) if field.field_type().is_nullable => {
            Condition::Test(field.clone(), Test::IsNull)
        }
        field => Condition::constant(field.is_none()),
    }
}

/// Whether the field is less or greater than the value, and of the same type.
pub(super) fn compare<F: Field>(
    field: Option<&F>, comparison: Comparison, value: Json<'_>,
) -> Condition<F> {
    if matches!(value, Json::Null) {
        // Nothing is less or greater than null, but `$lte` and `$gte` include equality.
        return match comparison {
            Comparison::LessOrEqual | Comparison::GreaterOrEqual => is_null(field),
            Comparison::Less | Comparison::Greater => Condition::never(),
        };
    }
    let Some(field) = field else { return Condition::never() };
    let test = match (field.field_type().value, value) {
        (ValueType::Integer, Json::Number(number)) => integer_range(comparison, number),
        (ValueType::Text | ValueType::Json, Json::Text(text)) => {
            Some(compare_text(comparison, text))
        }
        (ValueType::Boolean | ValueType::Json, Json::Boolean(boolean)) => {
            compare_boolean(comparison, boolean)
        }
        (ValueType::Json, Json::Number(number)) => {
            Some(Test::NumberCompare(comparison, number.json()))
        }
        _ => None,
    };
    match test {
        Some(Test::IntegerRange { min: i64::MIN, max: i64::MAX })
            if !field.field_type().is_nullable =>
        {
            Condition::always()
        }
        Some(test) => Condition::Test(field.clone(), test),
        None => Condition::never(),
    }
}

fn integer_range(comparison: Comparison, number: Number) -> Option<Test> {
    // 5.5 stands between two integers: `< 5.5` and `<= 5.5` both mean `<= 5`.
    let is_included = matches!(comparison, Comparison::LessOrEqual | Comparison::GreaterOrEqual)
        || number.floor() != number.ceil();
    let step = i64::from(!is_included);
    let (min, max) = match comparison {
        Comparison::Less | Comparison::LessOrEqual => {
            (i64::MIN, number.floor()?.checked_sub(step)?)
        }
        Comparison::Greater | Comparison::GreaterOrEqual => {
            (number.ceil()?.checked_add(step)?, i64::MAX)
        }
    };
    Some(Test::IntegerRange { min, max })
}

fn compare_text(comparison: Comparison, text: String) -> Test {
    match text.split_once('\0') {
        None => Test::TextCompare(comparison, text),
        // No stored text has a NUL. So a stored text is less than this one exactly if it is at most
        // the part before the NUL.
        Some((start, _)) => {
            let comparison = match comparison {
                Comparison::Less | Comparison::LessOrEqual => Comparison::LessOrEqual,
                Comparison::Greater | Comparison::GreaterOrEqual => Comparison::Greater,
            };
            Test::TextCompare(comparison, start.to_owned())
        }
    }
}

fn compare_boolean(comparison: Comparison, value: bool) -> Option<Test> {
    let is_found = |boolean: &bool| match comparison {
        Comparison::Less => boolean.cmp(&value).is_lt(),
        Comparison::LessOrEqual => boolean.cmp(&value).is_le(),
        Comparison::Greater => boolean.cmp(&value).is_gt(),
        Comparison::GreaterOrEqual => boolean.cmp(&value).is_ge(),
    };
    let booleans = [false, true].into_iter().filter(is_found);
    let booleans: Vec<_> = booleans.collect();
    (!booleans.is_empty()).then_some(Test::BooleanIn(booleans))
}

/// Whether the field is a text that matches the pattern.
pub(super) fn matches<F: Field>(field: Option<&F>, pattern: Pattern) -> Condition<F> {
    match field {
        Some(field) if matches!(field.field_type().value, ValueType::Text | ValueType::Json) => {
            Condition::Test(field.clone(), Test::TextMatches(pattern))
        }
        _ => Condition::never(),
    }
}

/// Whether the field exists, also as null.
pub(super) fn exists<F: Field>(field: Option<&F>) -> Condition<F> {
    match field {
        Some(field) if field.field_type().value == ValueType::Json => {
            Condition::Test(field.clone(), Test::Exists)
        }
        field => Condition::constant(field.is_some()),
    }
}

/// Whether the field is an array of so many elements.
pub(super) fn has_size<F: Field>(field: Option<&F>, size: i64) -> Condition<F> {
    match field {
        Some(field) if field.field_type().value == ValueType::Json => {
            Condition::Test(field.clone(), Test::HasSize(size))
        }
        _ => Condition::never(),
    }
}

/// The JSON text of a value that is no array and no object.
fn json_text(value: Json<'_>) -> Option<String> {
    Some(match value {
        Json::Null => "null".to_owned(),
        Json::Boolean(boolean) => boolean.to_string(),
        Json::Number(number) => number.json(),
        Json::Text(text) if !text.contains('\0') => serde_json::Value::from(text).to_string(),
        Json::Text(_) | Json::List(_) | Json::Object(_) => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::condition::FieldType;
    use Comparison::{Greater, GreaterOrEqual, Less, LessOrEqual};

    type C = Condition<FieldType>;

    impl Field for FieldType {
        fn by_name(_: &str) -> Option<Self> {
            None
        }

        fn field_type(&self) -> FieldType {
            *self
        }
    }

    const INTEGER: FieldType = FieldType { value: ValueType::Integer, is_nullable: false };
    const TEXT: FieldType = FieldType { value: ValueType::Text, is_nullable: false };
    const BOOLEAN: FieldType = FieldType { value: ValueType::Boolean, is_nullable: true };
    const COMPARISONS: [Comparison; 4] = [Less, LessOrEqual, Greater, GreaterOrEqual];

    fn json(json: &str) -> Json<'_> {
        Json::read("", json).unwrap()
    }

    fn list<'a>(values: &'a [&str]) -> impl Iterator<Item = Json<'a>> {
        values.iter().map(|value| json(value))
    }

    #[test]
    fn a_value_of_another_type_is_never_equal_or_greater() {
        for (field, values) in [
            (INTEGER, ["\"5\"", "true", "5.5", "1e400", "[5]", "{}", "null"].as_slice()),
            (TEXT, &["5", "true", "[\"a\"]", "{\"a\":1}", "\"a\\u0000\"", "null"]),
            (BOOLEAN, &["0", "\"true\"", "[true]"]),
        ] {
            assert!(one_of(Some(&field), list(values)).is_never(), "{field:?}");
        }
        for comparison in COMPARISONS {
            for (field, value) in [(INTEGER, "\"5\""), (INTEGER, "true"), (TEXT, "5"), (TEXT, "[]")]
            {
                assert!(
                    compare(Some(&field), comparison, json(value)).is_never(),
                    "{comparison:?} {value}"
                );
            }
        }
    }

    #[test]
    fn values_of_the_type_are_kept_once_each() {
        let values = ["7", "5.0", "\"x\"", "5", "true"];
        let expected = C::Test(INTEGER, Test::IntegerIn(vec![5, 7]));
        assert_eq!(one_of(Some(&INTEGER), list(&values)), expected);
        let expected = C::Test(TEXT, Test::TextIn(vec!["x".to_owned()]));
        assert_eq!(one_of(Some(&TEXT), list(&values)), expected);
    }

    #[test]
    fn null_equals_null_and_a_missing_field() {
        let null = C::Test(BOOLEAN, Test::IsNull);
        assert_eq!(equal(Some(&BOOLEAN), json("null")), null);
        assert!(equal(None::<&FieldType>, json("null")).is_always());
        assert!(equal(None::<&FieldType>, json("0")).is_never());
        let either = C::any([C::Test(BOOLEAN, Test::BooleanIn(vec![true])), null.clone()]);
        assert_eq!(one_of(Some(&BOOLEAN), list(&["null", "true"])), either);
        for comparison in COMPARISONS {
            let is_equal = matches!(comparison, LessOrEqual | GreaterOrEqual);
            let expected = if is_equal { null.clone() } else { C::never() };
            assert_eq!(compare(Some(&BOOLEAN), comparison, json("null")), expected);
            assert!(compare(Some(&INTEGER), comparison, json("null")).is_never());
            assert_eq!(compare(None::<&FieldType>, comparison, json("null")).is_always(), is_equal);
            assert!(compare(None::<&FieldType>, comparison, json("1")).is_never());
        }
    }

    #[test]
    fn comparisons_of_integers_become_ranges() {
        let range = |comparison, value| match compare(Some(&INTEGER), comparison, json(value)) {
            C::Test(_, Test::IntegerRange { min, max }) => Some((min, max)),
            condition => {
                assert!(condition.is_never() || condition.is_always());
                condition.is_always().then_some((i64::MIN, i64::MAX))
            }
        };
        let full = Some((i64::MIN, i64::MAX));
        for (comparison, value, expected) in [
            (Less, "5", Some((i64::MIN, 4))),
            (LessOrEqual, "5", Some((i64::MIN, 5))),
            (Greater, "5", Some((6, i64::MAX))),
            (GreaterOrEqual, "5", Some((5, i64::MAX))),
            (Less, "5.5", Some((i64::MIN, 5))),
            (LessOrEqual, "-5.5", Some((i64::MIN, -6))),
            (Greater, "5.5", Some((6, i64::MAX))),
            (GreaterOrEqual, "0.5", Some((1, i64::MAX))),
            (Greater, "9223372036854775807", None),
            (Less, "-9223372036854775808", None),
            (Greater, "9223372036854775808", None),
            (GreaterOrEqual, "1e400", None),
            (Less, "1e19", full),
            (Greater, "-1e400", full),
            (LessOrEqual, "-1e19", None),
        ] {
            assert_eq!(range(comparison, value), expected, "{comparison:?} {value}");
        }
    }

    #[test]
    fn a_text_with_a_nul_lies_between_stored_texts() {
        for (comparison, expected) in [
            (Less, LessOrEqual),
            (LessOrEqual, LessOrEqual),
            (Greater, Greater),
            (GreaterOrEqual, Greater),
        ] {
            let expected = C::Test(TEXT, Test::TextCompare(expected, "a".to_owned()));
            assert_eq!(compare(Some(&TEXT), comparison, json("\"a\\u0000b\"")), expected);
        }
    }

    #[test]
    fn false_is_less_than_true() {
        let booleans = |comparison, value| match compare(Some(&BOOLEAN), comparison, json(value)) {
            C::Test(_, Test::BooleanIn(booleans)) => booleans,
            condition => {
                assert!(condition.is_never());
                Vec::new()
            }
        };
        assert_eq!(booleans(Less, "true"), [false]);
        assert_eq!(booleans(GreaterOrEqual, "false"), [false, true]);
        assert!(booleans(Greater, "true").is_empty());
    }
}
