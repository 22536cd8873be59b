//! The order of lists, in the form in which callers write it: `-id,bk_inst_id` or `id:-1`.

use super::condition::Field;
use super::error::RequestError;

/// A field to sort by, and whether it descends.
pub type SortField<F> = (F, bool);

/// The most fields to sort by.
const FIELD_LIMIT: usize = 20;

/// Parses a comma-separated list of fields. `-` before a field or `:-1` after it makes it descend;
/// `+` and `:1` change nothing. An unknown field has no value in any row, so it orders nothing.
pub fn parse<F: Field>(sort: &str) -> Result<Vec<SortField<F>>, RequestError> {
    let mut fields: Vec<SortField<F>> = Vec::new();
    for part in sort.split(',').map(str::trim) {
        if part.is_empty() {
            continue;
        }
        let (name, descends) = match part.strip_prefix('-') {
            Some(name) => (name, true),
            None => (part.strip_prefix('+').unwrap_or(part), false),
        };
        let (name, descends) = match name.split_once(':') {
            Some((name, direction)) => (name, descends || direction.trim() == "-1"),
            None => (name, descends),
        };
        let name = name.trim();
        if name.is_empty() {
            return Err(RequestError::WithoutCode("page.sort: a field without a name".into()));
        }
        if name.starts_with('$') {
            return Err(RequestError::WithoutCode("page.sort: a field that begins with $".into()));
        }
        // Rows that are equal in a field are equal in it the second time.
        let is_new = |field: &F| !fields.iter().any(|(earlier, _)| earlier == field);
        if let Some(field) = F::by_name(name).filter(is_new) {
            fields.push((field, descends));
        }
        if fields.len() > FIELD_LIMIT {
            let why = format!("page.sort: more than {FIELD_LIMIT} fields");
            return Err(RequestError::WithoutCode(why.into()));
        }
    }
    Ok(fields)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::condition::LinkField::{self, Id, SourceId};

    #[test]
    fn a_field_descends_after_a_minus_or_before_minus_1() {
        for (sort, expected) in [
            ("", &[][..]),
            ("id", &[(Id, false)]),
            ("+id", &[(Id, false)]),
            ("id:1", &[(Id, false)]),
            ("id:-1", &[(Id, true)]),
            (" -id , bk_inst_id", &[(Id, true), (SourceId, false)]),
            ("nope,,-bk_inst_id", &[(SourceId, true)]),
        ] {
            assert_eq!(parse::<LinkField>(sort).unwrap(), expected, "{sort:?}");
        }
    }

    #[test]
    fn a_field_without_a_name_is_refused() {
        for sort in ["-", "id,:1", "$x"] {
            assert!(parse::<LinkField>(sort).is_err(), "{sort:?}");
        }
    }
}
