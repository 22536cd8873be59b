//! `instance`: manages instances.

use std::io::{self, BufWriter, Write};

use anyhow::{Context, anyhow};
use clap::{Args, Subcommand};
use serde_json::json;
use sqlx::PgConnection;

use super::rows::{Documents, Format, Lines};
use super::{Outcome, TenantArg, table};
use crate::domain::batch::DETAIL_LIMIT;
use crate::domain::change_error::ChangeError;
use crate::domain::instance::{Attributes, FixedFields};
use crate::domain::keys::Tenant;
use crate::service::database::Purpose;
use crate::service::instance_command::{add, find_model, list_page, remove};

/// How many instances one commit creates or deletes.
const COMMIT_SIZE: usize = DETAIL_LIMIT;

#[derive(Debug, Subcommand)]
pub(super) enum InstanceCommand {
    /// Create an instance, or many from stdin, and print the id of each
    Add(NewInstanceArgs),
    /// List the instances of a model that belong to a tenant
    List {
        #[command(flatten)]
        target: Target,
        /// Print the document of each instance instead, as a line of JSON
        #[arg(long)]
        documents: bool,
    },
    /// Delete instances that are not associated
    Remove(RemovalArgs),
}

#[derive(Debug, Args)]
pub(super) struct Target {
    /// Key of the model (`bk_obj_id`)
    model: String,
    #[command(flatten)]
    tenant: TenantArg,
}

#[derive(Debug, Args)]
pub(super) struct NewInstanceArgs {
    #[command(flatten)]
    target: Target,
    /// Name of the instance (`bk_inst_name`)
    #[arg(long, required_unless_present = "stdin", conflicts_with = "stdin")]
    name: Option<String>,
    /// Its other keys and values: a JSON object
    #[arg(long, value_name = "JSON", default_value = "{}", conflicts_with = "stdin")]
    document: String,
    /// Read the documents of instances from stdin, with their names. For each one that is refused,
    /// its line and the reason are printed to stderr
    #[arg(long, value_name = "FORMAT")]
    stdin: Option<Format>,
}

#[derive(Debug, Args)]
pub(super) struct RemovalArgs {
    #[command(flatten)]
    target: Target,
    /// Ids of instances (`bk_inst_id`)
    #[arg(value_name = "ID", required_unless_present = "stdin", conflicts_with = "stdin")]
    ids: Vec<i64>,
    /// Read the ids from stdin, one in each line
    #[arg(long)]
    stdin: bool,
}

impl InstanceCommand {
    pub(super) async fn run(self) -> anyhow::Result<Outcome> {
        let (Self::Add(NewInstanceArgs { target, .. })
        | Self::List { target, .. }
        | Self::Remove(RemovalArgs { target, .. })) = &self;
        let mut conn = super::connect(Purpose::Manage).await?;
        let Some(model) = find_model(&mut conn, target.tenant(), &target.model).await? else {
            return super::nothing_removed(target.tenant(), "model", &target.model);
        };
        match &self {
            Self::Add(NewInstanceArgs { stdin: Some(format), .. }) => {
                return target.add_rows(&mut conn, *format).await;
            }
            Self::Add(_) if model.is_paused => return Err(ChangeError::PausedModel.into()),
            Self::Add(NewInstanceArgs { name, document, .. }) => {
                let mut new = target.parse(document).map_err(anyhow::Error::msg)?;
                let name = json!({FixedFields::of(&target.model).name: name}).to_string();
                new.add(target.parse(&name).map_err(anyhow::Error::msg)?);
                for created in add(&mut conn, target.tenant(), &target.model, &[new]).await? {
                    writeln!(io::stdout(), "{}", created?.id)?;
                }
            }
            Self::List { documents, .. } => {
                let mut after = None;
                loop {
                    let page =
                        list_page(&mut conn, target.tenant(), &model, after, *documents).await?;
                    let Some(last) = page.last().map(|last| last.id) else { break };
                    if *documents {
                        let mut out = BufWriter::new(io::stdout().lock());
                        for document in page.into_iter().filter_map(|one| one.document) {
                            writeln!(out, "{document}")?;
                        }
                        out.flush()?;
                    } else {
                        let rows = page
                            .into_iter()
                            .map(|one| [one.id.to_string(), one.name.unwrap_or_default()]);
                        table::print_page(["id", "name"], rows, after.is_none())?;
                    }
                    after = Some(last);
                }
            }
            Self::Remove(RemovalArgs { stdin: true, .. }) => {
                return target.remove_rows(&mut conn).await;
            }
            Self::Remove(RemovalArgs { ids, .. }) => {
                let mut outcome = Outcome::Success;
                for ids in ids.chunks(COMMIT_SIZE) {
                    target.remove(&mut conn, ids, &mut outcome).await?;
                }
                return Ok(outcome);
            }
        }
        Ok(Outcome::Success)
    }
}

