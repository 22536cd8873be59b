//! Conditions of searches: which links, instances or parts of the inventory a caller wants.
//!
//! A condition is a tree of tests on fields. [`mongo`] and [`query_filter`] parse the two forms in
//! which callers write one, and `db::condition` translates it to SQL. What can be decided without
//! the stored rows is decided by the parsers: a test of an unknown field, or of a value that cannot
//! equal the field's, is [`Condition::always`] or [`Condition::never`].

mod compare;
mod field;
mod json;
pub mod mongo;
pub mod pattern;
pub mod query_filter;
pub mod time;

pub use field::{DocumentField, KindField, LinkField, ModelAssociationField, ModelField};
use pattern::Pattern;

/// A condition on rows with fields `F`. For every row it is true or false.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition<F> {
    /// All of them are true; also if there are none.
    All(Vec<Self>),
    /// At least one of them is true.
    Any(Vec<Self>),
    /// It is false.
    Not(Box<Self>),
    /// The field passes the test.
    Test(F, Test),
}

/// A test of one value. Null passes [`Test::IsNull`] only, and a value of another type passes none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Test {
    /// The integer is one of these.
    IntegerIn(Vec<i64>),
    /// The integer is within these bounds, which are included.
    IntegerRange {
        /// The lower bound; [`i64::MIN`] if there is none.
        min: i64,
        /// The upper bound; [`i64::MAX`] if there is none.
        max: i64,
    },
    /// The text is one of these. They hold no NUL.
    TextIn(Vec<String>),
    /// The text is before or after another, which holds no NUL, in the order of their bytes.
    TextCompare(Comparison, String),
    /// The text, or a part of it, matches the pattern.
    TextMatches(Pattern),
    /// The boolean is one of these.
    BooleanIn(Vec<bool>),
    /// The value is null.
    IsNull,
    /// The JSON value, or an element of the array that it is, is one of these: JSON texts of nulls,
    /// booleans, numbers and strings. The strings hold no NUL.
    JsonIn(Vec<String>),
    /// The number is less or greater than another one, which is a JSON text.
    NumberCompare(Comparison, String),
    /// There is a value, perhaps null.
    Exists,
    /// The value is an array of so many elements.
    HasSize(i64),
}

/// How a value is compared with another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// It is less.
    Less,
    /// It is less or equal.
    LessOrEqual,
    /// It is greater.
    Greater,
    /// It is greater or equal.
    GreaterOrEqual,
}

/// A field of the rows that a condition selects.
pub trait Field: Clone + PartialEq {
    /// The field that callers call `name`.
    fn by_name(name: &str) -> Option<Self>;

    /// What values it has.
    fn field_type(&self) -> FieldType;

    /// The field that callers call `inner`, of the object that this field is.
    fn inner(&self, _inner: &Self) -> Option<Self> {
        None
    }

    /// Whether refusals may repeat `name`: it is not a text of the caller.
    fn is_known(name: &str) -> bool {
        Self::by_name(name).is_some()
    }
}

/// The values of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FieldType {
    /// The type of values that are not null.
    pub value: ValueType,
    /// Whether a value can be null.
    pub is_nullable: bool,
}

/// The type of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValueType {
    /// An integer of 64 bits.
    Integer,
    /// A text.
    Text,
    /// A boolean.
    Boolean,
    /// Any JSON value, or none.
    Json,
}

impl<F> Condition<F> {
    /// The condition that every row satisfies.
    pub fn always() -> Self {
        Self::All(Vec::new())
    }

    /// The condition that no row satisfies.
    pub fn never() -> Self {
        Self::Any(Vec::new())
    }

    /// [`Condition::always`] or [`Condition::never`].
    pub fn constant(is_always: bool) -> Self {
        if is_always { Self::always() } else { Self::never() }
    }

    /// Whether it is [`Condition::always`].
    pub fn is_always(&self) -> bool {
        matches!(self, Self::All(parts) if parts.is_empty())
    }

    /// Whether it is [`Condition::never`].
    pub fn is_never(&self) -> bool {
        matches!(self, Self::Any(parts) if parts.is_empty())
    }

    /// The condition that all of `parts` are true, simplified.
    pub fn all(parts: impl IntoIterator<Item = Self>) -> Self {
        let mut all = Vec::new();
        for part in parts {
            match part {
                part if part.is_never() => return part,
                Self::All(parts) => all.extend(parts),
                part => all.push(part),
            }
        }
        if all.len() == 1 { all.swap_remove(0) } else { Self::All(all) }
    }

