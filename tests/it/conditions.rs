//! Conditions: parsed, translated to SQL and compared with a plain evaluation.

use std::cmp::Ordering;

use cmdb_associations::db::condition::push;
use cmdb_associations::domain::condition::pattern::Pattern;
use cmdb_associations::domain::condition::{
    Condition, ModelAssociationField as F, Test, mongo, query_filter,
};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use regex::Regex;
use serde_json::{Map, Value, json};
use sqlx::{PgPool, Postgres, QueryBuilder, Row};

/// Three columns stand for the fields of each type.
fn column(field: F) -> &'static str {
    match field {
        F::Id => "id",
        F::IsPredefined => "is_predefined",
        _ => "model",
    }
}

/// A row as MongoDB has it. `x` and `y` are missing.
fn rows() -> Vec<Value> {
    let models = ["", "a", "A", "ab", "aé", "b", "a\nb", "~", "机"];
    let ids = [i64::MIN, -1, 0, 1, 2, 5, 6, i64::MAX];
    let predefined = [Value::Null, json!(true), json!(false)];
    let row = |number: usize| {
        json!({
            "id": ids[number % ids.len()],
            "bk_obj_id": models[number % models.len()],
            "ispre": predefined[number % predefined.len()],
        })
    };
    (0..72).map(row).collect()
}

async fn create_rows(pool: &PgPool) {
    // The collation of the text is not "C", as of the names of model associations.
    sqlx::raw_sql(
        r#"create table public.sample (
               number integer, id bigint, model text collate "und-x-icu", is_predefined boolean)"#,
    )
    .execute(pool)
    .await
    .unwrap();
    for (number, row) in rows().iter().enumerate() {
        sqlx::query("insert into public.sample values ($1, $2, $3, $4)")
            .bind(i32::try_from(number).unwrap())
            .bind(row["id"].as_i64())
            .bind(row["bk_obj_id"].as_str())
            .bind(row["ispre"].as_bool())
            .execute(pool)
            .await
            .unwrap();
    }
}

async fn selected(pool: &PgPool, condition: &Condition<F>) -> Vec<usize> {
    let mut builder = QueryBuilder::<Postgres>::new("select number from public.sample where ");
    push(&mut builder, condition, &column);
    builder.push(" order by number");
    let rows = builder.build().fetch_all(pool).await.unwrap();
    rows.iter().map(|row| usize::try_from(row.get::<i32, _>(0)).unwrap()).collect()
}

/// Whether MongoDB takes the stored value and another for equal.
fn is_equal(stored: Option<&Value>, value: &Value) -> bool {
    match (stored, value) {
        (None, value) => value.is_null(),
        (Some(Value::Number(a)), Value::Number(b)) => {
            order_of_numbers(a, b) == Some(Ordering::Equal)
        }
        (Some(stored), value) => stored == value,
    }
}

/// Compares an integer with a number exactly.
#[expect(clippy::cast_precision_loss, reason = "the other number is small or beyond 64 bits")]
fn order_of_numbers(a: &serde_json::Number, b: &serde_json::Number) -> Option<Ordering> {
    let integer = a.as_i64().unwrap();
    match b.as_i64() {
        Some(b) => Some(integer.cmp(&b)),
        None => (integer as f64).partial_cmp(&b.as_f64().unwrap()),
    }
}

/// How the stored value compares with another; none if their types differ.
fn order(stored: Option<&Value>, value: &Value) -> Option<Ordering> {
    match (stored, value) {
        (None | Some(Value::Null), Value::Null) => Some(Ordering::Equal),
        (Some(Value::Number(a)), Value::Number(b)) => order_of_numbers(a, b),
        (Some(Value::String(a)), Value::String(b)) => Some(a.as_bytes().cmp(b.as_bytes())),
        (Some(Value::Bool(a)), Value::Bool(b)) => Some(a.cmp(b)),
        _ => None,
    }
}

