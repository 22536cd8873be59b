//! What the database server is, and what the role may do.

use sqlx::PgConnection;

use super::schema;

/// The oldest version of PostgreSQL that has all that the statements need.
const OLDEST_VERSION: i32 = 15_00_00;

/// Facts about the server that the program depends on.
#[derive(Debug, Clone)]
pub struct Server {
    /// `server_version`, such as `15.8 (Debian 15.8-1)`.
    pub version: String,
    /// `server_version_num`, such as 150008.
    pub version_number: i32,
    /// The encoding of the database, such as `UTF8`.
    pub encoding: String,
    /// Whether the server is a standby.
    pub is_standby: bool,
    /// Whether the server or the database is configured to be read-only. The default of a role
    /// does not matter: `session` overrides it, by the same condition.
    pub is_read_only: bool,
    /// The settings with which a crash or a failover may lose acknowledged commits, such as
    /// `fsync=off`.
    pub weak_durability: Vec<String>,
}

impl Server {
    /// Whether the version is too old.
    pub fn is_too_old(&self) -> bool {
        self.version_number < OLDEST_VERSION
    }
}

/// Finds the facts.
pub async fn find(conn: &mut PgConnection) -> sqlx::Result<Server> {
    sqlx::query_as!(
        Server,
        r#"select current_setting('server_version') as "version!",
               current_setting('server_version_num')::integer as "version_number!",
               current_setting('server_encoding') as "encoding!",
               pg_is_in_recovery() as "is_standby!",
               exists (
                   select from pg_settings
                   where name = 'default_transaction_read_only' and setting = 'on'
                       and source in ('configuration file', 'command line', 'database')
               ) as "is_read_only!",
               array(
                   select name || '=' || setting
                   from pg_settings
                   where (name in ('fsync', 'full_page_writes') and setting = 'off')
                       or (name = 'synchronous_commit'
                           and setting in ('off', 'local', 'remote_write'))
                   order by name
               ) as "weak_durability!""#
    )
    .fetch_one(conn)
    .await
}

/// Lists the privileges that the current role lacks on the database: to create a schema, and to
/// create temporary tables.
pub async fn missing_database_privileges(
    conn: &mut PgConnection, needs_create: bool, needs_temporary: bool,
) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar!(
        r#"select format('%s on database %I', privilege, current_database()) as "missing!"
           from (values ('CREATE', $1::boolean), ('TEMPORARY', $2)) needed (privilege, is_needed)
           where is_needed and not has_database_privilege(current_database(), privilege)"#,
        needs_create,
        needs_temporary,
    )
    .fetch_all(conn)
    .await
}

/// Lists the privileges that the current role lacks on the schema, and on the tables and sequences
/// that the migrations made. Commas separate the needed ones.
pub async fn missing_schema_privileges(
    conn: &mut PgConnection, on_schema: &str, on_tables: &str, on_sequences: &str,
) -> sqlx::Result<Vec<String>> {
    let relations: Vec<_> = schema::expected_relations().map(str::to_owned).collect();
    sqlx::query_scalar!(
        r#"with needed (kind, name, oid, privileges) as (
               select 'schema', nspname::text, oid, $1::text
               from pg_namespace where nspname = 'cmdb'
               union all
               select case relkind when 'S' then 'sequence' else 'table' end,
                   'cmdb.' || quote_ident(relname), oid,
                   case
                       when relname = '_sqlx_migrations' then 'SELECT'
                       when relkind = 'S' then $3::text
                       else $2::text
                   end
               from pg_class
               where relnamespace = to_regnamespace('cmdb') and relkind in ('r', 'S')
                   and (relname = any ($4::text[]) or relname = '_sqlx_migrations')
           )
           select format('%s on %s %s', string_agg(privilege, ', '), kind, name) as "missing!"
           from needed, unnest(string_to_array(privileges, ',')) privilege
           where not case kind
               when 'schema' then has_schema_privilege(oid, privilege)
               when 'table' then has_table_privilege(oid, privilege)
               else has_sequence_privilege(oid, privilege)
           end
           group by kind, name
           order by kind, name"#,
        on_schema,
        on_tables,
        on_sequences,
        &relations,
    )
    .fetch_all(conn)
    .await
}
