//! `cmdb-associations`: see the library's documentation for the map.

use std::io::Write;
use std::process::ExitCode;

use cmdb_associations::cli::{Cli, Outcome};
use cmdb_associations::telemetry::error_chain;

fn main() -> ExitCode {
    match Cli::given().run() {
        Ok(Outcome::Success) => ExitCode::SUCCESS,
        Ok(Outcome::Negative) => ExitCode::from(1),
        // Whoever reads our output has read enough.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            let _ =
                writeln!(std::io::stderr(), "cmdb-associations: {}", error_chain(error.as_ref()));
            ExitCode::from(2)
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let kind = error.downcast_ref().map(std::io::Error::kind);
    kind == Some(std::io::ErrorKind::BrokenPipe)
}