    /// The condition that at least one of `parts` is true, simplified.
    pub fn any(parts: impl IntoIterator<Item = Self>) -> Self {
        let mut any = Vec::new();
        for part in parts {
            match part {
                part if part.is_always() => return part,
                Self::Any(parts) => any.extend(parts),
                part => any.push(part),
            }
        }
        if any.len() == 1 { any.swap_remove(0) } else { Self::Any(any) }
    }

    /// The condition that `condition` is false, simplified.
    #[expect(clippy::should_implement_trait, reason = "it is named like `all` and `any`")]
    pub fn not(condition: Self) -> Self {
        match condition {
            Self::Not(condition) => *condition,
            condition if condition.is_always() => Self::never(),
            condition if condition.is_never() => Self::always(),
            condition => Self::Not(Box::new(condition)),
        }
    }

    /// How many tests it has, and how many values in lists.
    pub fn size(&self) -> (usize, usize) {
        match self {
            Self::All(parts) | Self::Any(parts) => parts
                .iter()
                .map(Self::size)
                .fold((0, 0), |(tests, values), part| (tests + part.0, values + part.1)),
            Self::Not(condition) => condition.size(),
            Self::Test(_, Test::IntegerIn(list)) => (1, list.len()),
            Self::Test(_, Test::TextIn(list) | Test::JsonIn(list)) => (1, list.len()),
            Self::Test(..) => (1, 1),
        }
    }

    /// How many regular expressions it has.
    pub fn patterns(&self) -> usize {
        match self {
            Self::All(parts) | Self::Any(parts) => parts.iter().map(Self::patterns).sum(),
            Self::Not(condition) => condition.patterns(),
            Self::Test(_, test) => usize::from(matches!(test, Test::TextMatches(_))),
        }
    }

    /// Whether every test satisfies `is_such`.
    pub fn all_tests(&self, is_such: &impl Fn(&F, &Test) -> bool) -> bool {
        match self {
            Self::All(parts) | Self::Any(parts) => parts.iter().all(|part| part.all_tests(is_such)),
            Self::Not(condition) => condition.all_tests(is_such),
            Self::Test(field, test) => is_such(field, test),
        }
    }

    /// The same condition with every test replaced, simplified.
    pub fn map<G>(self, replace: &mut impl FnMut(F, Test) -> Condition<G>) -> Condition<G> {
        match self {
            Self::All(parts) => Condition::all(parts.into_iter().map(|part| part.map(replace))),
            Self::Any(parts) => Condition::any(parts.into_iter().map(|part| part.map(replace))),
            Self::Not(condition) => Condition::not(condition.map(replace)),
            Self::Test(field, test) => replace(field, test),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type C = Condition<u8>;

    fn test(field: u8) -> C {
        C::Test(field, Test::IsNull)
    }

    #[test]
    fn constants_are_folded() {
        let (yes, no) = (C::always, C::never);
        assert_eq!(C::all([yes(), test(1), yes()]), test(1));
        assert_eq!(C::all([test(1), no(), test(2)]), no());
        assert_eq!(C::any([no(), test(1), no()]), test(1));
        assert_eq!(C::any([test(1), yes(), test(2)]), yes());
        assert_eq!((C::all([]), C::any([])), (yes(), no()));
        assert_eq!((C::not(yes()), C::not(no())), (no(), yes()));
        assert_eq!(C::not(C::not(test(1))), test(1));
    }

    #[test]
    fn nested_lists_of_one_kind_become_one_list() {
        let nested = C::all([test(1), C::all([test(2), C::any([test(3)])])]);
        assert_eq!(nested, C::All(vec![test(1), test(2), test(3)]));
        let mixed = C::all([test(1), C::any([test(2), test(3)])]);
        assert_eq!(mixed, C::All(vec![test(1), C::Any(vec![test(2), test(3)])]));
    }

    #[test]
    fn map_simplifies() {
        let condition = C::all([test(1), C::not(C::any([test(2), test(3)]))]);
        let mut is_even = |field: u8, test| match field % 2 {
            0 => Condition::Test("even", test),
            _ => Condition::always(),
        };
        assert!(condition.map(&mut is_even).is_never());
        let condition = C::all([test(1), C::not(test(2))]);
        let expected = Condition::not(Condition::Test("even", Test::IsNull));
        assert_eq!(condition.map(&mut is_even), expected);
    }
}
