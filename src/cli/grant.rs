//! `grant …`.

use std::io::{self, Write};

use clap::{ArgGroup, Args, Subcommand};

use super::Outcome;
use crate::domain::permission::Scope;
use crate::service;

#[derive(Debug, Subcommand)]
pub(super) enum GrantCommand {
    /// Let a user edit instances
    Add(Granted),
    /// List what users may edit
    List {
        /// Only what this user may
        #[arg(long)]
        user: Option<String>,
    },
    /// Take back what was granted in the same words
    Remove(Granted),
}

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("what").required(true).args(["all", "model"])))]
pub(super) struct Granted {
    /// The user's name
    #[arg(long)]
    user: String,
    /// The instances of all models
    #[arg(long, conflicts_with = "instance")]
    all: bool,
    /// The instances of this model
    #[arg(long)]
    model: Option<String>,
    /// Of these only this one; may be given more than once
    #[arg(long, value_name = "ID", requires = "model")]
    instance: Vec<i64>,
}

impl Granted {
    fn scopes(&self) -> Vec<Scope> {
        let Some(model) = &self.model else { return vec![Scope::All] };
        if self.instance.is_empty() {
            return vec![Scope::Model(model.clone())];
        }
        self.instance.iter().map(|id| Scope::Instance(model.clone(), *id)).collect()
    }
}

impl GrantCommand {
    pub(super) async fn run(self) -> anyhow::Result<Outcome> {
        let mut conn = super::connect().await?;
        match self {
            Self::Add(granted) => {
                service::permission::add(&mut conn, &granted.user, &granted.scopes()).await?;
            }
            Self::List { user } => {
                let mut out = io::stdout();
                for grant in service::permission::list(&mut conn, user.as_deref()).await? {
                    let (model, instance) = match grant.scope {
                        Scope::All => ("*".to_owned(), "*".to_owned()),
                        Scope::Model(model) => (model, "*".to_owned()),
                        Scope::Instance(model, id) => (model, id.to_string()),
                    };
                    writeln!(out, "{}\t{model}\t{instance}", grant.user)?;
                }
            }
            Self::Remove(granted) => {
                let scopes = granted.scopes();
                if !service::permission::remove(&mut conn, &granted.user, &scopes).await? {
                    writeln!(io::stderr(), "{} has no such grant", granted.user)?;
                    return Ok(Outcome::Negative);
                }
            }
        }
        Ok(Outcome::Success)
    }
}