/// Whether MongoDB finds the row.
fn evaluate(row: &Value, condition: &Map<String, Value>) -> bool {
    let each = |list: &Value| -> Vec<bool> {
        let documents = list.as_array().unwrap().iter();
        documents.map(|document| evaluate(row, document.as_object().unwrap())).collect()
    };
    condition.iter().all(|(key, value)| match key.as_str() {
        "$and" => each(value).into_iter().all(|found| found),
        "$or" => each(value).into_iter().any(|found| found),
        "$nor" => !each(value).into_iter().any(|found| found),
        name => {
            let stored = row.get(name);
            match value.as_object() {
                Some(operators) => satisfies(stored, operators),
                None => is_equal(stored, value),
            }
        }
    })
}

fn satisfies(stored: Option<&Value>, operators: &Map<String, Value>) -> bool {
    operators.iter().all(|(operator, value)| {
        let is_one_of = || value.as_array().unwrap().iter().any(|value| is_equal(stored, value));
        match operator.as_str() {
            "$eq" => is_equal(stored, value),
            "$ne" => !is_equal(stored, value),
            "$gt" => order(stored, value) == Some(Ordering::Greater),
            "$gte" => order(stored, value).is_some_and(Ordering::is_ge),
            "$lt" => order(stored, value) == Some(Ordering::Less),
            "$lte" => order(stored, value).is_some_and(Ordering::is_le),
            "$in" => is_one_of(),
            "$nin" => !is_one_of(),
            "$exists" => stored.is_some() == value.as_bool().unwrap(),
            "$regex" => {
                let options = operators.get("$options").map_or("", |value| value.as_str().unwrap());
                let flags =
                    if options.is_empty() { String::new() } else { format!("(?{options})") };
                let regex = Regex::new(&format!("{flags}{}", value.as_str().unwrap())).unwrap();
                stored.and_then(Value::as_str).is_some_and(|text| regex.is_match(text))
            }
            "$options" => true,
            "$not" => !satisfies(stored, value.as_object().unwrap()),
            other => panic!("{other}"),
        }
    })
}

/// A value to compare the field with, mostly of its type.
fn value(name: &str) -> BoxedStrategy<Value> {
    let numbers = [json!(0), json!(1), json!(5), json!(5.0), json!(5.5), json!(-0.5)]
        .into_iter()
        .chain([json!(i64::MAX), json!(i64::MIN), json!(1e300), json!(-1e300), json!(u64::MAX)]);
    let texts = ["", "a", "A", "ab", "5", "机"].map(Value::from);
    let others = [Value::Null, json!(true), json!(false), json!(["a"]), json!([])];
    let of_type: Vec<_> = match name {
        "id" => numbers.clone().collect(),
        "bk_obj_id" => texts.to_vec(),
        _ => others.to_vec(),
    };
    let all: Vec<_> = numbers.chain(texts).chain(others).collect();
    prop_oneof![4 => prop::sample::select(of_type), 1 => prop::sample::select(all)].boxed()
}

fn operators(name: &str) -> impl Strategy<Value = Value> + use<> {
    let operator = prop::sample::select(vec!["$eq", "$ne", "$gt", "$gte", "$lt", "$lte"]);
    let compared = (operator, value(name)).prop_map(|(operator, value)| json!({operator: value}));
    let listed = (any::<bool>(), prop::collection::vec(value(name), 0..4))
        .prop_map(|(is_in, values)| json!({if is_in { "$in" } else { "$nin" }: values}));
    let exists = any::<bool>().prop_map(|exists| json!({"$exists": exists}));
    let pattern = prop::sample::select(vec!["a", "^a.", "^$", "[^a]", "B|é"]);
    let pattern = (pattern, prop::sample::select(vec!["", "i"]))
        .prop_map(|(pattern, options)| json!({"$regex": pattern, "$options": options}));
    let weight = if name == "bk_obj_id" { 4 } else { 1 };
    let one = prop_oneof![6 => compared, 3 => listed, 1 => exists, weight => pattern];
    (prop::collection::vec(one, 1..3), any::<bool>()).prop_map(|(parts, is_negated)| {
        let members = parts.iter().flat_map(|part| part.as_object().unwrap().clone());
        let operators: Map<_, _> = members.collect();
        if is_negated { json!({"$not": operators}) } else { operators.into() }
    })
}

