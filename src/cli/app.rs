//! `app …`.

use std::io::{self, Read, Write};

use anyhow::Context;
use clap::Subcommand;

use super::Outcome;
use crate::service;

#[derive(Debug, Subcommand)]
pub(super) enum AppCommand {
    /// Add an application and print its secret, once
    Add {
        /// The application's code
        code: String,
        /// TrustedSources the user name that it sends (`bk_username`)
        #[arg(long)]
        trust_username: bool,
        /// Read its secret from stdin instead of making one and printing it
        #[arg(long)]
        secret_stdin: bool,
    },
    /// Limit an application to some APIs or tenants; what is not mentioned stays as it is
    Limit {
        /// The application's code
        code: String,
        /// An API that it may call, as `batch_create_instance_association`; may be given more than once
        #[arg(long, value_name = "NAME")]
        api: Vec<String>,
        /// It may call all APIs
        #[arg(long, conflicts_with = "api")]
        all_apis: bool,
        /// A tenant that it may call for; may be given more than once
        #[arg(long, value_name = "KEY")]
        tenant: Vec<String>,
        /// It may call for all tenants
        #[arg(long, conflicts_with = "tenant")]
        all_tenants: bool,
    },
    /// List the applications
    List,
    /// Add a secret and print it; the one before stays valid, older ones do not
    Rotate {
        /// The application's code
        code: String,
        /// Read the secret from stdin instead of making one and printing it
        #[arg(long)]
        secret_stdin: bool,
    },
    /// Drop the older of two secrets
    Retire {
        /// The application's code
        code: String,
    },
    /// Refuse an application's calls
    Disable {
        /// The application's code
        code: String,
    },
    /// Accept a disabled application's calls again
    Enable {
        /// The application's code
        code: String,
    },
}

impl AppCommand {
    pub(super) async fn run(self) -> anyhow::Result<Outcome> {
        let mut conn = super::connect().await?;
        let mut out = io::stdout();
        let mut words = io::stderr();
        match self {
            Self::Add { code, trust_username, secret_stdin } => {
                let brought = secret_stdin.then(read_secret).transpose()?;
                let is_new = brought.is_none();
                let secret = service::app::add(&mut conn, &code, trust_username, brought).await?;
                if is_new {
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
                    let (code, secrets, since) = (app.code, app.secrets, app.created_at);
                    writeln!(
                        out,
                        "{code}\t{state}\t{trust}\t{secrets}\t{apis}\t{tenants}\t{since}"
                    )?;
                }
            }
            Self::Rotate { code, secret_stdin } => {
                let brought = secret_stdin.then(read_secret).transpose()?;
                let is_new = brought.is_none();
                let secret = service::app::rotate(&mut conn, &code, brought).await?;
                if is_new {
                    writeln!(out, "{secret}")?;
                }
            }
            Self::Retire { code } => {
                if !service::app::retire(&mut conn, &code).await? {
                    writeln!(words, "{code} has no older secret")?;
                    return Ok(Outcome::Negative);
                }
            }
            Self::Disable { code } => service::app::set_enabled(&mut conn, &code, false).await?,
            Self::Enable { code } => service::app::set_enabled(&mut conn, &code, true).await?,
        }
        Ok(Outcome::Success)
    }
}

/// The secret on stdin, without the end of its line.
fn read_secret() -> anyhow::Result<String> {
    let mut secret = String::new();
    io::stdin()
        .take(4096)
        .read_to_string(&mut secret)
        .context("cannot read the secret from stdin")?;
    Ok(secret.trim_end_matches(['\r', '\n']).to_owned())
}
