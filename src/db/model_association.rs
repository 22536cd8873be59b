//! Model associations.

use sqlx::PgConnection;

use crate::domain::association::{Mapping, ModelAssociation, SupplierAccount};

/// Finds what `key` names for an account: its own model association before the shared one.
#[tracing::instrument(skip_all, name = "db.model_association.find")]
pub async fn find(
    conn: &mut PgConnection,
    key: &str,
    account: &SupplierAccount,
) -> sqlx::Result<Option<ModelAssociation>> {
    let row = sqlx::query!(
        r#"select association.id, source_model_id, target_model_id, mapping,
               source.key as source_model, target.key as target_model
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
    )
    .fetch_optional(conn)
    .await?;
    row.map(|row| {
        let mapping = Mapping::parse(&row.mapping)
            .ok_or_else(|| sqlx::Error::Decode(format!("mapping {:?}", row.mapping).into()))?;
        Ok(ModelAssociation {
            id: row.id,
            source_model_id: row.source_model_id,
            target_model_id: row.target_model_id,
            source_model: row.source_model,
            target_model: row.target_model,
            mapping,
        })
    })
    .transpose()
}
