create temporary table left_out (
    file integer not null, line bigint not null, reason text not null
) on commit drop;

create temporary table staged_highest_id (
    file integer not null, line bigint not null, id bigint not null
) on commit drop;

create temporary table staged_model (
    file integer not null, line bigint not null,
    account text not null, key text not null, name text, number bigint
) on commit drop;

create temporary table staged_kind (
    file integer not null, line bigint not null,
    key text not null, name text, number bigint
) on commit drop;

create temporary table staged_model_association (
    file integer not null, line bigint not null,
    account text not null, key text not null, name text,
    source_model text not null, target_model text not null, kind text not null, mapping text not null,
    number bigint
) on commit drop;

create temporary table staged_instance (
    file integer not null, line bigint not null,
    account text not null, model text not null, instance_id bigint not null, name text
) on commit drop;

create temporary table staged_link (
    file integer not null, line bigint not null,
    account text not null, id bigint not null, key text not null,
    source_model text not null, target_model text not null, source_id bigint not null, target_id bigint not null
) on commit drop;
