//! Regular expressions: parsed in the syntax of the crate `regex-syntax`, translated to PostgreSQL.
//!
//! A pattern means what it means to PCRE, which MongoDB uses: `.` is no newline, `$` is also before
//! a newline at the end, `\d`, `\w`, `\s`, `\b` and classes such as `[:alpha:]` are ASCII. What the
//! two syntaxes understand differently, or PostgreSQL cannot express, is refused by name.

mod class;

use std::collections::BTreeSet;
use std::fmt::Write;

use regex_syntax::ast::parse::ParserBuilder;
use regex_syntax::ast::{
    Assertion, AssertionKind, Ast, GroupKind, Literal, Repetition, RepetitionKind, RepetitionRange,
};
use regex_syntax::hir::{ClassUnicode, ClassUnicodeRange};

use self::class::{bracketed_class, character, fold, perl_class, ranges_of, single, word};

/// The longest pattern, in characters.
pub const PATTERN_LIMIT: usize = 1_000;

/// The most levels of groups, alternatives and repetitions in a pattern.
const NESTING_LIMIT: u32 = 50;

/// The largest count of a repetition, which is PostgreSQL's.
const REPETITION_LIMIT: u32 = 255;

/// The most anchors and word boundaries that follow one another. PostgreSQL's time to compile a
/// pattern can double with each one.
const ASSERTION_LIMIT: usize = 8;

/// The largest estimate of what PostgreSQL builds for a pattern, see [`Size::cost`]. It compiles
/// random patterns up to this size in at most about a tenth of a second.
const COST_LIMIT: usize = 20_000;

/// A regular expression in the syntax of PostgreSQL, for the operator `~`.
///
/// Letters that match in both cases are classes of their own, so the translation does not depend on
/// a collation, and `\w` stays ASCII.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(String);

