//! The schema: where its objects are, how they are documented, and that it survives a dump.

use std::fs;
use std::process::Command;

use cmdb_associations::db::schema::list_objects;
use sqlx::{AssertSqlSafe, ConnectOptions, PgPool};

use crate::app::{TestApp, batch};
use crate::binary::Program;
use crate::constraints::Role;

async fn names(pool: &PgPool, sql: &'static str) -> Vec<String> {
    sqlx::query_scalar(sql).fetch_all(pool).await.unwrap()
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn every_object_is_in_the_schema_cmdb(pool: PgPool) {
    let elsewhere = "
        select relname::text from pg_class
        where relnamespace not in ('cmdb'::regnamespace, 'pg_catalog'::regnamespace,
            'information_schema'::regnamespace, 'pg_toast'::regnamespace)
        union all
        select proname from pg_proc
        where pronamespace not in ('cmdb'::regnamespace, 'pg_catalog'::regnamespace,
            'information_schema'::regnamespace)";
    assert_eq!(names(&pool, elsewhere).await, [""; 0]);
    let unpinned = "select proname::text from pg_proc
        where pronamespace = 'cmdb'::regnamespace
            -- What functions of the SQL standard's form refer to is fixed when they are created.
            and prosqlbody is null
            and proconfig is distinct from array['search_path=pg_catalog, pg_temp']";
    assert_eq!(names(&pool, unpinned).await, [""; 0]);
}

/// Except sqlx's own table of migrations and its primary key.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn every_table_constraint_index_and_function_has_a_comment(pool: PgPool) {
    let undocumented = "
        select relname::text from pg_class
        where relnamespace = 'cmdb'::regnamespace and relkind in ('r', 'v')
            and obj_description(oid, 'pg_class') is null
        union all
        select relname from pg_index join pg_class on pg_class.oid = indexrelid
        where relnamespace = 'cmdb'::regnamespace
            and obj_description(indexrelid, 'pg_class') is null
            and not exists (select from pg_constraint where conindid = indexrelid)
        union all
        select conname from pg_constraint
        where connamespace = 'cmdb'::regnamespace and contype <> 't'
            and obj_description(oid, 'pg_constraint') is null
        union all
        select proname from pg_proc
        where pronamespace = 'cmdb'::regnamespace and obj_description(oid, 'pg_proc') is null
        order by 1";
    let undocumented = names(&pool, undocumented).await;
    assert_eq!(undocumented, ["_sqlx_migrations", "_sqlx_migrations_pkey"]);
}

/// The order of another collation may change with the operating system, which corrupts an index.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn every_text_in_an_index_has_the_collation_c(pool: PgPool) {
    let others = "
        select format('%s.%s', indexrelid::regclass, attname)
        from pg_index
        join pg_class on pg_class.oid = indrelid
        join pg_attribute on attrelid = indexrelid
        where relnamespace = 'cmdb'::regnamespace
            and attcollation not in (0, (select oid from pg_collation where collname = 'C'))";
    assert_eq!(names(&pool, others).await, [""; 0]);
}

/// With `UPDATE_DOCS` in the environment, as `make prepare` sets it, it rewrites the file.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn the_expected_objects_are_those_that_the_migrations_make(pool: PgPool) {
    const FILE: &str = "src/db/schema_objects.tsv";
    let objects = list_objects(&mut pool.acquire().await.unwrap()).await.unwrap();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        return fs::write(FILE, objects).unwrap();
    }
    assert_eq!(fs::read_to_string(FILE).unwrap(), objects, "run `make prepare`");
}

/// Tables of the same names are in another schema, to which the database's settings lead.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn no_setting_leads_a_statement_to_another_schema(pool: PgPool) {
    let forge = "
        do $$
        declare
            name text;
        begin
            create schema other;
            for name in select relname from pg_class
                where relnamespace = 'cmdb'::regnamespace and relkind = 'r'
            loop
                execute format('create table other.%1$I (like cmdb.%1$I)', name);
            end loop;
            execute format('alter database %I set search_path = other', current_database());
        end
        $$";
    sqlx::query(forge).execute(&pool).await.unwrap();
    let program = Program::on(&pool);
    for args in [
        &["migrate"][..],
        &["import", "tests/demo/export"],
        &["app", "add", "demo"],
        &["grant", "add", "--user", "admin", "--all"],
        &["check", "--strict"],
    ] {
        let output = program.run(args);
        assert_eq!(output.status, 0, "{args:?}: {}", output.stderr);
    }
    let used = "select relname::text from pg_stat_user_tables
                where schemaname = 'other' and n_tup_ins > 0";
    assert_eq!(names(&pool, used).await, [""; 0]);
}

#[sqlx::test(migrations = false)]
async fn a_role_that_owns_the_schema_but_not_the_database_can_migrate(pool: PgPool) {
    let role = Role::without_privileges(&pool).await;
    let program = Program::at(role.options().to_url_lossy().as_str());
    assert_eq!(program.run(&["migrate"]).status, 2);
    role.run("create schema cmdb authorization ROLE").await;
    for count in [crate::MIGRATOR.iter().count(), 0] {
        let applied = format!("{count} migrations applied\n");
        assert_eq!(program.run(&["migrate"]).stderr, applied);
    }
    role.drop().await;
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_restored_dump_passes_a_strict_check(pool: PgPool) {
    let app = TestApp::new(pool.clone()).await;
    for key in ["bk_switch_default_host", "bk_switch_connect_host", "bk_switch_run_host"] {
        let keyed = [("idempotency-key", key)];
        assert_eq!(app.post_with(&keyed, batch(key, &[(1, 1), (2, 2)])).await.ids().len(), 2);
    }
    let options = pool.connect_options();
    // The name of a database has at most 63 bytes, and that of the test's has as many.
    let restored = options.get_database().unwrap().replace("_sqlx_test_", "restored_");
    let run = async |sql: String| {
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&pool).await.unwrap();
    };
    run(format!("create database \"{restored}\" template template0")).await;
    let [from, to] = [options.get_database().unwrap(), &restored].map(|database| {
        let mut url = options.as_ref().clone().database(database).to_url_lossy();
        // The other parameters are sqlx's own.
        let pairs = url.query_pairs().into_owned();
        let host: Vec<_> = pairs.filter(|(name, _)| name == "host").collect();
        url.query_pairs_mut().clear().extend_pairs(host);
        url
    });
    let script = "pg_dump -Fc \"$0\" | pg_restore --exit-on-error --single-transaction -d \"$1\"";
    let copy = Command::new("sh").args(["-c", script, from.as_str(), to.as_str()]).output();
    let copy = copy.unwrap();
    assert!(copy.status.success(), "{}", String::from_utf8_lossy(&copy.stderr));
    let output = Program::at(to.as_str()).run(&["check", "--strict"]);
    run(format!("drop database \"{restored}\"")).await;
    assert_eq!(output.status, 0, "{}", output.stdout);
}
