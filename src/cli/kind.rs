//! `kind`: manages association kinds.

use std::io::{self, Write};

use clap::{Args, Subcommand};

use super::{Outcome, TenantArg, table};
use crate::domain::association_kind::{KindTexts, NewKind};
use crate::domain::condition::Condition;
use crate::service::association_kind;
use crate::service::change::by_command;
use crate::service::database::Purpose;

#[derive(Debug, Subcommand)]
pub(super) enum KindCommand {
    /// Create an association kind and print its id
    Add(NewKindArgs),
    /// List the association kinds that a tenant sees
    List(TenantArg),
    /// Delete an association kind that no model association has
    Remove {
        /// Key of the kind (`bk_asst_id`)
        key: String,
        #[command(flatten)]
        tenant: TenantArg,
    },
}

#[derive(Debug, Args)]
pub(super) struct NewKindArgs {
    /// Key of the kind (`bk_asst_id`): letters, digits and `_`
    key: String,
    /// Name in user interfaces [default: the key]
    #[arg(long)]
    name: Option<String>,
    /// How the source relates to the target, such as `belongs to`
    #[arg(long, value_name = "TEXT", default_value = "")]
    source_text: String,
    /// How the target relates to the source, such as `contains`
    #[arg(long, value_name = "TEXT", default_value = "")]
    target_text: String,
    /// Direction of arrows in user interfaces
    #[arg(long, default_value = "src_to_dest")]
    #[arg(value_parser = ["none", "src_to_dest", "dest_to_src", "bidirectional"])]
    direction: String,
    #[command(flatten)]
    tenant: TenantArg,
}

impl KindCommand {
    pub(super) async fn run(self) -> anyhow::Result<Outcome> {
        let mut conn = super::connect(Purpose::Manage).await?;
        match self {
            Self::Add(args) => {
                let NewKindArgs { key, name, source_text, target_text, direction, tenant } = args;
                let name = name.unwrap_or_else(|| key.clone());
                let texts = KindTexts { name, source_text, target_text, direction };
                let new = NewKind { key, is_predefined: None, texts };
                new.check()?;
                let id = by_command(&mut conn, &tenant.tenant, async |conn, change| {
                    association_kind::add(conn, change, &new).await
                })
                .await?;
                writeln!(io::stdout(), "{id}")?;
            }
            Self::List(TenantArg { tenant }) => {
                let all = Condition::always();
                let kinds = association_kind::list(&mut conn, &tenant, &all, &[]).await?;
                let rows = kinds.into_iter().map(|kind| {
                    let id = kind.number.to_string();
                    [id, kind.key, kind.name, kind.source_text, kind.target_text, kind.tenant]
                });
                let head = ["id", "key", "name", "source text", "target text", "tenant"];
                table::print(head, rows)?;
            }
            Self::Remove { key, tenant: TenantArg { tenant } } => {
                let id = association_kind::find_number(&mut conn, &key, &tenant).await?;
                if !super::remove(&mut conn, &tenant, id, association_kind::remove).await? {
                    return super::nothing_removed(&tenant, "kind", &key);
                }
            }
        }
        Ok(Outcome::Success)
    }
}
