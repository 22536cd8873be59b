//! What the database rejects of models, association kinds, model associations, grants and audit
//! records, from any client.

use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool};

use crate::app::TestApp;
use crate::constraints::rejection;

const NEW_RACK: &str = "insert into cmdb.model (id, key, name) values (77, 'rack', 'Rack')";

/// Asserts that each statement is rejected by a constraint, or by none.
async fn assert_rejections(conn: &mut PgConnection, statements: &[(&'static str, Option<&str>)]) {
    for (sql, rejected_by) in statements {
        let found = rejection(conn, sql).await;
        assert_eq!(found.as_deref(), *rejected_by, "{sql}");
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn built_in_models_and_predefined_kinds_cannot_be_deleted(pool: PgPool) {
    let mut conn = pool.acquire().await.unwrap();
    let built_in = Some("model_restrict_built_in_delete");
    let predefined = Some("association_kind_restrict_predefined_delete");
    assert_rejections(
        &mut conn,
        &[
            ("delete from cmdb.model_association", None),
            ("delete from cmdb.model where key = 'host'", built_in),
            ("delete from cmdb.model where key = 'bk_project'", built_in),
            ("delete from cmdb.model", built_in),
            // A client may call its model predefined, and delete it.
            ("update cmdb.model set is_predefined = true where key = 'bk_router'", None),
            ("delete from cmdb.model where key = 'bk_router'", None),
            ("delete from cmdb.association_kind where key = 'run'", predefined),
            ("delete from cmdb.association_kind", predefined),
            (
                "insert into cmdb.association_kind (key, name, is_predefined)
                 values ('cools', 'cools', null), ('heats', 'heats', false), ('feeds', '', true)",
                None,
            ),
            ("delete from cmdb.association_kind where key in ('cools', 'heats')", None),
            ("delete from cmdb.association_kind where key = 'feeds'", predefined),
            ("truncate cmdb.association_kind cascade", Some("association_kind_restrict_truncate")),
        ],
    )
    .await;
    let built_in = "select count(*) from cmdb.model where is_built_in";
    assert_eq!(TestApp::on(pool).count(built_in).await, 8);
}

/// Imports replace model associations: they delete one and insert another with its key.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_predefined_model_association_can_only_be_replaced(pool: PgPool) {
    let mut conn = pool.acquire().await.unwrap();
    let delete = "delete from cmdb.model_association where key = 'bk_switch_connect_host'";
    let insert = |key: &str| {
        AssertSqlSafe(format!(
            "insert into cmdb.model_association
                 (key, source_model_id, target_model_id, association_kind_id, mapping)
             select '{key}', source.id, target.id, kind.id, 'n:n'
             from cmdb.model source, cmdb.model target, cmdb.association_kind kind
             where source.key = 'bk_switch' and target.key = 'host' and kind.key = 'connect'"
        ))
    };
    let predefine = "update cmdb.model_association set is_predefined = true";
    assert_eq!(rejection(&mut conn, predefine).await, None);
    let keep = Some("model_association_keep_predefined".to_owned());
    assert_eq!(rejection(&mut conn, delete).await, keep);
    let restricted = Some("model_association_restrict_truncate".to_owned());
    assert_eq!(rejection(&mut conn, "truncate cmdb.model_association").await, restricted);
    for (key, is_kept) in [("another", false), ("bk_switch_connect_host", true)] {
        let mut tx = conn.begin().await.unwrap();
        assert_eq!(rejection(&mut tx, delete).await, None);
        sqlx::query(insert(key)).execute(&mut *tx).await.unwrap();
        let committed = tx.commit().await;
        assert_eq!(committed.is_ok(), is_kept, "{key}");
        if let Err(error) = committed {
            let rejected_by = error.as_database_error().unwrap().constraint();
            assert_eq!(rejected_by, keep.as_deref());
        }
    }
    // The one that replaces it is not predefined.
    assert_eq!(rejection(&mut conn, delete).await, None);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn only_texts_of_a_model_association_can_be_updated(pool: PgPool) {
    let mut conn = pool.acquire().await.unwrap();
    let fixed = Some("55000");
    assert_rejections(
        &mut conn,
        &[
            ("update cmdb.model_association set id = id + 4", fixed),
            ("update cmdb.model_association set key = 'another'", fixed),
            ("update cmdb.model_association set mapping = 'n:n'", fixed),
            (
                "update cmdb.model_association set association_kind_id =
                     (select id from cmdb.association_kind where key = 'run')",
                fixed,
            ),
            ("update cmdb.model_association set source_model_id = target_model_id", fixed),
            ("update cmdb.model_association set target_model_id = source_model_id", fixed),
            ("insert into cmdb.tenant (id, key) values (1, 'ten')", None),
            ("update cmdb.model_association set tenant_id = 1", fixed),
            (
                "update cmdb.model_association
                 set name = 'x', on_delete = 'delete_src', is_predefined = true, mapping = mapping",
                None,
            ),
        ],
    )
    .await;
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn the_names_of_models_are_unique_but_for_those_that_an_import_has_marked(pool: PgPool) {
    let mut conn = pool.acquire().await.unwrap();
    let name_key = Some("model_name_key");
    assert_rejections(
        &mut conn,
        &[
            (NEW_RACK, None),
            ("insert into cmdb.model (key, name) values ('shelf', 'Rack')", name_key),
            ("insert into cmdb.model (key, name) values ('shelf', 'rack')", None),
            ("update cmdb.model set name = '主机' where key = 'rack'", name_key),
            (
                "insert into cmdb.model (key, name, has_unique_name)
                 values ('a', 'Rack', false), ('b', 'Rack', false),
                     ('c', repeat('名', 9999), false)",
                None,
            ),
            ("update cmdb.model set has_unique_name = true where key = 'a'", name_key),
            ("update cmdb.model set name = 'Shelf', has_unique_name = true where key = 'a'", None),
        ],
    )
    .await;
}

/// The number is the id that callers see.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn numbers_of_models_and_kinds_are_unique_and_can_be_exchanged_by_a_statement(pool: PgPool) {
    let mut conn = pool.acquire().await.unwrap();
    let (number_key, number_check) = (Some("model_number_key"), Some("model_number_check"));
    let kind_key = Some("association_kind_number_key");
    let kind_check = Some("association_kind_number_check");
    assert_rejections(
        &mut conn,
        &[
            (NEW_RACK, None),
            // The id of another model that has no export number, and an export number.
            ("update cmdb.model set export_number = 77 where key = 'host'", number_key),
            ("update cmdb.model set export_number = 2 where key = 'host'", number_key),
            ("update cmdb.model set export_number = 0 where key = 'host'", number_check),
            ("update cmdb.model set export_number = -1 where key = 'host'", number_check),
            ("update cmdb.model set export_number = 2000000001 where key = 'host'", number_check),
            (
                "update cmdb.model set export_number = 3 - export_number
                 where key in ('host', 'module')",
                None,
            ),
            ("update cmdb.association_kind set export_number = 2 where id = 1", kind_key),
            ("update cmdb.association_kind set export_number = 0 where id = 1", kind_check),
            ("update cmdb.association_kind set export_number = 3 - id where id in (1, 2)", None),
        ],
    )
    .await;
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn the_classification_of_a_model_exists(pool: PgPool) {
    let mut conn = pool.acquire().await.unwrap();
    let classification = Some("model_classification_fk");
    assert_rejections(
        &mut conn,
        &[
            (NEW_RACK, None),
            ("update cmdb.model set classification = 'room' where key = 'rack'", classification),
            ("update cmdb.model set classification = '' where key = 'rack'", classification),
            ("insert into cmdb.classification values ('')", Some("classification_key_check")),
            ("insert into cmdb.classification values ('room')", None),
            ("insert into cmdb.classification values ('room')", Some("classification_pkey")),
            ("update cmdb.model set classification = 'room' where key = 'rack'", None),
            ("delete from cmdb.classification where key = 'room'", classification),
            ("delete from cmdb.model where key = 'rack'", None),
            ("delete from cmdb.classification where key = 'room'", None),
        ],
    )
    .await;
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn the_grants_for_a_model_are_deleted_with_it(pool: PgPool) {
    let mut conn = pool.acquire().await.unwrap();
    assert_rejections(
        &mut conn,
        &[
            (NEW_RACK, None),
            (
                "insert into cmdb.permission_grant (user_name, action, model_id, instance_id)
                 values ('u', 'edit', 77, null), ('u', 'edit', 77, 1), ('u', 'view', 77, null),
                     ('u', 'edit', 1, null), ('u', 'models', null, null),
                     ('u', 'edit', null, null)",
                None,
            ),
            ("delete from cmdb.model where key = 'rack'", None),
        ],
    )
    .await;
    let rest: Vec<(String, Option<i32>)> =
        sqlx::query_as("select action, model_id from cmdb.permission_grant order by id")
            .fetch_all(&mut *conn)
            .await
            .unwrap();
    let grant = |action: &str, model| (action.to_owned(), model);
    assert_eq!(rest, [grant("edit", Some(1)), grant("models", None), grant("edit", None)]);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_grant_to_change_models_names_none(pool: PgPool) {
    let mut conn = pool.acquire().await.unwrap();
    let insert = "insert into cmdb.permission_grant (user_name, action, model_id) values ";
    for (values, rejected_by) in [
        ("('u', 'models', 1)", Some("permission_grant_models_check")),
        ("('u', 'model', null)", Some("permission_grant_action_check")),
        ("('u', 'models', null)", None),
    ] {
        let sql = AssertSqlSafe(format!("{insert}{values}"));
        let error = sqlx::query(sql).execute(&mut *conn).await.err();
        let found = error.as_ref().and_then(|error| error.as_database_error()?.constraint());
        assert_eq!(found, rejected_by, "{values}");
    }
}

/// An audit record with these columns, as SQL, each with its value.
type Columns<'a> = &'a [(&'a str, &'a str)];

/// A request's record of the creation of a model.
const OF_REQUEST: Columns<'_> = &[
    ("origin", "'request'"),
    ("request_id", "'r'"),
    ("app", "'a'"),
    ("user_name", "'u'"),
    ("tenant_id", "0"),
    ("association_ids", "'{}'"),
    ("resource_type", "'model'"),
    ("resource_id", "77"),
    ("after", "'{}'"),
];

/// A command's record of the deletion of an association kind.
const OF_COMMAND: Columns<'_> = &[
    ("origin", "'command'"),
    ("user_name", "'u'"),
    ("tenant_id", "0"),
    ("association_ids", "'{}'"),
    ("resource_type", "'association_kind'"),
    ("resource_id", "7"),
    ("before", "'{}'"),
];

/// Whether a record is rejected that differs from a valid one in these columns.
async fn is_rejected(conn: &mut PgConnection, valid: Columns<'_>, other: Columns<'_>) -> bool {
    let value = |name: &str| other.iter().find(|(other, _)| *other == name);
    let kept = valid.iter().map(|column| value(column.0).unwrap_or(column));
    let added = other.iter().filter(|(name, _)| !valid.iter().any(|(of, _)| of == name));
    let (names, values): (Vec<_>, Vec<_>) = kept.chain(added).copied().unzip();
    let (names, values) = (names.join(", "), values.join(", "));
    let sql = AssertSqlSafe(format!("insert into cmdb.audit_log ({names}) values ({values})"));
    match sqlx::query(sql).execute(conn).await {
        Ok(_) => false,
        Err(error) => {
            let error = error.as_database_error().unwrap();
            assert_eq!(error.constraint(), Some("audit_log_check"), "{other:?}: {error}");
            true
        }
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn an_audit_record_of_a_change_has_the_columns_of_its_origin(pool: PgPool) {
    let conn = &mut *pool.acquire().await.unwrap();
    for valid in [OF_REQUEST, OF_COMMAND] {
        let accepted: &[Columns<'_>] = &[
            &[],
            &[("before", "'{}'"), ("after", "'{}'")],
            &[("resource_type", "'model_association'")],
        ];
        for other in accepted {
            assert!(!is_rejected(conn, valid, other).await, "{other:?}");
        }
        let rejected: &[Columns<'_>] = &[
            &[("resource_type", "'instance'")],
            &[("resource_type", "null")],
            &[("resource_id", "null")],
            &[("user_name", "null")],
            &[("tenant_id", "null")],
            &[("before", "null"), ("after", "null")],
            &[("association_ids", "'{[1,2)}'")],
            &[("deleted_ids", "'{[1,2)}'")],
            &[("origin", "'import'")],
            &[("origin", "'purge'")],
            &[("origin", "'other'")],
        ];
        for other in rejected {
            assert!(is_rejected(conn, valid, other).await, "{other:?}");
        }
    }
    for column in ["request_id", "app"] {
        assert!(is_rejected(conn, OF_REQUEST, &[(column, "null")]).await, "{column}");
        assert!(is_rejected(conn, OF_COMMAND, &[(column, "'x'")]).await, "{column}");
    }
    assert!(is_rejected(conn, OF_REQUEST, &[("origin", "'command'")]).await);
    assert!(is_rejected(conn, OF_COMMAND, &[("origin", "'request'")]).await);
}