impl Target {
    fn tenant(&self) -> &Tenant {
        &self.tenant.tenant
    }

    fn parse(&self, json: &str) -> Result<Attributes, String> {
        Attributes::parse("document", json, &self.model, &[]).map_err(|error| error.to_string())
    }

    async fn add_rows(&self, conn: &mut PgConnection, format: Format) -> anyhow::Result<Outcome> {
        let mut documents = Documents::new(io::stdin().lock(), format)?;
        let mut out = BufWriter::new(io::stdout().lock());
        let mut outcome = Outcome::Success;
        loop {
            let (mut rows, mut accepted) = (Vec::new(), Vec::new());
            while rows.len() < COMMIT_SIZE
                && let Some((number, document)) = documents.next().context("cannot read stdin")?
            {
                let new = document.and_then(|json| self.parse(&json));
                rows.push((number, new.map(|new| accepted.push(new))));
            }
            let Some((first, _)) = rows.first() else { return Ok(outcome) };
            let created = add(conn, self.tenant(), &self.model, &accepted).await;
            let created = created.with_context(|| format!("from row {first} on"))?;
            let mut created = created.into_iter();
            for (number, row) in rows {
                let id = row.and_then(|()| match created.next() {
                    Some(Ok(created)) => Ok(created.id),
                    Some(Err(error)) => Err(error.to_string()),
                    None => Err("not created".to_owned()),
                });
                match id {
                    Ok(id) => writeln!(out, "{id}")?,
                    Err(reason) => {
                        writeln!(io::stderr(), "row {number}: {reason}")?;
                        outcome = Outcome::Negative;
                    }
                }
            }
            // A closed pipe is a failure here: the rows that follow are not created.
            out.flush().map_err(|error| anyhow!("cannot print the ids: {error}"))?;
        }
    }

    async fn remove_rows(&self, conn: &mut PgConnection) -> anyhow::Result<Outcome> {
        let mut lines = Lines::new(io::stdin().lock());
        let mut outcome = Outcome::Success;
        loop {
            let mut ids = Vec::new();
            while ids.len() < COMMIT_SIZE
                && let Some((number, line)) = lines.next_filled().context("cannot read stdin")?
            {
                let id = line.ok().and_then(|line| line.trim().parse().ok());
                if let Some(id) = id {
                    ids.push(id);
                } else {
                    writeln!(io::stderr(), "row {number}: not an id")?;
                    outcome = Outcome::Negative;
                }
            }
            if ids.is_empty() {
                return Ok(outcome);
            }
            self.remove(conn, &ids, &mut outcome).await?;
        }
    }

    /// Deletes instances in one commit, and says which ones were not deleted.
    async fn remove(
        &self, conn: &mut PgConnection, ids: &[i64], outcome: &mut Outcome,
    ) -> anyhow::Result<()> {
        for (id, reason) in remove(conn, self.tenant(), &self.model, ids).await? {
            *outcome = Outcome::Negative;
            if reason == ChangeError::UnknownInstance {
                super::nothing_removed(self.tenant(), "instance", &id.to_string())?;
            } else {
                writeln!(io::stderr(), "instance {id}: {reason}")?;
            }
        }
        Ok(())
    }
}
