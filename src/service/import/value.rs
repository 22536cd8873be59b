//! Values in the forms of `mongoexport`.

use serde_json::Value;
use time::OffsetDateTime;

/// The time at a number of milliseconds since 1970.
pub(super) fn at(milliseconds: i64) -> Option<OffsetDateTime> {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(milliseconds) * 1_000_000).ok()
}

/// The text of a time in documents, such as `2026-01-31T18:00:00.53Z`, at a number of milliseconds
/// since 1970.
pub(super) fn time_text(milliseconds: i64) -> Option<String> {
    let time = at(milliseconds)?;
    let (date, (hour, minute, second, millisecond)) = (time.date(), time.time().as_hms_milli());
    let fraction = format!(".{millisecond:03}");
    let fraction = fraction.trim_end_matches('0').trim_end_matches('.');
    Some(format!("{date}T{hour:02}:{minute:02}:{second:02}{fraction}Z"))
}

/// Reads an integer: `11`, `11.0`, `{"$numberLong":"11"}`, `{"$numberInt":"11"}` or
/// `{"$numberDouble":"11.0"}`.
pub(super) fn integer(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => number.as_i64().or_else(|| exact_integer(number.as_f64()?)),
        Value::Object(wrapper) if wrapper.len() == 1 => {
            let (kind, digits) = wrapper.iter().next()?;
            match (kind.as_str(), digits.as_str()?) {
                ("$numberLong" | "$numberInt", digits) => digits.parse().ok(),
                ("$numberDouble", digits) => exact_integer(digits.parse().ok()?),
                _ => None,
            }
        }
        _ => None,
    }
}

/// Converts a number that is an integer of at most 53 bits, which `f64` represents exactly.
fn exact_integer(number: f64) -> Option<i64> {
    const LIMIT: f64 = 9_007_199_254_740_992.0;
    #[expect(clippy::cast_possible_truncation, reason = "an integer of at most 53 bits")]
    (number.fract() == 0.0 && number.abs() <= LIMIT).then_some(number as i64)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_integer_is_read_in_every_form_of_mongoexport() {
        for form in [
            json!(11),
            json!(11.0),
            json!({"$numberLong": "11"}),
            json!({"$numberInt": "11"}),
            json!({"$numberDouble": "11.0"}),
        ] {
            assert_eq!(integer(&form), Some(11), "{form}");
        }
        for other in [json!("11"), json!(11.5), json!({"$date": "11"}), json!(null), json!(1e300)] {
            assert_eq!(integer(&other), None, "{other}");
        }
        let above_53_bits = json!({"$numberLong": "9007199254740993"});
        assert_eq!(integer(&above_53_bits), Some(9_007_199_254_740_993));
    }

    #[test]
    fn the_text_of_a_time_has_no_zeros_at_the_end_of_its_fraction() {
        for (milliseconds, text) in [
            (1_795_630_870_491, "2026-11-25T18:21:10.491Z"),
            (1_795_630_870_500, "2026-11-25T18:21:10.5Z"),
            (1_795_630_870_000, "2026-11-25T18:21:10Z"),
        ] {
            assert_eq!(time_text(milliseconds).as_deref(), Some(text));
        }
    }
}
