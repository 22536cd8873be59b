//! The command line. Results go to stdout, messages to stderr.

mod app;
mod association;
mod audit;
mod check;
mod grant;
mod healthcheck;
mod import;
mod instance;
mod kind;
mod model;
mod rows;
mod send;
mod serve;
mod table;

use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use sqlx::PgConnection;
use tokio::signal::unix::{SignalKind, signal};

use self::app::AppCommand;
use self::association::AssociationCommand;
use self::audit::AuditCommand;
use self::grant::GrantCommand;
use self::instance::InstanceCommand;
use self::kind::KindCommand;
use self::model::ModelCommand;
use self::send::SendArgs;
use crate::config::{self, Listen, LogSettings, ServeSettings};
use crate::domain::keys::Tenant;
use crate::service::change::{Change, by_command};
use crate::service::database::{Database, Purpose};
use crate::telemetry::traces::Traces;
use crate::{service, telemetry};

const AFTER_HELP: &str = "\
Results go to stdout, messages to stderr. \
Exit codes: 0 success, 1 negative result, 2 wrong usage or failure.";

/// A drop-in server for association endpoints of BlueKing CMDB, on PostgreSQL.
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
    /// Run the server
    Serve(ServeSettings),
    /// Apply pending migrations
    Migrate(MigrateArgs),
    /// Import an export of the original CMDB
    ///
    /// DIR contains files written by mongoexport or Compass: one for each collection, named after
    /// it, such as `cc_ObjDes.json` or `cc_ObjectBase_0_pub_bk_switch.json.gz`. Any of them may be
    /// missing.
    Import {
        /// Directory of the files
        dir: PathBuf,
        /// Write the rejected rows and the warnings to this file, as JSON lines
        #[arg(long, value_name = "FILE")]
        report: Option<PathBuf>,
        /// Import nothing and exit with 1 if the database contains any data
        #[arg(long)]
        if_empty: bool,
    },
    /// Manage models, which are the types of instances
    #[command(subcommand)]
    Model(ModelCommand),
    /// Manage association kinds, which say what associations mean
    #[command(subcommand)]
    Kind(KindCommand),
    /// Manage model associations, which say which models can be associated and how
    #[command(subcommand)]
    Association(AssociationCommand),
    /// Manage instances, which are what associations associate
    #[command(subcommand)]
    Instance(InstanceCommand),
    /// Manage applications, which are the clients of the API
    #[command(subcommand)]
    App(AppCommand),
    /// Manage what users may do: edit, view, create and delete instances, change models
    #[command(subcommand)]
    Grant(GrantCommand),
    /// Manage the audit log, which has a record of each request that changed something
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Create the associations of a CSV file through the API of a server, also of the original CMDB
    ///
    /// FILE has a source and a target in each row: ids, or names that the server's search resolves.
    /// Rows are sent in batches of 200. If the command is interrupted, the same command goes on.
    Send(SendArgs),
    /// Check the stored data for violations of its invariants
    Check {
        /// Also exit with 1 if SQL clients have written or deleted links, without an audit record
        #[arg(long)]
        strict: bool,
    },
    /// Ask the server at the configured address whether it is ready, and exit with 0 or 1
    Healthcheck(Listen),
}

#[derive(Debug, Args)]
struct TenantArg {
    /// Key of the tenant (`bk_supplier_account`)
    #[arg(long, value_name = "KEY", default_value = Tenant::SHARED, value_parser = parse_tenant)]
    tenant: Tenant,
}

fn parse_tenant(key: &str) -> Result<Tenant, &'static str> {
    Tenant::parse(key).ok_or("a key has at most 128 characters, none of them a control character")
}

#[derive(Debug, Args)]
struct MigrateArgs {
    /// How long to wait for each lock of a table, such as `2s`; 0: without a limit
    #[arg(long, default_value = "0", value_name = "TIME")]
    lock_timeout: String,
    /// Also set, as defaults of the role in this database, the settings that the server relies on
    /// behind a pooler that assigns a connection for each transaction
    #[arg(long)]
    set_role_defaults: bool,
}

