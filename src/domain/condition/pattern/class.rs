//! Characters and classes of characters in regular expressions.

use regex_syntax::ast::{
    ClassAscii, ClassAsciiKind, ClassBracketed, ClassPerl, ClassPerlKind, ClassSet, ClassSetItem,
    HexLiteralKind, Literal, LiteralKind, SpecialLiteralKind,
};
use regex_syntax::hir::{ClassUnicode, ClassUnicodeRange};

use super::{Result, unsupported};

/// The first and last characters of its ranges.
pub(super) fn ranges_of(class: &ClassUnicode) -> impl Iterator<Item = (u32, u32)> {
    class.ranges().iter().map(|range| (u32::from(range.start()), u32::from(range.end())))
}

/// The class of one character.
pub(super) fn single(character: char) -> ClassUnicode {
    ClassUnicode::new([ClassUnicodeRange::new(character, character)])
}

/// Adds the other cases of all letters.
pub(super) fn fold(class: &mut ClassUnicode) {
    // Fails only without the tables of Unicode, which the program has.
    let _ = class.try_case_fold_simple();
}

/// The character that a literal stands for.
pub(super) fn character(literal: &Literal) -> Result<char> {
    match &literal.kind {
        LiteralKind::HexFixed(HexLiteralKind::X) | LiteralKind::HexBrace(HexLiteralKind::X) => {
            Ok(literal.c)
        }
        LiteralKind::HexFixed(_) | LiteralKind::HexBrace(_) => unsupported(r"\u"),
        LiteralKind::Octal => unsupported("an octal escape"),
        // To PCRE, this is a class.
        LiteralKind::Special(SpecialLiteralKind::VerticalTab) => unsupported(r"\v"),
        LiteralKind::Verbatim
        | LiteralKind::Meta
        | LiteralKind::Superfluous
        | LiteralKind::Special(_) => Ok(literal.c),
    }
}

/// The ASCII characters for which `is_member` is true.
fn ascii(is_member: fn(&u8) -> bool) -> ClassUnicode {
    let members = (0..=127u8).filter(is_member).map(char::from);
    ClassUnicode::new(members.map(|member| ClassUnicodeRange::new(member, member)))
}

const IS_WORD: fn(&u8) -> bool = |byte| byte.is_ascii_alphanumeric() || *byte == b'_';

const IS_SPACE: fn(&u8) -> bool = |byte| byte.is_ascii_whitespace() || *byte == b'\x0b';

/// The characters of `\w`.
pub(super) fn word() -> ClassUnicode {
    ascii(IS_WORD)
}

/// The characters of `\d`, `\s`, `\w` or a negation.
pub(super) fn perl_class(class: &ClassPerl) -> ClassUnicode {
    let mut members = ascii(match class.kind {
        ClassPerlKind::Digit => u8::is_ascii_digit,
        ClassPerlKind::Space => IS_SPACE,
        ClassPerlKind::Word => IS_WORD,
    });
    if class.negated {
        members.negate();
    }
    members
}

fn ascii_class(class: &ClassAscii, is_case_insensitive: bool) -> ClassUnicode {
    let mut members = ascii(match class.kind {
        ClassAsciiKind::Lower | ClassAsciiKind::Upper if is_case_insensitive => {
            u8::is_ascii_alphabetic
        }
        ClassAsciiKind::Alnum => u8::is_ascii_alphanumeric,
        ClassAsciiKind::Alpha => u8::is_ascii_alphabetic,
        ClassAsciiKind::Ascii => u8::is_ascii,
        ClassAsciiKind::Blank => |byte| b" \t".contains(byte),
        ClassAsciiKind::Cntrl => u8::is_ascii_control,
        ClassAsciiKind::Digit => u8::is_ascii_digit,
        ClassAsciiKind::Graph => u8::is_ascii_graphic,
        ClassAsciiKind::Lower => u8::is_ascii_lowercase,
        ClassAsciiKind::Print => |byte| byte.is_ascii_graphic() || *byte == b' ',
        ClassAsciiKind::Punct => u8::is_ascii_punctuation,
        ClassAsciiKind::Space => IS_SPACE,
        ClassAsciiKind::Upper => u8::is_ascii_uppercase,
        ClassAsciiKind::Word => IS_WORD,
        ClassAsciiKind::Xdigit => u8::is_ascii_hexdigit,
    });
    if class.negated {
        members.negate();
    }
    members
}

/// The characters of a class in brackets.
pub(super) fn bracketed_class(
    class: &ClassBracketed, is_case_insensitive: bool,
) -> Result<ClassUnicode> {
    let mut members = ClassUnicode::empty();
    match &class.kind {
        ClassSet::Item(item) => add_members(&mut members, item, is_case_insensitive)?,
        ClassSet::BinaryOp(_) => return unsupported("an operation on classes"),
    }
    if class.negated {
        members.negate();
    }
    Ok(members)
}

fn add_members(
    members: &mut ClassUnicode, item: &ClassSetItem, is_case_insensitive: bool,
) -> Result<()> {
    let mut added = match item {
        ClassSetItem::Empty(_) => ClassUnicode::empty(),
        ClassSetItem::Literal(literal) => single(character(literal)?),
        ClassSetItem::Range(range) => {
            let range = ClassUnicodeRange::new(character(&range.start)?, character(&range.end)?);
            ClassUnicode::new([range])
        }
        ClassSetItem::Ascii(class) => ascii_class(class, is_case_insensitive),
        ClassSetItem::Perl(class) => perl_class(class),
        ClassSetItem::Unicode(_) => return unsupported(r"\p"),
        ClassSetItem::Bracketed(_) => return unsupported("a class in a class"),
        ClassSetItem::Union(union) => {
            return union
                .items
                .iter()
                .try_for_each(|item| add_members(members, item, is_case_insensitive));
        }
    };
    let is_listed = matches!(item, ClassSetItem::Literal(_) | ClassSetItem::Range(_));
    if is_listed && is_case_insensitive {
        fold(&mut added);
    }
    members.union(&added);
    Ok(())
}
