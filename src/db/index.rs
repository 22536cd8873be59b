//! Whether the indexes agree with their tables. A failure of the disk or an upgrade of the
//! operating system can corrupt an index, which then no longer enforces its key.

use sqlx::{AssertSqlSafe, Connection, PgConnection};

/// A B-tree index on columns.
struct Index {
    name: String,
    /// The table, with its schema.
    table_name: String,
    /// The columns, separated by commas.
    columns: String,
    /// The condition of a partial index, else `true`.
    condition: String,
}

async fn list(conn: &mut PgConnection) -> sqlx::Result<Vec<Index>> {
    sqlx::query_as!(
        Index,
        r#"select index_class.relname::text as "name!",
               format('cmdb.%I', table_class.relname) as "table_name!",
               (select string_agg(quote_ident(attname), ', ' order by position)
                   from unnest(indkey) with ordinality key (number, position)
                   join pg_attribute on attrelid = indrelid and attnum = number) as "columns!",
               coalesce(pg_get_expr(indpred, indrelid), 'true') as "condition!"
           from pg_index
           join pg_class index_class on index_class.oid = indexrelid
           join pg_class table_class on table_class.oid = indrelid
           join pg_am on pg_am.oid = index_class.relam
           where table_class.relnamespace = to_regnamespace('cmdb') and amname = 'btree'
               and indisvalid and indexprs is null
           order by 2, 1"#
    )
    .fetch_all(conn)
    .await
}

/// Reads each index by an index scan and its table by a sequential scan, and describes each index
/// that has other keys than its table.
pub async fn find_key_mismatches(conn: &mut PgConnection) -> sqlx::Result<Vec<String>> {
    let mut mismatches = Vec::new();
    for index in list(conn).await? {
        // The savepoint restores the settings.
        let mut savepoint = conn.begin().await?;
        let in_index = read_keys(&mut savepoint, &index, true).await?;
        let in_table = read_keys(&mut savepoint, &index, false).await?;
        savepoint.rollback().await?;
        if in_index != in_table {
            mismatches.push(format!(
                "index {name} has other keys than its table ({} and {} rows): run `reindex index \
                 cmdb.{name}`",
                in_index.0,
                in_table.0,
                name = index.name
            ));
        }
    }
    Ok(mismatches)
}

/// The number of keys and the sum of their hashes, read from an index or from its table.
async fn read_keys(
    conn: &mut PgConnection, index: &Index, from_index: bool,
) -> sqlx::Result<(i64, String)> {
    let Index { table_name, columns, condition, .. } = index;
    // Only this index has the rows in this order.
    let order = if from_index { format!("order by {columns}") } else { String::new() };
    let settings = format!(
        "set local enable_indexscan = {from_index}; set local enable_indexonlyscan = {from_index};
         set local enable_seqscan = {}; set local enable_sort = off;
         set local enable_bitmapscan = off",
        !from_index
    );
    sqlx::raw_sql(AssertSqlSafe(settings)).execute(&mut *conn).await?;
    let keys = format!(
        "select count(*), coalesce(sum(hash_record_extended(key, 0)), 0)::text
         from (select row({columns}) from {table_name} where {condition} {order}) row (key)"
    );
    sqlx::query_as(AssertSqlSafe(keys)).persistent(false).fetch_one(conn).await
}

/// Describes what the extension `amcheck` finds in each index. `None`: it is not installed, or the
/// role may not use it.
pub async fn find_corruption(conn: &mut PgConnection) -> sqlx::Result<Option<Vec<String>>> {
    let function: Option<String> = sqlx::query_scalar!(
        r#"select format('%I.%I', nspname, proname) as "function!"
           from pg_proc join pg_namespace on pg_namespace.oid = pronamespace
           where proname = 'bt_index_check' and pronargs = 2
               and has_function_privilege(pg_proc.oid, 'EXECUTE')
               and has_schema_privilege(pronamespace, 'USAGE')
               and exists (
                   select from pg_depend join pg_extension on pg_extension.oid = refobjid
                   where objid = pg_proc.oid and extname = 'amcheck')"#
    )
    .fetch_optional(&mut *conn)
    .await?;
    let Some(function) = function else { return Ok(None) };
    let mut found = Vec::new();
    for Index { name, .. } in list(conn).await? {
        // With each row of the table looked up in the index.
        let check = AssertSqlSafe(format!("select {function}($1::regclass, true)"));
        // An error must not end the transaction.
        let mut savepoint = conn.begin().await?;
        let checked =
            sqlx::query(check).bind(format!("cmdb.{name}")).execute(&mut *savepoint).await;
        savepoint.rollback().await?;
        match checked {
            Ok(_) => {}
            // data_corrupted, index_corrupted
            Err(sqlx::Error::Database(error))
                if matches!(error.code().as_deref(), Some("XX001" | "XX002")) =>
            {
                found.push(format!("index {name}: {}", error.message()));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(Some(found))
}

/// Describes each index whose order depends on a collation that has another version now than when
/// the index was built.
pub async fn find_changed_collations(conn: &mut PgConnection) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar!(
        r#"with dependency (index_name, collation_name, recorded, actual) as (
               select index_class.relname, collname,
                   case collprovider when 'd' then datcollversion else collversion end,
                   case collprovider
                       when 'd' then pg_database_collation_actual_version(pg_database.oid)
                       else pg_collation_actual_version(pg_collation.oid)
                   end
               from pg_index
               join pg_class index_class on index_class.oid = indexrelid
               cross join unnest(indcollation) collation_id
               join pg_collation on pg_collation.oid = collation_id
               join pg_database on datname = current_database()
               where index_class.relnamespace = to_regnamespace('cmdb')
           )
           select distinct
               format(
                   'index %s depends on collation %s, which had version %s and has %s: '
                   'run `reindex index cmdb.%s`',
                   index_name, collation_name, recorded, actual, index_name) as "description!"
           from dependency
           where recorded <> actual
           order by 1"#
    )
    .fetch_all(conn)
    .await
}
