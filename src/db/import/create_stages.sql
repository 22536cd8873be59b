-- Creates the temporary tables of an import. A staged row has the number of its file, the line on
-- which its document begins, and keys and ids as they are in the export.

create temporary table rejected_row (
    file integer not null, line bigint not null, reason text not null, assigned_id bigint
) on commit drop;

create temporary table staged_model (
    file integer not null, line bigint not null,
    tenant text not null, key text not null, name text, export_number bigint
) on commit drop;

create temporary table staged_kind (
    file integer not null, line bigint not null,
    key text not null, name text, export_number bigint
) on commit drop;

create temporary table staged_instance (
    file integer not null, line bigint not null,
    tenant text not null, model text not null, instance_id bigint not null, name text
) on commit drop;

create temporary table staged_model_association (
    file integer not null, line bigint not null,
    tenant text not null, key text not null, name text,
    source_model text not null, target_model text not null, kind text not null,
    mapping text not null, export_number bigint
) on commit drop;

create temporary table staged_assigned_id (
    file integer not null, line bigint not null, id bigint not null
) on commit drop;

create temporary table staged_link (
    file integer not null, line bigint not null,
    tenant text not null, id bigint not null, model_association text not null,
    source_model text not null, target_model text not null,
    source_id bigint not null, target_id bigint not null
) on commit drop;