/// The result of a command that did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Success.
    Success,
    /// A negative result, such as a violation found by `check`.
    Negative,
}

impl Cli {
    /// Parses the command line and the environment. Prints a message and exits on wrong usage.
    pub fn from_command_line() -> Self {
        let matches = Self::settings().get_matches();
        Self::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
    }

    /// The definition of the command line. An empty environment variable counts as not set, and
    /// `--help` does not show the values of variables.
    pub fn settings() -> clap::Command {
        fn ignore_empty_env(command: clap::Command) -> clap::Command {
            let args = command.mut_args(|arg| {
                let is_empty = arg.get_env().is_some_and(config::is_empty);
                let arg = arg.hide_env_values(true);
                if is_empty { arg.env(None) } else { arg }
            });
            args.mut_subcommands(ignore_empty_env)
        }
        let only = config::ENVIRONMENT_ONLY
            .map(|(name, meaning)| format!("  {name}\n          {meaning}\n"));
        let after = format!("Environment only:\n{}\n{AFTER_HELP}", only.concat());
        ignore_empty_env(Self::command()).after_help(after)
    }

    /// Runs the command.
    pub fn run(self) -> anyhow::Result<Outcome> {
        let exports = matches!(self.command, Command::Serve(_)) && config::exports_traces();
        let traces = if exports { Traces::exported() } else { Ok(Traces::default()) };
        let traces = traces.context("cannot export traces: check the OTEL_… variables")?;
        telemetry::init(&self.log, &traces);
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let outcome = runtime.block_on(self.command.run());
        // Does not wait for a DNS lookup, which cannot be cancelled.
        runtime.shutdown_background();
        traces.shutdown();
        outcome
    }
}

impl Command {
    async fn run(self) -> anyhow::Result<Outcome> {
        match self {
            Self::Serve(settings) => serve::serve(settings).await,
            Self::Migrate(args) => migrate(&args).await,
            Self::Import { dir, report, if_empty } => {
                import::import(&dir, report.as_deref(), if_empty).await
            }
            Self::Model(command) => command.run().await,
            Self::Kind(command) => command.run().await,
            Self::Association(command) => command.run().await,
            Self::Instance(command) => command.run().await,
            Self::App(command) => command.run().await,
            Self::Grant(command) => command.run().await,
            Self::Audit(command) => command.run().await,
            Self::Send(args) => args.run().await,
            Self::Check { strict } => check::check(strict).await,
            Self::Healthcheck(listen) => healthcheck::healthcheck(&listen).await,
        }
    }
}

/// Connects to the database. Fails if it cannot be used for this purpose.
async fn connect(purpose: Purpose) -> anyhow::Result<PgConnection> {
    let database = Database::new(config::database()?);
    Ok(service::database::connect(&database, purpose).await?)
}

/// Removes what has this id. Returns whether there was anything.
async fn remove(
    conn: &mut PgConnection, tenant: &Tenant, id: Option<i64>,
    remove: impl AsyncFn(&mut PgConnection, &Change<'_>, i64) -> Result<bool, service::Error>,
) -> Result<bool, service::Error> {
    let Some(id) = id else { return Ok(false) };
    by_command(conn, tenant, async |conn, change| remove(conn, change, id).await).await
}

/// The outcome of a removal that found nothing, with a message.
fn nothing_removed(tenant: &Tenant, what: &str, key: &str) -> anyhow::Result<Outcome> {
    writeln!(io::stderr(), "tenant {} has no {what} {key}", tenant.as_str())?;
    Ok(Outcome::Negative)
}

async fn migrate(args: &MigrateArgs) -> anyhow::Result<Outcome> {
    let mut conn = connect(Purpose::Migrate).await?;
    let applied = service::database::migrate(&mut conn, &args.lock_timeout).await?;
    writeln!(io::stderr(), "{applied} migrations applied")?;
    if args.set_role_defaults {
        service::database::set_role_defaults(&mut conn).await?;
        writeln!(io::stderr(), "defaults of the role set; connections that are open keep theirs")?;
    }
    Ok(Outcome::Success)
}

/// Completes at the first SIGTERM or SIGINT that arrives after this call.
fn shutdown_signal() -> io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