/// Why a pattern is refused. The texts hold nothing of the pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// It is longer than [`PATTERN_LIMIT`].
    #[error("a pattern of more than {PATTERN_LIMIT} characters")]
    TooLong,
    /// PostgreSQL would need too much time or memory.
    #[error("the pattern is too complex: {0}")]
    TooComplex(&'static str),
    /// It is no regular expression.
    #[error("the pattern is invalid: {0}")]
    Invalid(String),
    /// It has something that is not supported.
    #[error("the pattern has {0}, which is not supported")]
    Unsupported(&'static str),
}

type Result<T> = std::result::Result<T, PatternError>;

fn unsupported<T>(what: &'static str) -> Result<T> {
    Err(PatternError::Unsupported(what))
}

impl Pattern {
    /// Translates a pattern. A leading `(?i)` makes it case-insensitive, too.
    pub fn parse(pattern: &str, is_case_insensitive: bool) -> Result<Self> {
        if pattern.chars().nth(PATTERN_LIMIT).is_some() {
            return Err(PatternError::TooLong);
        }
        let (pattern, is_case_insensitive) = match pattern.strip_prefix("(?i)") {
            Some(pattern) => (pattern, true),
            None => (pattern, is_case_insensitive),
        };
        let ast = ParserBuilder::new().nest_limit(NESTING_LIMIT).build().parse(pattern);
        let ast = ast.map_err(|error| PatternError::Invalid(error.kind().to_string()))?;
        let mut translator =
            Translator { text: String::new(), is_case_insensitive, bounds: BTreeSet::new() };
        let size = translator.translate(&ast)?;
        if size.assertions > ASSERTION_LIMIT {
            return Err(PatternError::TooComplex("too many anchors and word boundaries"));
        }
        if size.cost(translator.bounds.len()) > COST_LIMIT {
            return Err(PatternError::TooComplex("too many repetitions or optional parts"));
        }
        Ok(Self(translator.text))
    }

    /// The pattern in PostgreSQL's syntax.
    pub fn as_postgres(&self) -> &str {
        &self.0
    }
}

/// What a part of a pattern costs PostgreSQL, with its repetitions written out.
#[derive(Default, Clone, Copy)]
struct Size {
    /// The characters, as transitions of an automaton: a class has one for each of its characters.
    characters: usize,
    /// The classes of many characters. One has a transition for each set of characters that the
    /// pattern distinguishes.
    classes: usize,
    /// The parts that can be skipped or repeated without end. PostgreSQL adds transitions around
    /// them.
    optional: usize,
    /// The most anchors and word boundaries that follow one another.
    assertions: usize,
}

impl Size {
    fn and(self, other: Self) -> Self {
        let assertions = self.assertions.saturating_add(other.assertions);
        Self { assertions, ..self.or(other) }
    }

    fn or(self, other: Self) -> Self {
        Self {
            characters: self.characters.saturating_add(other.characters),
            classes: self.classes.saturating_add(other.classes),
            optional: self.optional.saturating_add(other.optional),
            assertions: self.assertions.max(other.assertions),
        }
    }

    fn times(self, count: u32) -> Self {
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        Self {
            characters: self.characters.saturating_mul(count),
            classes: self.classes.saturating_mul(count),
            optional: self.optional.saturating_mul(count),
            assertions: self.assertions.saturating_mul(count),
        }
    }

    /// The transitions, as often as PostgreSQL may copy one: around each part that can be
    /// skipped or repeated.
    fn cost(self, distinguished: usize) -> usize {
        let optional = self.optional.saturating_add(1);
        let of_classes = self.classes.saturating_mul(distinguished.saturating_add(1));
        let transitions = of_classes.saturating_add(self.characters).saturating_add(optional);
        transitions.saturating_mul(optional)
    }
}

const OPTIONAL: Size = Size { characters: 0, classes: 0, optional: 1, assertions: 0 };
const ASSERTION: Size = Size { characters: 0, classes: 0, optional: 0, assertions: 1 };

/// Writes a pattern in PostgreSQL's syntax.
struct Translator {
    text: String,
    is_case_insensitive: bool,
    /// Where the ranges of all classes and characters begin and end, which tells the number of sets
    /// of characters that the pattern distinguishes.
    bounds: BTreeSet<u32>,
}

impl Translator {
    fn translate(&mut self, ast: &Ast) -> Result<Size> {
        match ast {
            Ast::Empty(_) => Ok(OPTIONAL),
            Ast::Flags(_) => unsupported("flags in the middle"),
            Ast::Literal(literal) => self.literal(literal),
            Ast::Dot(_) => {
                let newline = ClassUnicodeRange::new('\n', '\n');
                let mut class = ClassUnicode::new([newline]);
                class.negate();
                Ok(self.class(&class))
            }
            Ast::Assertion(assertion) => self.assertion(assertion),
            Ast::ClassUnicode(_) => unsupported(r"\p"),
            Ast::ClassPerl(class) => Ok(self.class(&perl_class(class))),
            Ast::ClassBracketed(class) => {
                let class = bracketed_class(class, self.is_case_insensitive)?;
                Ok(self.class(&class))
            }
            Ast::Repetition(repetition) => self.repetition(repetition),
            Ast::Group(group) => {
                if let GroupKind::NonCapturing(flags) = &group.kind
                    && !flags.items.is_empty()
                {
                    return unsupported("flags in a group");
                }
                self.group(&group.ast)
            }
            Ast::Alternation(alternation) => {
                let mut size = Size::default();
                self.text.push_str("(?:");
                for (index, ast) in alternation.asts.iter().enumerate() {
                    if index > 0 {
                        self.text.push('|');
                    }
                    size = size.or(self.translate(ast)?);
                }
                self.text.push(')');
                Ok(size)
            }
            Ast::Concat(concat) => concat
                .asts
                .iter()
                .try_fold(Size::default(), |size, ast| Ok(size.and(self.translate(ast)?))),
        }
    }

    fn group(&mut self, ast: &Ast) -> Result<Size> {
        self.text.push_str("(?:");
        let size = self.translate(ast)?;
        self.text.push(')');
        Ok(size)
    }

    fn literal(&mut self, literal: &Literal) -> Result<Size> {
        let mut class = single(character(literal)?);
        if self.is_case_insensitive {
            fold(&mut class);
        }
        Ok(self.class(&class))
    }

    fn assertion(&mut self, assertion: &Assertion) -> Result<Size> {
        let text = match assertion.kind {
            AssertionKind::StartLine | AssertionKind::StartText => "^",
            AssertionKind::EndText => "$",
            AssertionKind::EndLine => r"(?=\U0000000A?$)",
            // PostgreSQL's own \y knows the letters of its collation.
            AssertionKind::WordBoundary => {
                "(?:(?<=[0-9A-Z_a-z])(?![0-9A-Z_a-z])|(?<![0-9A-Z_a-z])(?=[0-9A-Z_a-z]))"
            }
            AssertionKind::NotWordBoundary => {
                "(?:(?<=[0-9A-Z_a-z])(?=[0-9A-Z_a-z])|(?<![0-9A-Z_a-z])(?![0-9A-Z_a-z]))"
            }
            // To PCRE, this is a character after a superfluous backslash.
            AssertionKind::WordBoundaryStartAngle => return Ok(self.class(&single('<'))),
            AssertionKind::WordBoundaryEndAngle => return Ok(self.class(&single('>'))),
            AssertionKind::WordBoundaryStart
            | AssertionKind::WordBoundaryEnd
            | AssertionKind::WordBoundaryStartHalf
            | AssertionKind::WordBoundaryEndHalf => return unsupported(r"\b{…}"),
        };
        if text.len() > 1 {
            self.bounds.extend(ranges_of(&word()).flat_map(|(start, end)| [start, end]));
        }
        self.text.push_str(text);
        Ok(ASSERTION)
    }

    /// Whether a repetition is greedy or lazy makes no difference to whether a text matches.
    fn repetition(&mut self, repetition: &Repetition) -> Result<Size> {
        if matches!(*repetition.ast, Ast::Repetition(_)) {
            // To PCRE, some of these are possessive.
            return unsupported("a repetition of a repetition without a group");
        }
        let (min, max) = match &repetition.op.kind {
            RepetitionKind::ZeroOrOne => (0, Some(1)),
            RepetitionKind::ZeroOrMore => (0, None),
            RepetitionKind::OneOrMore => (1, None),
            RepetitionKind::Range(RepetitionRange::Exactly(count)) => (*count, Some(*count)),
            RepetitionKind::Range(RepetitionRange::AtLeast(min)) => (*min, None),
            RepetitionKind::Range(RepetitionRange::Bounded(min, max)) => (*min, Some(*max)),
        };
        let written_out = max.unwrap_or(min).max(1);
        if written_out > REPETITION_LIMIT {
            return Err(PatternError::TooComplex("a repetition of more than 255 times"));
        }
        let size = self.group(&repetition.ast)?;
        match (min, max) {
            (0, Some(1)) => self.text.push('?'),
            (0, None) => self.text.push('*'),
            (1, None) => self.text.push('+'),
            (min, None) => self.push(format_args!("{{{min},}}")),
            (min, Some(max)) => self.push(format_args!("{{{min},{max}}}")),
        }
        if size.assertions > 0 && max != Some(1) {
            return unsupported("an anchor or word boundary in a repetition");
        }
        let size = size.times(written_out);
        Ok(if min == 0 || max.is_none() { size.and(OPTIONAL) } else { size })
    }

    /// Writes a class of characters.
    fn class(&mut self, class: &ClassUnicode) -> Size {
        for (start, end) in ranges_of(class) {
            self.bounds.extend([start, end + 1]);
        }
        let is_negated = class.ranges().last().is_some_and(|range| range.end() == char::MAX);
        let mut listed = class.clone();
        if is_negated {
            listed.negate();
        }
        let mut ranges = listed.ranges().iter();
        match (ranges.next(), ranges.next()) {
            // Any character.
            (None, _) if is_negated => self.text.push('.'),
            // No character.
            (None, _) => self.text.push_str(r"[^\U00000000-\U0010FFFF]"),
            (Some(range), None) if !is_negated && range.start() == range.end() => {
                self.character(range.start());
            }
            _ => {
                self.text.push_str(if is_negated { "[^" } else { "[" });
                for range in listed.ranges() {
                    self.character(range.start());
                    if range.start() != range.end() {
                        self.text.push('-');
                        self.character(range.end());
                    }
                }
                self.text.push(']');
            }
        }
        // A case-insensitive letter has up to four forms.
        let characters = ranges_of(class).map(|(start, end)| u64::from(end - start) + 1).sum();
        match characters {
            0..=4u64 => Size {
                characters: usize::try_from(characters).unwrap_or_default(),
                ..Size::default()
            },
            _ => Size { classes: 1, ..Size::default() },
        }
    }

    /// Writes a character. Everything but letters, digits and the underscore is written as its
    /// number, so nothing has a special meaning, inside or outside of brackets.
    fn character(&mut self, character: char) {
        if character.is_ascii_alphanumeric() || character == '_' {
            self.text.push(character);
        } else {
            self.push(format_args!("\\U{:08X}", u32::from(character)));
        }
    }

    fn push(&mut self, text: std::fmt::Arguments<'_>) {
        // Writing to a string does not fail.
        let _ = self.text.write_fmt(text);
    }
}

#[cfg(test)]
mod tests;
