//! Comparisons with times. In documents they are texts in UTC, such as `2026-01-31T18:00:00.53Z`,
//! without zeros at the end of the fraction.

use time::format_description::well_known::Rfc3339;
use time::{OffsetDateTime, UtcOffset};

use super::{Comparison, Condition, Field, Test, ValueType};

/// A second, in the form of stored times without a fraction and `Z`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Second(String);

impl Second {
    /// Parses a time such as `2026-01-31 18:00:00`, which is UTC, or one of RFC 3339. A fraction is
    /// dropped.
    pub fn parse(text: &str) -> Option<Self> {
        let text = match text.split_once(' ') {
            Some((date, time)) => format!("{date}T{time}Z"),
            None => text.to_owned(),
        };
        let time = OffsetDateTime::parse(&text, &Rfc3339).ok()?;
        let time = time.checked_to_offset(UtcOffset::UTC).filter(|time| time.year() >= 0)?;
        let (date, (hour, minute, second)) = (time.date(), time.to_hms());
        Some(Self(format!("{date}T{hour:02}:{minute:02}:{second:02}")))
    }
}

/// Whether the time that a field of a document is precedes or follows the second. What equals the
/// second is the time without a fraction.
pub fn compare<F: Field>(
    field: Option<&F>, comparison: Comparison, Second(second): &Second,
) -> Condition<F> {
    let Some(field) = field.filter(|field| field.field_type().value == ValueType::Json) else {
        return Condition::never();
    };
    let test = |test| Condition::Test(field.clone(), test);
    let bound = |comparison| test(Test::TextCompare(comparison, second.clone()));
    let is_equal = test(Test::TextIn(vec![format!("{second}Z")]));
    match comparison {
        Comparison::Less => bound(Comparison::Less),
        Comparison::LessOrEqual => Condition::any([bound(Comparison::Less), is_equal]),
        Comparison::Greater => {
            Condition::all([bound(Comparison::GreaterOrEqual), Condition::not(is_equal)])
        }
        Comparison::GreaterOrEqual => bound(Comparison::GreaterOrEqual),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_is_utc() {
        for (text, expected) in [
            ("2026-01-31 18:00:00", Some("2026-01-31T18:00:00")),
            ("2026-01-31T18:00:00Z", Some("2026-01-31T18:00:00")),
            ("2026-02-01T01:30:00.5+08:00", Some("2026-01-31T17:30:00")),
            ("2026-01-32 18:00:00", None),
            ("2026-01-31 18:00", None),
            ("2026-01-31", None),
            ("9999-12-31T23:59:59-01:00", None),
            ("0000-01-01T00:00:00+01:00", None),
        ] {
            assert_eq!(Second::parse(text), expected.map(|text| Second(text.to_owned())), "{text}");
        }
    }
}
