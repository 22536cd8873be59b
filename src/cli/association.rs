//! `association`: manages model associations.

use std::io::{self, Write};

use clap::{Args, Subcommand};

use super::{Outcome, TenantArg, table};
use crate::domain::association::NewModelAssociation;
use crate::domain::condition::Condition;
use crate::service::change::by_command;
use crate::service::database::Purpose;
use crate::service::model_association;

#[derive(Debug, Subcommand)]
pub(super) enum AssociationCommand {
    /// Let instances of two models be associated, and print the id of the model association
    Add(NewAssociationArgs),
    /// List the model associations that a tenant sees
    List(TenantArg),
    /// Delete a model association by which no instances are associated
    Remove {
        /// Key of the model association (`bk_obj_asst_id`)
        key: String,
        #[command(flatten)]
        tenant: TenantArg,
    },
}

#[derive(Debug, Args)]
pub(super) struct NewAssociationArgs {
    /// Key of the source model
    source: String,
    /// Key of the association kind
    kind: String,
    /// Key of the target model
    target: String,
    /// How many associations an instance may have. 1:n: a target has at most one source
    #[arg(long, value_parser = ["1:1", "1:n", "n:n"])]
    mapping: String,
    /// Key (`bk_obj_asst_id`) [default: {source}_{kind}_{target}]
    #[arg(long)]
    key: Option<String>,
    /// Name in user interfaces
    #[arg(long, default_value = "")]
    name: String,
    #[command(flatten)]
    tenant: TenantArg,
}

impl AssociationCommand {
    pub(super) async fn run(self) -> anyhow::Result<Outcome> {
        let mut conn = super::connect(Purpose::Manage).await?;
        match self {
            Self::Add(args) => {
                let NewAssociationArgs { source, kind, target, mapping, key, name, tenant } = args;
                let new = NewModelAssociation {
                    key: key.unwrap_or_else(|| format!("{source}_{kind}_{target}")),
                    name,
                    source_model: source,
                    target_model: target,
                    kind,
                    mapping,
                    on_delete: "none".to_owned(),
                    is_predefined: None,
                };
                new.check()?;
                let id = by_command(&mut conn, &tenant.tenant, async |conn, change| {
                    model_association::add(conn, change, &new).await
                })
                .await?;
                writeln!(io::stdout(), "{id}")?;
            }
            Self::List(TenantArg { tenant }) => {
                let all = Condition::always();
                let found = model_association::list(&mut conn, &tenant, &all).await?;
                let rows = found.into_iter().map(|one| {
                    let id = one.number.to_string();
                    let (source, target) = (one.source_model, one.target_model);
                    [id, one.key, source, one.kind, target, one.mapping, one.tenant]
                });
                let head = ["id", "key", "source", "kind", "target", "mapping", "tenant"];
                table::print(head, rows)?;
            }
            Self::Remove { key, tenant: TenantArg { tenant } } => {
                let id = model_association::find_number(&mut conn, &key, &tenant).await?;
                if !super::remove(&mut conn, &tenant, id, model_association::remove).await? {
                    return super::nothing_removed(&tenant, "model association", &key);
                }
            }
        }
        Ok(Outcome::Success)
    }
}
