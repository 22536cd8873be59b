//! The repository's own rules.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use clap::Command;
use cmdb_associations::cli::Cli;
use cmdb_associations::config::ENVIRONMENT_ONLY;

/// The files below a folder with this ending.
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

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).unwrap()
}

/// Each layer, and the layers it may name.
const LAYERS: [(&str, &[&str]); 8] = [
    ("domain", &["domain"]),
    ("db", &["db", "domain"]),
    ("service", &["service", "db", "domain"]),
    ("http", &["http", "service", "domain", "telemetry"]),
    ("config", &["db"]),
    ("telemetry", &["config", "domain"]),
    ("server", &["config", "http"]),
    ("cli", &["config", "domain", "http", "server", "service", "telemetry"]),
];

#[test]
fn imports_go_in_one_direction() {
    for path in files("src", ".rs") {
        let place = path.strip_prefix("src").unwrap().with_extension("");
        let layer = place.components().next().unwrap().as_os_str().to_string_lossy().into_owned();
        if layer == "main" || layer == "lib" {
            continue;
        }
        let (_, allowed) = LAYERS
            .iter()
            .find(|(name, _)| *name == layer)
            .expect("a new layer: say what it may import");
        let text = read(&path);
        for (number, line) in text.lines().enumerate() {
            let mut named = Vec::new();
            for used in line.split("crate::").skip(1) {
                match used.strip_prefix('{') {
                    Some(list) => named.extend(
                        list.split('}').next().unwrap_or_default().split(',').map(str::trim),
                    ),
                    None => named.push(used),
                }
            }
            for used in named {
                let used = used.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap();
                assert!(
                    allowed.contains(&used),
                    "{}:{}: {layer} names {used}",
                    path.display(),
                    number + 1
                );
            }
        }
    }
}

#[test]
fn every_file_says_what_it_is_and_stays_of_one_idea() {
    let files =
        ["src", "tests", "fuzz", "benches"].into_iter().flat_map(|folder| files(folder, ".rs"));
    for path in files.filter(|path| !path.starts_with("fuzz/target")) {
        let text = read(&path);
        assert!(text.starts_with("//! "), "{} does not begin with what it is", path.display());
        if path.starts_with("src") {
            assert!(text.lines().count() <= 400, "{} is longer than 400 lines", path.display());
        }
    }
}

/// cargo looks for those that have none before it builds anything, and the Dockerfile copies only `src`.
#[test]
fn every_target_beside_the_program_has_its_path() {
    let manifest = read("Cargo.toml");
    let targets: Vec<_> = manifest.split("\n[[").skip(1).collect();
    assert!(targets.len() >= 3);
    for target in targets {
        assert!(target.split("\n[").next().unwrap().contains("\npath = "), "[[{target}");
    }
}

#[test]
fn every_table_and_constraint_is_named_and_every_table_explained() {
    for path in files("migrations", ".sql") {
        let text = read(&path);
        for line in text.lines().filter(|line| line.starts_with("create table ")) {
            let table = line.split_whitespace().nth(2).unwrap();
            let comment = format!("comment on table {table} is");
            assert!(text.contains(&comment), "{}: {table} has no comment", path.display());
        }
        for word in ["primary key", "foreign key", " unique (", " check ("] {
            for line in text.lines().filter(|line| line.contains(word) && !line.contains('\'')) {
                let named =
                    line.contains("constraint ") || line.trim_start().starts_with("foreign key");
                assert!(named, "{}: a constraint without a name: {line}", path.display());
            }
        }
    }
}

/// Every command, flag and environment variable of `command`, as the README writes it.
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

/// The settings as a table, in the words of `--help`.
fn settings_table() -> String {
    let mut table = String::from("| Environment | Flag | Default | Meaning |\n|---|---|---|---|\n");
    let mut row = |environment: &str, flag: &str, default: &str, says: &str| {
        let cell = |text: &str| if text.is_empty() { " |".into() } else { format!(" `{text}` |") };
        let cells = [environment, flag, default].map(cell).concat();
        writeln!(table, "|{cells} {says} |").unwrap();
    };
    for (name, says) in ENVIRONMENT_ONLY {
        row(name, "", "", says);
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

/// `make prepare` writes it there.
#[test]
fn the_readme_has_the_settings_of_help() {
    let readme = read("README.md");
    let (before, rest) = readme.split_once("| Environment | Flag |").unwrap();
    let (table, after) = rest.split_once("\n\n").unwrap();
    if std::env::var_os("UPDATE_README").is_some() {
        let updated = [before, &settings_table(), "\n", after].concat();
        return fs::write("README.md", updated).unwrap();
    }
    assert_eq!(format!("| Environment | Flag |{table}\n"), settings_table(), "run `make prepare`");
}

#[test]
fn the_readme_names_every_command_and_setting() {
    let readme = read("README.md");
    let mut wanted = ["`CMDB_DATABASE_URL`", "`CMDB_DATABASE_URL_FILE`", "`DATABASE_URL`"]
        .map(String::from)
        .to_vec();
    settings(&Cli::settings(), "", &mut wanted);
    assert!(wanted.len() > 20);
    // A name ends where it ends, so that `--log` is not found in `--log-format`.
    let named = |name: &str| {
        let after =
            readme.match_indices(name).map(|(at, _)| readme.as_bytes().get(at + name.len()));
        after.flatten().any(|next| !next.is_ascii_alphanumeric() && *next != b'-')
    };
    for name in wanted {
        assert!(named(&name), "README.md does not name {name}");
    }
}
