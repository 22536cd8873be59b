//! `model`: manages models.

use std::io::{self, Write};

use clap::{Args, Subcommand};

use super::{Outcome, TenantArg, table};
use crate::domain::condition::Condition;
use crate::domain::model::NewModel;
use crate::service::change::by_command;
use crate::service::database::Purpose;
use crate::service::model;

#[derive(Debug, Subcommand)]
pub(super) enum ModelCommand {
    /// Create a model and print its id
    Add(NewModelArgs),
    /// List the models that a tenant sees
    List(TenantArg),
    /// Delete a model that has neither instances nor model associations
    Remove {
        /// Key of the model (`bk_obj_id`)
        key: String,
        #[command(flatten)]
        tenant: TenantArg,
    },
}

#[derive(Debug, Args)]
pub(super) struct NewModelArgs {
    /// Key of the model (`bk_obj_id`): letters, digits and `_`; it must not begin with `bk`
    key: String,
    /// Name in user interfaces [default: the key]
    #[arg(long)]
    name: Option<String>,
    /// Key of the classification in which user interfaces list it
    #[arg(long, value_name = "KEY", default_value = "bk_uncategorized")]
    classification: String,
    /// Icon in user interfaces
    #[arg(long, default_value = "icon-cc-default")]
    icon: String,
    #[command(flatten)]
    tenant: TenantArg,
}

impl ModelCommand {
    pub(super) async fn run(self) -> anyhow::Result<Outcome> {
        let mut conn = super::connect(Purpose::Manage).await?;
        match self {
            Self::Add(NewModelArgs { key, name, classification, icon, tenant }) => {
                let name = name.unwrap_or_else(|| key.clone());
                let classification = Some(classification);
                let new = NewModel { key, name, classification, icon, ..NewModel::default() };
                new.check()?;
                let id = by_command(&mut conn, &tenant.tenant, async |conn, change| {
                    model::add(conn, change, &new).await
                })
                .await?;
                writeln!(io::stdout(), "{id}")?;
            }
            Self::List(TenantArg { tenant }) => {
                let models = model::list(&mut conn, &tenant, &Condition::always()).await?;
                let rows = models.into_iter().map(|model| {
                    let classification = model.classification.unwrap_or_default();
                    [model.number.to_string(), model.key, model.name, classification, model.tenant]
                });
                table::print(["id", "key", "name", "classification", "tenant"], rows)?;
            }
            Self::Remove { key, tenant: TenantArg { tenant } } => {
                let id = model::find_number(&mut conn, &key, &tenant).await?;
                if !super::remove(&mut conn, &tenant, id, model::remove).await? {
                    return super::nothing_removed(&tenant, "model", &key);
                }
            }
        }
        Ok(Outcome::Success)
    }
}
