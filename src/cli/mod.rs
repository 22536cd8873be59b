//! The command line: results on stdout, words on stderr.

mod app;
mod check;
mod grant;
mod import;
mod serve;

use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use sqlx::PgConnection;

use self::app::AppCommand;
use self::grant::GrantCommand;
use crate::config::{self, Listen, LogSettings, ServeSettings};
use crate::telemetry::traces::Traces;
use crate::{service, telemetry};

const AFTER_HELP: &str = "\
Results go to stdout, messages to stderr. Exit codes: 0 all is well, 1 the answer is no, 2 wrong usage or failure.";

/// A drop-in server for BlueKing CMDB's `batch_create_instance_association`, on Postgres.
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true)]
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
    /// Apply pending migrations
    Migrate,
    /// Import an export of the original CMDB
    ///
    /// DIR holds what mongoexport wrote, a file for each collection, named after it, as in `cc_ObjDes.json` or
    /// `cc_ObjectBase_0_pub_bk_switch.json`. Each may be missing.
    Import {
        /// The folder with the files
        dir: PathBuf,
        /// Write the rows that were left out to this file, as JSON lines
        #[arg(long, value_name = "FILE")]
        report: Option<PathBuf>,
        /// Import nothing, and exit with 1, if anything was ever imported, created or added
        #[arg(long)]
        if_empty: bool,
    },
    /// Manage the applications that may call
    #[command(subcommand)]
    App(AppCommand),
    /// Manage what users may edit
    #[command(subcommand)]
    Grant(GrantCommand),
    /// Prove that the stored data is sound
    Check {
        /// Exit with 1 also for links that neither the server nor an import wrote
        #[arg(long)]
        strict: bool,
    },
    /// Ask the server at the configured address whether it is ready: exit with 0 or 1
    Healthcheck(Listen),
}

/// What a command came to, if it came to anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// As wished.
    Success,
    /// The answer is no.
    Negative,
}

impl Cli {
    /// What the command line and the environment say.
    pub fn given() -> Self {
        let given = Self::settings().get_matches();
        Self::from_arg_matches(&given).unwrap_or_else(|error| error.exit())
    }

    /// Every command and setting. A variable that is empty counts as absent, and `--help` shows no values of them.
    pub fn settings() -> clap::Command {
        fn settled(command: clap::Command) -> clap::Command {
            let args = command.mut_args(|arg| {
                let is_empty = arg.get_env().is_some_and(config::is_empty);
                let arg = arg.hide_env_values(true);
                if is_empty { arg.env(None) } else { arg }
            });
            args.mut_subcommands(settled)
        }
        let only =
            config::ENVIRONMENT_ONLY.map(|(name, says)| format!("  {name}\n          {says}\n"));
        let after = format!("Environment only:\n{}\n{AFTER_HELP}", only.concat());
        settled(Self::command()).after_help(after)
    }

    /// Runs the command.
    pub fn run(self) -> anyhow::Result<Outcome> {
        let exports = matches!(self.command, Command::Serve(_)) && config::exports_traces();
        let traces = if exports {
            Traces::exported().context("traces cannot be exported as OTEL_EXPORTER_OTLP_… say")?
        } else {
            Traces::none()
        };
        telemetry::init(&self.log, &traces);
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let answer = runtime.block_on(self.command.run());
        // A name that is being looked up cannot be called off, and is not waited for.
        runtime.shutdown_background();
        traces.end();
        answer
    }
}

impl Command {
    async fn run(self) -> anyhow::Result<Outcome> {
        match self {
            Self::Serve(settings) => serve::serve(settings).await,
            Self::Migrate => migrate().await,
            Self::Import { dir, report, if_empty } => {
                import::import(&dir, report.as_deref(), if_empty).await
            }
            Self::App(command) => command.run().await,
            Self::Grant(command) => command.run().await,
            Self::Check { strict } => check::check(strict).await,
            Self::Healthcheck(listen) => serve::healthcheck(&listen).await,
        }
    }
}

/// A connection to the database, whose tables are those that this program knows.
async fn connect() -> anyhow::Result<PgConnection> {
    let mut conn = config::connect().await?;
    refuse_pending(&mut conn).await?;
    Ok(conn)
}

async fn refuse_pending(conn: &mut PgConnection) -> anyhow::Result<()> {
    match service::schema::count_pending(conn).await? {
        0 => Ok(()),
        pending => bail!("{pending} migrations are pending: run `cmdb-associations migrate` first"),
    }
}

async fn migrate() -> anyhow::Result<Outcome> {
    let mut conn = config::connect().await?;
    let applied = service::schema::migrate(&mut conn).await?;
    writeln!(io::stderr(), "{applied} migrations applied")?;
    Ok(Outcome::Success)
}
