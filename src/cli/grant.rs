//! `grant`: manages what users may do.

use std::io::{self, Write};

use clap::{ArgGroup, Args, Subcommand};

use super::Outcome;
use crate::domain::permission::{GrantAction, Scope};
use crate::service;
use crate::service::database::Purpose;

#[derive(Debug, Subcommand)]
pub(super) enum GrantCommand {
    /// Let a user edit, view, create or delete instances, or change models
    Add(GrantArgs),
    /// List grants
    List {
        /// Only the grants of this user
        #[arg(long)]
        user: Option<String>,
    },
    /// Remove a grant that was added with the same arguments
    Remove(GrantArgs),
}

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("scope").required(true).args(["all", "model", "models"])))]
#[command(group(ArgGroup::new("action").args(["view", "create", "delete", "models"])))]
#[expect(clippy::struct_excessive_bools, reason = "they are flags of the command line")]
pub(super) struct GrantArgs {
    /// Name of the user
    #[arg(long)]
    user: String,
    /// Only to view the models with their instances and associations. Without this and the next
    /// two, to edit the instances; who may edit all of a model may view it, too
    #[arg(long, conflicts_with = "instance")]
    view: bool,
    /// Only to create instances of the models. No other grant allows it
    #[arg(long, conflicts_with = "instance")]
    create: bool,
    /// Only to delete instances of the models. No other grant allows it
    #[arg(long, conflicts_with = "instance")]
    delete: bool,
    /// All instances of all models
    #[arg(long, conflicts_with = "instance")]
    all: bool,
    /// All instances of this model, or those given by --instance
    #[arg(long)]
    model: Option<String>,
    /// To create, change and delete models, association kinds and model associations. No other
    /// grant allows it
    #[arg(long, conflicts_with = "instance")]
    models: bool,
    /// Id of an instance of the model; can be repeated
    #[arg(long, value_name = "ID", requires = "model")]
    instance: Vec<i64>,
}

impl GrantArgs {
    fn scopes(&self) -> Vec<Scope> {
        let action = match self {
            Self { models: true, .. } => GrantAction::Models,
            Self { view: true, .. } => GrantAction::View,
            Self { create: true, .. } => GrantAction::Create,
            Self { delete: true, .. } => GrantAction::Delete,
            _ => GrantAction::Edit,
        };
        let scope = |instance| Scope { action, model: self.model.clone(), instance };
        if self.instance.is_empty() {
            return vec![scope(None)];
        }
        self.instance.iter().map(|id| scope(Some(*id))).collect()
    }
}

impl GrantCommand {
    pub(super) async fn run(self) -> anyhow::Result<Outcome> {
        let mut conn = super::connect(Purpose::Manage).await?;
        match self {
            Self::Add(args) => {
                service::permission::add(&mut conn, &args.user, &args.scopes()).await?;
            }
            Self::List { user } => {
                let mut out = io::stdout();
                for grant in service::permission::list(&mut conn, user.as_deref()).await? {
                    let all = || "*".to_owned();
                    let model = grant.model.unwrap_or_else(all);
                    let instance = grant.instance.map_or_else(all, |id| id.to_string());
                    let action: &str = grant.action.into();
                    writeln!(out, "{}\t{model}\t{instance}\t{action}", grant.user)?;
                }
            }
            Self::Remove(args) => {
                if !service::permission::remove(&mut conn, &args.user, &args.scopes()).await? {
                    writeln!(io::stderr(), "{} has no such grant", args.user)?;
                    return Ok(Outcome::Negative);
                }
            }
        }
        Ok(Outcome::Success)
    }
}
