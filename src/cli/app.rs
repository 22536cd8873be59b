//! `app`: manages applications.

use std::io::{self, Read, Write};

use anyhow::Context;
use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};

use super::Outcome;
use crate::http::endpoints::ENDPOINTS;
use crate::service;
use crate::service::database::Purpose;

#[derive(Debug, Subcommand)]
pub(super) enum AppCommand {
    /// Add an application and print its secret, which is not shown again
    Add {
        /// The application's code
        code: String,
        /// Trust the user name that it sends (`bk_username`)
        #[arg(long)]
        trust_username: bool,
        /// Read the secret from stdin instead of generating and printing one
        #[arg(long)]
        secret_stdin: bool,
    },
    /// Limit an application to some endpoints or tenants; a limit that is not given stays unchanged
    Limit {
        /// The application's code
        code: String,
        /// Endpoint that it may call; can be repeated
        #[arg(long, value_name = "NAME")]
        #[arg(value_parser = PossibleValuesParser::new(ENDPOINTS.iter().map(|one| one.name)))]
        api: Vec<String>,
        /// Let it call all endpoints
        #[arg(long, conflicts_with = "api")]
        all_apis: bool,
        /// Tenant that it may act for; can be repeated
        #[arg(long, value_name = "KEY")]
        tenant: Vec<String>,
        /// Let it act for all tenants
        #[arg(long, conflicts_with = "tenant")]
        all_tenants: bool,
    },
    /// List applications
    List,
    /// Add a secret and print it; the previous secret stays valid, older ones become invalid
    Rotate {
        /// The application's code
        code: String,
        /// Read the secret from stdin instead of generating and printing one
        #[arg(long)]
        secret_stdin: bool,
    },
    /// Invalidate all secrets of an application but the newest
    Retire(AppArgs),
    /// Refuse the requests of an application
    Disable(AppArgs),
    /// Accept the requests of a disabled application again
    Enable(AppArgs),
}

#[derive(Debug, Args)]
pub(super) struct AppArgs {
    /// The application's code
    code: String,
}

impl AppCommand {
    pub(super) async fn run(self) -> anyhow::Result<Outcome> {
        let mut conn = super::connect(Purpose::Manage).await?;
        let mut out = io::stdout();
        match self {
            Self::Add { code, trust_username, secret_stdin } => {
                let given = secret_stdin.then(read_secret).transpose()?;
                let secret = service::app::add(&mut conn, &code, trust_username, given).await?;
                if !secret_stdin {
                    writeln!(out, "{secret}")?;
                }
            }
            Self::Limit { code, api, all_apis, tenant, all_tenants } => {
                let apis = (all_apis || !api.is_empty()).then_some(api);
                let tenants = (all_tenants || !tenant.is_empty()).then_some(tenant);
                service::app::limit(&mut conn, &code, apis.as_deref(), tenants.as_deref()).await?;
            }
            Self::List => {
                for app in service::app::list(&mut conn).await? {
                    let state = if app.enabled { "enabled" } else { "disabled" };
                    let trust = if app.trusts_username { "trusts-username" } else { "-" };
                    let apis = app.apis.as_deref().unwrap_or("*");
                    let tenants = app.tenants.as_deref().unwrap_or("*");
                    let (code, secrets, added) = (app.code, app.secrets, app.created_at);
                    writeln!(
                        out,
                        "{code}\t{state}\t{trust}\t{secrets}\t{apis}\t{tenants}\t{added}"
                    )?;
                }
            }
            Self::Rotate { code, secret_stdin } => {
                let given = secret_stdin.then(read_secret).transpose()?;
                let secret = service::app::rotate(&mut conn, &code, given).await?;
                if !secret_stdin {
                    writeln!(out, "{secret}")?;
                }
            }
            Self::Retire(app) => {
                if !service::app::retire(&mut conn, &app.code).await? {
                    writeln!(io::stderr(), "{} has no older secret", app.code)?;
                    return Ok(Outcome::Negative);
                }
            }
            Self::Disable(app) => service::app::set_enabled(&mut conn, &app.code, false).await?,
            Self::Enable(app) => service::app::set_enabled(&mut conn, &app.code, true).await?,
        }
        Ok(Outcome::Success)
    }
}

/// Reads a secret from stdin, without its line ending.
fn read_secret() -> anyhow::Result<String> {
    let mut secret = String::new();
    let read = io::stdin().take(4096).read_to_string(&mut secret);
    read.context("cannot read the secret from stdin")?;
    Ok(secret.trim_end_matches(['\r', '\n']).to_owned())
}
