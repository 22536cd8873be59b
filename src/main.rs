//! The program. Its parts are described in the documentation of the library.

use std::io::{self, Write};
use std::process::ExitCode;

use cmdb_associations::cli::{Cli, Outcome};
use cmdb_associations::telemetry::error_chain;

fn main() -> ExitCode {
    match Cli::from_command_line().run() {
        Ok(Outcome::Success) => ExitCode::SUCCESS,
        Ok(Outcome::Negative) => ExitCode::from(1),
        // The reader of stdout, such as `head`, has closed it on purpose.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "cmdb-associations: {}", error_chain(error.as_ref()));
            ExitCode::from(2)
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref().map(io::Error::kind) == Some(io::ErrorKind::BrokenPipe)
}
