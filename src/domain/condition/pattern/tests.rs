//! How patterns are translated, and which are refused.

use super::*;

fn translated(pattern: &str) -> String {
    Pattern::parse(pattern, false).unwrap().0
}

fn refusal(pattern: &str) -> String {
    Pattern::parse(pattern, false).unwrap_err().to_string()
}

#[test]
fn everything_but_letters_digits_and_underscores_is_written_as_a_number() {
    assert_eq!(translated("a_0"), "a_0");
    assert_eq!(translated(r"\*=a\.\<"), r"\U0000002A\U0000003Da\U0000002E\U0000003C");
}

#[test]
fn what_is_not_supported_is_refused_by_name() {
    for (pattern, what) in [
        (r"\p{L}", r"\p"),
        (r"[\p{L}]", r"\p"),
        (r"\v", r"\v"),
        (r"\u0041", r"\u"),
        (r"\b{start}", r"\b{…}"),
        ("a(?i)b", "flags in the middle"),
        ("(?s)a", "flags in the middle"),
        ("(?i:a)", "flags in a group"),
        ("[a[b]]", "a class in a class"),
        ("[[:nope:]]", "a class in a class"),
        ("[a&&b]", "an operation on classes"),
        ("a*+", "a repetition of a repetition without a group"),
        ("(a|^b)*", "an anchor or word boundary in a repetition"),
    ] {
        let text = format!("the pattern has {what}, which is not supported");
        assert_eq!(refusal(pattern), text, "{pattern}");
    }
}

#[test]
fn what_is_no_pattern_is_refused_without_its_text() {
    for (pattern, why) in [
        ("(secret", "unclosed group"),
        ("secret)", "unopened group"),
        ("[secret", "unclosed character class"),
        ("*", "repetition operator missing expression"),
        ("a{2,1}", "invalid repetition count range, the start must be <= the end"),
        (r"\1", "backreferences are not supported"),
        (r"\Z", "unrecognized escape sequence"),
        ("(?<!secret)", "look-around, including look-ahead and look-behind, is not supported"),
    ] {
        assert_eq!(refusal(pattern), format!("the pattern is invalid: {why}"), "{pattern}");
    }
    assert!(refusal(&"(".repeat(1_000)).starts_with("the pattern is invalid: "));
}

#[test]
fn what_postgresql_could_not_compile_in_time_is_refused() {
    let repetitions = "the pattern is too complex: too many repetitions or optional parts";
    assert_eq!(refusal("(?:(?:a{255}){255}){255}"), repetitions);
    assert_eq!(refusal(&"a?".repeat(400)), repetitions);
    assert_eq!(
        refusal("a{256}"),
        "the pattern is too complex: a repetition of more than 255 times"
    );
    let anchors = "the pattern is too complex: too many anchors and word boundaries";
    assert_eq!(refusal(&"(?:^|a)".repeat(9)), anchors);
    assert_eq!(refusal(&"é".repeat(1_001)), "a pattern of more than 1000 characters");
    for fine in [&"é".repeat(1_000), "^a.{0,255}b$", &"^ab$|".repeat(200), "(?:a|b){20}"] {
        Pattern::parse(fine, true).unwrap();
    }
}
