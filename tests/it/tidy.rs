//! Rules for the repository itself: layers, sizes of files and lines, documents, migrations.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use clap::Command;
use cmdb_associations::cli::Cli;
use cmdb_associations::config::ENVIRONMENT_ONLY;
use cmdb_associations::http::Api;
use cmdb_associations::http::endpoints::{ENDPOINTS, EndpointEntry};

const CONFIGURATION: &str = "docs/configuration.md";

/// The files below `folder` whose names end with `ending`.
pub(crate) fn files(folder: &str, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::from(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.to_string_lossy().ends_with(ending) {
                found.push(path);
            }
        }
    }
    found.sort();
    assert!(!found.is_empty());
    found
}

fn rust_files() -> impl Iterator<Item = PathBuf> {
    let folders = ["src", "tests", "fuzz", "benches"].into_iter();
    let found = folders.flat_map(|folder| files(folder, ".rs"));
    found.filter(|path| !path.starts_with("fuzz/target"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = path.as_ref();
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Each layer, and the layers that it may import.
const LAYERS: [(&str, &[&str]); 9] = [
    ("domain", &["domain"]),
    ("db", &["db", "domain"]),
    ("service", &["service", "db", "domain"]),
    ("http", &["http", "service", "domain", "telemetry"]),
    ("client", &["client", "domain"]),
    ("config", &["db", "domain"]),
    ("telemetry", &["config", "domain"]),
    ("server", &["config", "http", "telemetry"]),
    ("cli", &["client", "config", "domain", "http", "server", "service", "telemetry"]),
];

#[test]
fn a_layer_imports_only_the_layers_below_it() {
    for path in files("src", ".rs") {
        let module = path.strip_prefix("src").unwrap().with_extension("");
        let layer = module.components().next().unwrap().as_os_str().to_string_lossy().into_owned();
        if layer == "main" || layer == "lib" {
            continue;
        }
        let (_, allowed) = LAYERS
            .iter()
            .find(|(name, _)| *name == layer)
            .unwrap_or_else(|| panic!("{layer} is a new layer: add what it may import"));
        let text = read(&path);
        for (number, line) in text.lines().enumerate() {
            let mut imports = Vec::new();
            for import in line.split("crate::").skip(1) {
                match import.strip_prefix('{') {
                    Some(list) => imports.extend(
                        list.split('}').next().unwrap_or_default().split(',').map(str::trim),
                    ),
                    None => imports.push(import),
                }
            }
            for import in imports {
                let name = import.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap();
                assert!(
                    allowed.contains(&name),
                    "{}:{}: {layer} imports {name}",
                    path.display(),
                    number + 1
                );
            }
        }
    }
}

#[test]
fn every_rust_file_begins_with_a_doc_comment_and_sources_have_at_most_400_lines() {
    for path in rust_files() {
        let text = read(&path);
        assert!(text.starts_with("//! "), "{} has no doc comment", path.display());
        if path.starts_with("src") {
            assert!(text.lines().count() <= 400, "{} is longer than 400 lines", path.display());
        }
    }
}

/// How many columns of a line count. In Rust code, the text between the first and the last
/// quotation mark of the line does not count, so that the texts of the contract can be searched
/// for. In Markdown, URLs do not count.
fn columns(path: &Path, line: &str) -> usize {
    let length = line.chars().count();
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("rs") if !line.trim_start().starts_with("//") => {
            let quoted = line.split_once('"').and_then(|(_, rest)| rest.rsplit_once('"'));
            length - quoted.map_or(0, |(text, _)| text.chars().count())
        }
        Some("md") => {
            let urls = line.split_whitespace().filter(|word| word.contains("://"));
            length - urls.map(|url| url.chars().count()).sum::<usize>()
        }
        _ => length,
    }
}

/// Tables and fenced blocks of Markdown are excepted.
#[test]
fn no_line_is_longer_than_100_columns() {
    let markdown = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"].map(PathBuf::from);
    let paths = rust_files()
        .chain(["src", "tests", "migrations"].into_iter().flat_map(|folder| files(folder, ".sql")))
        .chain([".dev", ".ci"].into_iter().flat_map(|folder| files(folder, "")))
        .chain(markdown)
        .chain(files("docs", ".md"));
    let mut long = String::new();
    for path in paths {
        let is_markdown = path.extension().is_some_and(|extension| extension == "md");
        let mut is_fenced = false;
        for (number, line) in read(&path).lines().enumerate() {
            is_fenced ^= is_markdown && line.trim_start().starts_with("```");
            let is_excepted = is_markdown && (is_fenced || line.trim_start().starts_with('|'));
            if !is_excepted && columns(&path, line) > 100 {
                writeln!(long, "{}:{}", path.display(), number + 1).unwrap();
            }
        }
    }
    assert!(long.is_empty(), "longer than 100 columns:\n{long}");
}

#[test]
fn the_readme_and_the_contributing_guide_stay_short() {
    for (path, limit) in [("README.md", 150), ("CONTRIBUTING.md", 60)] {
        let lines = read(path).lines().count();
        assert!(lines <= limit, "{path} has {lines} lines, more than {limit}");
    }
}

/// Cargo looks for the files of targets without a path before it builds anything, and the
/// Dockerfile copies only `src`.
#[test]
fn every_test_and_bench_target_of_the_manifest_has_a_path() {
    let manifest = read("Cargo.toml");
    let targets: Vec<_> = manifest.split("\n[[").skip(1).collect();
    assert!(targets.len() >= 3);
    for target in targets {
        assert!(target.split("\n[").next().unwrap().contains("\npath = "), "[[{target}");
    }
}

#[test]
fn every_table_has_a_comment_and_every_constraint_a_name() {
    for path in files("migrations", ".sql") {
        let text = read(&path);
        for line in text.lines().filter(|line| line.starts_with("create table ")) {
            let table = line.split_whitespace().nth(2).unwrap();
            let comment = format!("comment on table {table} is");
            assert!(text.contains(&comment), "{}: {table} has no comment", path.display());
        }
        for keyword in ["primary key", "foreign key", " unique (", " check ("] {
            for line in text.lines().filter(|line| line.contains(keyword) && !line.contains('\'')) {
                let is_named =
                    line.contains("constraint ") || line.trim_start().starts_with("foreign key");
                assert!(is_named, "{}: a constraint without a name: {line}", path.display());
            }
        }
    }
}

/// Every command, flag and environment variable of `command`, as the configuration page writes it.
fn settings(command: &Command, path: &str, found: &mut Vec<String>) {
    for arg in
        command.get_arguments().filter(|arg| !["help", "version"].contains(&arg.get_id().as_str()))
    {
        found.extend(arg.get_long().map(|long| format!("--{long}")));
        found.extend(arg.get_env().map(|name| format!("`{}`", name.to_string_lossy())));
    }
    for command in command.get_subcommands().filter(|command| command.get_name() != "help") {
        let path = format!("{path}{}", command.get_name());
        if !command.has_subcommands() {
            found.push(format!("`{path}"));
        }
        settings(command, &format!("{path} "), found);
    }
}

/// The table of settings, with the texts of `--help`.
fn settings_table() -> String {
    let mut table = String::from("| Environment | Flag | Default | Meaning |\n|---|---|---|---|\n");
    let mut row = |environment: &str, flag: &str, default: &str, meaning: &str| {
        let cell = |text: &str| if text.is_empty() { " |".into() } else { format!(" `{text}` |") };
        let cells = [environment, flag, default].map(cell).concat();
        writeln!(table, "|{cells} {meaning} |").unwrap();
    };
    for (name, meaning) in ENVIRONMENT_ONLY {
        row(name, "", "", meaning);
    }
    let program = Cli::settings();
    let serve = program.find_subcommand("serve").unwrap();
    for arg in serve.get_arguments().chain(program.get_arguments()) {
        let Some(name) = arg.get_env() else { continue };
        let default: Vec<_> =
            arg.get_default_values().iter().map(|v| v.to_string_lossy()).collect();
        let flag = format!("--{}", arg.get_long().unwrap());
        let default =
            if arg.get_action().takes_values() { default.concat() } else { String::new() };
        let help = arg.get_long_help().or(arg.get_help()).unwrap().to_string();
        row(&name.to_string_lossy(), &flag, &default, &help.replace('\n', " "));
    }
    table
}

/// With `UPDATE_DOCS` in the environment, as `make prepare` sets it, it rewrites the table.
#[test]
fn the_configuration_page_has_the_settings_of_help() {
    let page = read(CONFIGURATION);
    let (before, rest) = page.split_once("| Environment | Flag |").expect("the table of settings");
    let (table, after) = rest.split_once("\n\n").expect("an empty line after the table");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        let updated = [before, &settings_table(), "\n", after].concat();
        return fs::write(CONFIGURATION, updated).unwrap();
    }
    assert_eq!(format!("| Environment | Flag |{table}\n"), settings_table(), "run `make prepare`");
}

#[test]
fn the_configuration_page_names_every_command_and_setting() {
    let page = read(CONFIGURATION);
    let mut expected = ["`CMDB_DATABASE_URL`", "`CMDB_DATABASE_URL_FILE`", "`DATABASE_URL`"]
        .map(String::from)
        .to_vec();
    settings(&Cli::settings(), "", &mut expected);
    assert!(expected.len() > 20);
    // Whole names only: `--log` is not found in `--log-format`.
    let is_named = |name: &str| {
        let after = page.match_indices(name).map(|(at, _)| page.as_bytes().get(at + name.len()));
        after.flatten().any(|next| !next.is_ascii_alphanumeric() && *next != b'-')
    };
    for name in expected {
        assert!(is_named(&name), "{CONFIGURATION} does not name {name}");
    }
}

/// The second column of the table names each endpoint once: its name, unless only the CMDB API has
/// it, and method and path at the CMDB API.
#[test]
fn the_readme_lists_every_endpoint_of_the_table() {
    let readme = read("README.md");
    let (_, table) = readme.split_once("| What they do, in this order |").unwrap();
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    let cells = rows.map(|row| row.strip_suffix(" |").and_then(|row| row.split(" | ").nth(1)));
    let mut listed: Vec<_> = cells.flat_map(|cell| cell.unwrap().split("<br>")).collect();
    let mut expected: Vec<_> = ENDPOINTS
        .iter()
        .map(|endpoint| {
            let EndpointEntry { name, .. } = endpoint;
            let name = endpoint.is_at(Api::Gateway).then(|| format!("`{name}` → "));
            let (method, path) = (endpoint.method(Api::Cmdb), endpoint.path(Api::Cmdb));
            format!("{}`{method} {path}`", name.unwrap_or_default())
        })
        .collect();
    listed.sort_unstable();
    expected.sort_unstable();
    assert_eq!(listed, expected);
}
