//! `app …`.

use std::io::{self, Read, Write};

use anyhow::Context;
use clap::Subcommand;

use super::Answer;
use crate::{config, service};

#[derive(Debug, Subcommand)]
pub(super) enum AppCommand {
    /// Add an application, and print its secret
    Add {
        /// The application's code
        code: String,
        /// Believe it about who the user is (`bk_username`)
        #[arg(long)]
        trust_username: bool,
        /// Take the secret from stdin instead of making and printing one
        #[arg(long)]
        secret_stdin: bool,
    },
    /// List the applications
    List,
    /// Add a secret, keep the newest two, and print it
    Rotate {
        /// The application's code
        code: String,
    },
    /// Drop the older of two secrets
    Retire {
        /// The application's code
        code: String,
    },
    /// Let an application call no more
    Disable {
        /// The application's code
        code: String,
    },
    /// Let a disabled application call again
    Enable {
        /// The application's code
        code: String,
    },
}

impl AppCommand {
    pub(super) async fn run(self) -> anyhow::Result<Answer> {
        let pool = config::command_pool(config::database()?);
        let mut conn = pool.acquire().await.context("the database cannot be reached")?;
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
            Self::List => {
                for app in service::app::list(&mut conn).await? {
                    let state = if app.enabled { "enabled" } else { "disabled" };
                    let trust = if app.trusts_username { "trusts-username" } else { "-" };
                    let secrets = app.secrets;
                    writeln!(out, "{}\t{state}\t{trust}\t{secrets}\t{}", app.code, app.created_at)?;
                }
            }
            Self::Rotate { code } => {
                writeln!(out, "{}", service::app::rotate(&mut conn, &code).await?)?;
            }
            Self::Retire { code } => {
                if !service::app::retire(&mut conn, &code).await? {
                    writeln!(words, "{code} has no older secret")?;
                    return Ok(Answer::No);
                }
            }
            Self::Disable { code } => service::app::set_enabled(&mut conn, &code, false).await?,
            Self::Enable { code } => service::app::set_enabled(&mut conn, &code, true).await?,
        }
        drop(conn);
        pool.close().await;
        Ok(Answer::Fine)
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