fn condition() -> impl Strategy<Value = Value> {
    let names = vec!["id", "id", "bk_obj_id", "bk_obj_id", "ispre", "ispre", "x"];
    let field = prop::sample::select(names).prop_flat_map(|name| {
        let value = prop_oneof![1 => value(name), 3 => operators(name)];
        value.prop_map(move |value| (name.to_owned(), value))
    });
    let document = prop::collection::vec(field, 1..3)
        .prop_map(|fields| fields.into_iter().collect::<Map<_, _>>().into());
    document.prop_recursive(3, 12, 3, |inner: BoxedStrategy<Value>| {
        let logical = prop::sample::select(vec!["$and", "$or", "$or", "$nor"]);
        (inner.clone(), logical, prop::collection::vec(inner, 1..4)).prop_map(
            |(mut document, logical, parts)| {
                document[logical] = parts.into();
                document
            },
        )
    })
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn sql_finds_the_rows_that_mongodb_finds(pool: PgPool) {
    create_rows(&pool).await;
    let (rows, strategy) = (rows(), condition());
    let mut runner = TestRunner::deterministic();
    let mut sizes = [0; 3];
    for number in 0..800 {
        let condition = strategy.new_tree(&mut runner).unwrap().current();
        // Most conditions find few rows, so every other one is negated.
        let condition = if number % 2 == 0 { condition } else { json!({"$nor": [condition]}) };
        let parsed = mongo::parse::<F>("condition", &condition.to_string())
            .unwrap_or_else(|error| panic!("{condition}: {error}"));
        let document = condition.as_object().unwrap();
        let expected: Vec<_> =
            (0..rows.len()).filter(|number| evaluate(&rows[*number], document)).collect();
        assert_eq!(selected(&pool, &parsed).await, expected, "{condition}");
        let size = usize::from(!expected.is_empty()) + usize::from(expected.len() == rows.len());
        sizes[size] += 1;
    }
    // The conditions find no row, some rows and all rows, each often enough to prove something.
    assert!(sizes.iter().all(|count| *count > 20), "{sizes:?}");
}

/// Whether a row is expected.
type Expected<'a> = &'a dyn Fn(&Value) -> bool;

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_query_filter_finds_the_rows_of_its_rules(pool: PgPool) {
    create_rows(&pool).await;
    let rows = rows();
    let text = |row: &Value| row["bk_obj_id"].as_str().unwrap().to_owned();
    let filters: [(Value, Expected<'_>); 8] = [
        (json!(["bk_obj_id", "begins_with", "a"]), &|row| text(row).starts_with('a')),
        (json!(["bk_obj_id", "contains", "B"]), &|row| text(row).contains('b')),
        (json!(["bk_obj_id", "not_contains", "B"]), &|_| true),
        (json!(["bk_obj_id", "not_ends_with", "b"]), &|row| !text(row).ends_with('b')),
        (json!(["id", "greater", 0.5]), &|row| row["id"].as_i64().unwrap() >= 1),
        (json!(["id", "not_in", [1, 2]]), &|row| ![json!(1), json!(2)].contains(&row["id"])),
        (json!(["ispre", "is_null"]), &|row| row["ispre"].is_null()),
        (json!(["ispre", "not_equal", true]), &|row| row["ispre"] != json!(true)),
    ];
    for (rule, is_expected) in filters {
        let rule = json!({"field": rule[0], "operator": rule[1], "value": rule[2]});
        let filter = json!({"condition": "AND", "rules": [rule]});
        let condition =
            query_filter::parse(query_filter::Dialect::Links, "conditions", &filter.to_string())
                .unwrap();
        let expected: Vec<_> = (0..rows.len()).filter(|n| is_expected(&rows[*n])).collect();
        assert_eq!(selected(&pool, &condition).await, expected, "{filter}");
    }
}

/// A pattern, and what the crate `regex` calls the same: there, `\w` knows all of Unicode.
type Equivalent = (String, String);

fn pattern() -> impl Strategy<Value = Equivalent> {
    let same = prop::sample::select(vec![
        "a", "B", "k", "é", "ſ", "机", ".", "[a-c]", "[^ab]", r"\.", r"\*", r"\\", "[k-m.]", "",
        "_", r"[\]\-^]", "-", "'", r"\x41", r"\n", "#", " ", r"[^\n]",
    ])
    .prop_map(|atom| (atom.to_owned(), atom.to_owned()));
    let ascii = prop::sample::select(vec![
        (r"\d", "(?-i:[0-9])"),
        (r"\D", "(?-i:[^0-9])"),
        (r"\w", "(?-i:[0-9A-Z_a-z])"),
        (r"\W", "(?-i:[^0-9A-Z_a-z])"),
        (r"\s", r"(?-i:[\t\n\v\f\r ])"),
        (r"[\w.]", "(?-i:[0-9A-Z_a-z.])"),
        (r"[^\s\d]", r"(?-i:[^\t\n\v\f\r 0-9])"),
        ("[[:alpha:]]", "(?-i:[A-Za-z])"),
        ("[[:^punct:]]", "(?-i:[[:^punct:]])"),
        (r"\<", "<"),
        (r"\b", r"(?-u:\b)"),
        (r"\A", r"\A"),
        ("^", "^"),
        (r"\z", r"\z"),
        ("$", r"(?:\z)"),
    ])
    .prop_map(|(pattern, equivalent)| (pattern.to_owned(), equivalent.to_owned()));
    prop_oneof![3 => same, 2 => ascii].prop_recursive(
        4,
        16,
        3,
        |inner: BoxedStrategy<Equivalent>| {
            let join = |separator: &'static str, start: &'static str, end: &'static str| {
                move |parts: Vec<Equivalent>| {
                    let (patterns, twins): (Vec<_>, Vec<_>) = parts.into_iter().unzip();
                    let join =
                        |parts: Vec<String>| format!("{start}{}{end}", parts.join(separator));
                    (join(patterns), join(twins))
                }
            };
            let parts = || prop::collection::vec(inner.clone(), 1..4);
            let repetition =
                prop::sample::select(vec!["*", "+", "?", "{2}", "{0}", "{1,3}", "{2,}", "*?"]);
            prop_oneof![
                parts().prop_map(join("", "", "")),
                parts().prop_map(join("|", "(", ")")),
                (inner.clone(), repetition).prop_map(|((pattern, equivalent), repetition)| {
                    (format!("(?:{pattern}){repetition}"), format!("(?:{equivalent}){repetition}"))
                }),
            ]
        },
    )
}

const TEXTS: [&str; 24] = [
    "", "a", "A", "ab", "ba", "abc", "k", "K", "\u{212a}", "s", "ſ", "é", "É", "机a", "a.b", "a*b",
    "a b", "a\tb", "a-b", "a_b9", "\\", "<a>", "]", "a'#b",
];

async fn texts_that_match(pool: &PgPool, pattern: &Pattern) -> Vec<String> {
    let condition = Condition::Test(F::Name, Test::TextMatches(pattern.clone()));
    let mut builder = QueryBuilder::<Postgres>::new("select name from unnest(");
    builder.push_bind(TEXTS.map(str::to_owned).as_slice());
    builder.push(") with ordinality sample (name, number) where ");
    push(&mut builder, &condition, &|_| "name");
    builder.push(" order by number");
    builder.build_query_scalar().fetch_all(pool).await.unwrap()
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_pattern_matches_the_texts_that_the_crate_regex_finds(pool: PgPool) {
    let strategy = (pattern(), any::<bool>());
    let mut runner = TestRunner::deterministic();
    let mut compared = 0;
    for _ in 0..1_000 {
        let ((pattern, equivalent), is_case_insensitive) =
            strategy.new_tree(&mut runner).unwrap().current();
        let Ok(parsed) = Pattern::parse(&pattern, is_case_insensitive) else { continue };
        let flags = if is_case_insensitive { "(?i)" } else { "" };
        let equivalent = Regex::new(&format!("{flags}{equivalent}")).unwrap();
        let expected: Vec<_> = TEXTS.into_iter().filter(|text| equivalent.is_match(text)).collect();
        let found = texts_that_match(&pool, &parsed).await;
        assert_eq!(found, expected, "{pattern} {is_case_insensitive} {}", parsed.as_postgres());
        compared += 1;
    }
    assert!(compared > 700, "{compared} patterns are accepted");
}

/// Patterns that take an automaton long to build or to run.
fn hostile_pattern() -> impl Strategy<Value = String> {
    let atom = prop::sample::select(vec![
        "a", "b?", "[^a]", ".", "\\w*", "^", "$", "\\b", "\\B", "a|b", "|", "a*", "[a-m]?", "机",
        "(?:)*",
    ]);
    let base =
        prop::collection::vec(atom.prop_map(str::to_owned), 1..4).prop_map(|atoms| atoms.concat());
    base.prop_recursive(4, 16, 2, |inner: BoxedStrategy<String>| {
        let repetition =
            prop::sample::select(vec!["", "*", "+", "?", "{9}", "{0,30}", "{255}", "{2,}"]);
        let separator = prop::sample::select(vec!["", "", "|"]);
        let times = prop_oneof![1..4_usize, 1..200_usize];
        (prop::collection::vec(inner, 1..3), times, separator, repetition).prop_map(
            |(parts, times, separator, repetition)| {
                let parts = parts.join(separator);
                // A longer pattern is refused at once.
                let times = times.min(900 / (parts.len() + 1)).max(1);
                let parts = vec![parts; times].join(separator);
                format!("(?:{parts}){repetition}")
            },
        )
    })
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn no_accepted_pattern_makes_postgresql_fail_or_exceed_five_seconds(pool: PgPool) {
    let mut conn = pool.acquire().await.unwrap();
    sqlx::raw_sql("set statement_timeout = '5s'").execute(&mut *conn).await.unwrap();
    let strategy = (hostile_pattern(), any::<bool>());
    let mut runner = TestRunner::deterministic();
    let text = "ab".repeat(256);
    let (mut accepted, mut refused) = (0, 0);
    for _ in 0..3_000 {
        let (pattern, is_case_insensitive) = strategy.new_tree(&mut runner).unwrap().current();
        let Ok(parsed) = Pattern::parse(&pattern, is_case_insensitive) else {
            refused += 1;
            continue;
        };
        accepted += 1;
        sqlx::query("select $1 ~ $2")
            .bind(&text)
            .bind(parsed.as_postgres())
            .execute(&mut *conn)
            .await
            .unwrap_or_else(|error| panic!("{error}: {pattern}"));
    }
    assert!(accepted > 200 && refused > 200, "{accepted} accepted, {refused} refused");
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn assertions_are_those_of_pcre(pool: PgPool) {
    for (pattern, text, is_match) in [
        ("a$", "a\n", true),
        ("a$", "a\n\n", false),
        ("a$", "a\nb", false),
        ("a$\n", "a\n", true),
        (r"a\z", "a\n", false),
        ("^b", "a\nb", false),
        (r"\Bb", "ab", true),
        (r"\Bb", "éb", false),
        (r"\B", "", true),
        (r"\b", "é", false),
        (r"(?i)\b", "ſ", false),
        (r"(?i)\w", "ſ", false),
        ("(?i)s", "ſ", true),
        ("(?i)[^k]", "K", false),
    ] {
        let pattern = Pattern::parse(pattern, false).unwrap();
        let matched: bool = sqlx::query_scalar(r#"select $1 collate "C" ~ $2"#)
            .bind(text)
            .bind(pattern.as_postgres())
            .fetch_one(&pool)
            .await
            .unwrap();
        assert_eq!(matched, is_match, "{pattern:?} {text:?}");
    }
}
