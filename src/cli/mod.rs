//! The command line: results on stdout, words on stderr.

mod app;
mod check;
mod import;
mod serve;

use std::path::PathBuf;

use anyhow::Context;
use clap::{Parser, Subcommand};

use self::app::AppCommand;
use crate::config::{self, Listen, LogSettings, ServeSettings};
use crate::{service, telemetry};

/// A drop-in server for BlueKing CMDB's `batch_create_instance_association`, on Postgres.
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true, after_help = config::ENVIRONMENT_HELP)]
pub struct Cli {
    #[command(flatten)]
    log: LogSettings,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the endpoint
    Serve(ServeSettings),
    /// Apply the migrations that are pending
    Migrate,
    /// Feed an export: a folder of files that mongoexport wrote, named after their collections
    Import {
        /// The folder
        dir: PathBuf,
        /// Write the rows that were left out to this file, as JSON lines
        #[arg(long, value_name = "FILE")]
        report: Option<PathBuf>,
        /// Do nothing, and exit with 1, unless the database holds nothing yet
        #[arg(long)]
        if_empty: bool,
    },
    /// Manage the applications that may call
    #[command(subcommand)]
    App(AppCommand),
    /// Prove that the stored data is sound
    Check {
        /// Exit with 1 also for links that were written past the server
        #[arg(long)]
        strict: bool,
    },
    /// Ask the server at the configured address whether it is ready
    Healthcheck(Listen),
}

/// What a command came to, if it came to anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// As wished.
    Fine,
    /// The answer is no.
    No,
}

impl Cli {
    /// Runs the command.
    pub fn run(self) -> anyhow::Result<Answer> {
        telemetry::init(&self.log);
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(self.command.run())
    }
}

impl Command {
    async fn run(self) -> anyhow::Result<Answer> {
        match self {
            Self::Serve(settings) => serve::serve(settings).await,
            Self::Migrate => migrate().await,
            Self::Import { dir, report, if_empty } => {
                import::import(&dir, report.as_deref(), if_empty).await
            }
            Self::App(command) => command.run().await,
            Self::Check { strict } => check::check(strict).await,
            Self::Healthcheck(listen) => serve::healthcheck(listen.listen).await,
        }
    }
}

async fn migrate() -> anyhow::Result<Answer> {
    let pool = config::command_pool(config::database()?);
    service::schema::migrate(&pool).await.context("the migrations cannot be applied")?;
    pool.close().await;
    Ok(Answer::Fine)
}
