-- Creates the temporary tables of an import. A staged row has the number of its file, the line on
-- which its document begins, and keys and ids as they are in the export. What is null in a staged
-- row stays as it is stored.

create temporary table rejected_row (
    file integer not null, line bigint not null, reason text not null, assigned_id bigint
) on commit drop;

-- Rows that are imported, but not as they are in the export.
create temporary table row_warning (
    file integer not null, line bigint not null, warning text not null
) on commit drop;

create temporary table staged_classification (
    file integer not null, line bigint not null, key text collate "C" not null
) on commit drop;

create temporary table staged_model (
    file integer not null, line bigint not null,
    tenant text collate "C" not null, key text collate "C" not null, name text,
    classification text collate "C", icon text, is_hidden boolean, is_paused boolean,
    is_predefined boolean, position text, description text, sort_number bigint, created_by text,
    created_at timestamptz, updated_by text, updated_at timestamptz, export_number bigint
) on commit drop;

create temporary table staged_kind (
    file integer not null, line bigint not null,
    tenant text collate "C" not null, key text collate "C" not null, name text,
    source_text text, target_text text, direction text, is_predefined boolean, export_number bigint
) on commit drop;

create temporary table staged_instance (
    file integer not null, line bigint not null,
    tenant text collate "C" not null, model text collate "C" not null,
    instance_id bigint not null, name text, document jsonb, document_hash bigint
) on commit drop;

create temporary table staged_model_association (
    file integer not null, line bigint not null,
    tenant text collate "C" not null, key text collate "C" not null, name text,
    source_model text collate "C" not null, target_model text collate "C" not null,
    kind text collate "C" not null, mapping text collate "C" not null,
    exported_mapping text collate "C", on_delete text, is_predefined boolean,
    export_number bigint, warning text
) on commit drop;

-- The highest id that BlueKing CMDB has assigned in a collection.
create temporary table staged_assigned_id (
    file integer not null, line bigint not null,
    collection text collate "C" not null, id bigint not null
) on commit drop;

create temporary table staged_link (
    file integer not null, line bigint not null,
    tenant text collate "C" not null, id bigint not null,
    model_association text collate "C" not null,
    source_model text collate "C" not null, target_model text collate "C" not null,
    source_id bigint not null, target_id bigint not null
) on commit drop;
