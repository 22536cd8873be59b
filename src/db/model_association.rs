//! Model associations.

use sqlx::PgConnection;

use crate::domain::association::{Mapping, ModelAssociation, SupplierAccount};

/// A model association, and what a user may edit of its models.
pub struct Found {
    /// It.
    pub model_association: ModelAssociation,
    /// Whether the user may edit every instance of the source model.
    pub may_edit_sources: bool,
    /// Whether the user may edit every instance of the target model.
    pub may_edit_targets: bool,
}

/// Finds what `key` names for an account, its own model association before the shared one, and what `user` may
/// edit.
#[tracing::instrument(skip_all, name = "db.model_association.find")]
pub async fn find(
    conn: &mut PgConnection,
    key: &str,
    account: &SupplierAccount,
    user: &str,
) -> sqlx::Result<Option<Found>> {
    let row = sqlx::query!(
        r#"select association.id, source_model_id, target_model_id, mapping,
               source.key as source_model, target.key as target_model,
               exists (
                   select from permission_grant
                   where user_name = $4 and (model_id is null or (model_id = source_model_id and instance_id is null))
               ) as "may_edit_sources!",
               exists (
                   select from permission_grant
                   where user_name = $4 and (model_id is null or (model_id = target_model_id and instance_id is null))
               ) as "may_edit_targets!"
           from model_association association
           join supplier_account owner on owner.id = association.supplier_account_id
           join model source on source.id = source_model_id
           join model target on target.id = target_model_id
           where association.key = $1 and owner.key in ($2, $3)
           order by owner.key = $2 desc
           limit 1"#,
        key,
        account.as_str(),
        SupplierAccount::SHARED,
        user,
    )
    .fetch_optional(conn)
    .await?;
    row.map(|row| {
        let mapping = Mapping::parse(&row.mapping)
            .ok_or_else(|| sqlx::Error::Decode(format!("mapping {:?}", row.mapping).into()))?;
        let model_association = ModelAssociation {
            id: row.id,
            source_model_id: row.source_model_id,
            target_model_id: row.target_model_id,
            source_model: row.source_model,
            target_model: row.target_model,
            mapping,
        };
        Ok(Found {
            model_association,
            may_edit_sources: row.may_edit_sources,
            may_edit_targets: row.may_edit_targets,
        })
    })
    .transpose()
}
