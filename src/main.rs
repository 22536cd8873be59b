//! `cmdb-associations`: see the library's documentation for the map.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use cmdb_associations::cli::{Answer, Cli};
use cmdb_associations::telemetry::chain;

fn main() -> ExitCode {
    match Cli::parse().run() {
        Ok(Answer::Fine) => ExitCode::SUCCESS,
        Ok(Answer::No) => ExitCode::from(1),
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "cmdb-associations: {}", chain(error.as_ref()));
            ExitCode::from(2)
        }
    }
}
