-- What requests and commands need to create, change and delete models, association kinds and model
-- associations.

-- A table cannot be altered while a deferred trigger has not run, such as one of 0008.
set constraints all immediate;

create table cmdb.classification (
    key text collate "C" not null,
    constraint classification_pkey primary key (key),
    constraint classification_key_check check (char_length(key) between 1 and 128)
);

comment on table cmdb.classification is
    'A group in which user interfaces list models. Those below are part of a new BlueKing CMDB; '
    'imports add others.';
comment on column cmdb.classification.key is
    'The name that callers use (bk_classification_id).';
comment on constraint classification_pkey on cmdb.classification is
    'No two classifications have the same key.';
comment on constraint classification_key_check on cmdb.classification is
    'A key has 1 to 128 characters.';

insert into cmdb.classification (key) values
    ('bk_host_manage'), ('bk_biz_topo'), ('bk_organization'), ('bk_network'),
    ('bk_uncategorized'), ('bk_table_classification');

alter table cmdb.model
    alter column classification drop not null,
    alter column classification drop default,
    add column is_predefined boolean not null default false,
    add column position text not null default '',
    add column description text not null default '',
    add column sort_number bigint not null default 0,
    add column created_by text not null default '',
    add column created_at timestamptz,
    add column updated_by text not null default '',
    add column updated_at timestamptz,
    add column has_unique_name boolean not null default true;

update cmdb.model set classification = null where classification = '';
insert into cmdb.classification (key)
select distinct left(classification, 128) from cmdb.model where classification is not null
on conflict (key) do nothing;
update cmdb.model set classification = left(classification, 128)
where char_length(classification) > 128;

-- As in a new BlueKing CMDB, unless an import has set the number, or given it to another model.
update cmdb.model
set is_predefined = initial.is_predefined, sort_number = initial.sort_number,
    created_by = 'cc_system',
    export_number = case
        when exists (select from cmdb.model other where other.export_number = initial.number)
        then export_number else coalesce(export_number, initial.number)
    end
from (values
    ('host', 1, true, 1), ('module', 2, true, 1), ('set', 3, true, 2), ('biz', 4, true, 1),
    ('process', 5, true, 1), ('plat', 6, true, 2), ('bk_switch', 7, false, 1),
    ('bk_router', 8, false, 2), ('bk_load_balance', 9, false, 3), ('bk_firewall', 10, false, 4),
    ('bk_biz_set_obj', 11, true, 2), ('bk_project', 12, true, 3)
) initial (key, number, is_predefined, sort_number)
where initial.key = model.key;

-- Callers see the number as the id, so two models cannot have the same one. Numbers that an import
-- would not keep are replaced, too: new models get higher ones, which fit into an integer.
update cmdb.model
set export_number = highest.number + replaced.position
from (
    select id, row_number() over (order by id) as position
    from (
        select id, coalesce(export_number, id) as number, row_number() over (
            partition by coalesce(export_number, id) order by export_number is null, id) as rank
        from cmdb.model
    ) numbered
    where rank > 1 or number not between 1 and 1000000000
) replaced, (
    select greatest(
        max(coalesce(export_number, id)), (select last_value from cmdb.model_id_seq)) as number
    from cmdb.model
    where coalesce(export_number, id) between 1 and 1000000000
) highest
where replaced.id = model.id;

-- Models that were imported have their places in the order of their numbers.
update cmdb.model
set sort_number = placed.last + placed.rank
from (
    select id,
        coalesce(max(sort_number) over (partition by classification), 0) as last,
        row_number() over (
            partition by classification, sort_number = 0 order by coalesce(export_number, id)
        ) as rank
    from cmdb.model
) placed
where model.id = placed.id and sort_number = 0;

-- Of models with the same name, the one with the lowest id has a unique name. A longer name than
-- requests may give does not fit into an index.
update cmdb.model
set has_unique_name = false
where char_length(name) > 128
    or exists (select from cmdb.model other where other.name = model.name and other.id < model.id);

-- Likewise the triggers of these updates.
set constraints all immediate;

alter table cmdb.model
    add column number bigint not null generated always as (coalesce(export_number, id)) stored,
    -- Deferrable: it is checked at the end of a statement, which may exchange numbers.
    add constraint model_number_key unique (number) deferrable,
    add constraint model_number_check check (number between 1 and 2000000000),
    add constraint model_classification_fk
        foreign key (classification) references cmdb.classification (key);

create unique index model_name_key on cmdb.model (name collate "C") where has_unique_name;

comment on column cmdb.model.is_predefined is
    'Whether the model is part of BlueKing CMDB, or its creator said so (ispre). It is shown and '
    'has no effect.';
comment on column cmdb.model.position is
    'The place of the model in user interfaces (position), as text.';
comment on column cmdb.model.description is 'A description of the model (description).';
comment on column cmdb.model.sort_number is
    'The place of the model in its classification (obj_sort_number), from 1.';
comment on column cmdb.model.created_by is 'The user who created the model (creator).';
comment on column cmdb.model.created_at is
    'When the model was created (create_time). Null if that is not known.';
comment on column cmdb.model.updated_by is 'The user who changed the model last (modifier).';
comment on column cmdb.model.updated_at is
    'When the model was changed last (last_time). Null if that is not known.';
comment on column cmdb.model.has_unique_name is
    'Whether no other such model has the name. It is false for an imported model with the name of '
    'another model, or with one of more than 128 characters; requests and commands give no model '
    'such a name.';
comment on column cmdb.model.number is
    'The id that callers see: the one that the model has in BlueKing CMDB, or else its own id.';
comment on constraint model_number_key on cmdb.model is
    'No two models have the same number. Serves searches by the id that callers see.';
comment on constraint model_number_check on cmdb.model is
    'A number is positive, and the ids of many new models after it fit into an integer.';
comment on constraint model_classification_fk on cmdb.model is 'The classification exists.';
comment on index cmdb.model_name_key is
    'No two models have the same name, whatever their tenants, but for imported ones.';

-- The ids of new models are higher than the ids and the numbers of all others.
select setval(
    'cmdb.model_id_seq',
    greatest(last_value, (select max(greatest(id, number)) from cmdb.model)))
from cmdb.model_id_seq;

create trigger model_restrict_built_in_delete before delete on cmdb.model
    for each row when (old.is_built_in)
    execute function cmdb.reject_change('a built-in model cannot be deleted');

alter table cmdb.association_kind add column export_number bigint;
alter table cmdb.association_kind
    add column number bigint not null generated always as (coalesce(export_number, id)) stored,
    add constraint association_kind_number_key unique (number) deferrable,
    add constraint association_kind_number_check check (number between 1 and 2000000000);

comment on column cmdb.association_kind.export_number is
    'The id of the association kind in BlueKing CMDB. Null if it was not imported; its own id '
    'stands in for the number then.';
comment on column cmdb.association_kind.number is
    'The id that callers see: the one that the association kind has in BlueKing CMDB, or else its '
    'own id.';
comment on constraint association_kind_number_key on cmdb.association_kind is
    'No two association kinds have the same number. Serves searches by the id that callers see.';
comment on constraint association_kind_number_check on cmdb.association_kind is
    'A number is positive, and the ids of many new association kinds after it fit into an integer.';

create trigger association_kind_restrict_predefined_delete before delete on cmdb.association_kind
    for each row when (old.is_predefined)
    execute function cmdb.reject_change('a predefined association kind cannot be deleted');

create trigger association_kind_restrict_truncate before truncate on cmdb.association_kind
    for each statement execute function cmdb.reject_change(
        'association kinds cannot be truncated: some are predefined');

create function cmdb.model_association_restrict_truncate() returns trigger
    language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
    if exists (select from cmdb.model_association where is_predefined) then
        raise exception 'model associations cannot be truncated while one is predefined'
            using errcode = 'restrict_violation', table = tg_table_name, constraint = tg_name;
    end if;
    return null;
end
$$;

comment on function cmdb.model_association_restrict_truncate() is
    'Rejects the truncation of model associations while one is predefined.';

create trigger model_association_restrict_truncate before truncate on cmdb.model_association
    for each statement execute function cmdb.model_association_restrict_truncate();

-- Deferred: an import replaces model associations, by a deletion and an insertion.
create function cmdb.model_association_keep_predefined() returns trigger
    language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
    if not exists (
        select from cmdb.model_association where (key, tenant_id) = (old.key, old.tenant_id)
    ) then
        raise exception 'a predefined model association cannot be deleted'
            using errcode = 'restrict_violation', table = tg_table_name, constraint = tg_name;
    end if;
    return null;
end
$$;

comment on function cmdb.model_association_keep_predefined() is
    'Rejects a transaction that deletes a predefined model association and inserts no other with '
    'its key.';

create constraint trigger model_association_keep_predefined
    after delete on cmdb.model_association
    deferrable initially deferred
    for each row when (old.is_predefined)
    execute function cmdb.model_association_keep_predefined();

create or replace function cmdb.model_association_assign_id() returns trigger
    language plpgsql set search_path = pg_catalog, pg_temp
as $$
begin
    if tg_op = 'INSERT' then
        if new.id is null then
            new.id := nextval('cmdb.model_association_number_seq') * 4
                + case new.mapping when '1:1' then 1 when '1:n' then 2 else 3 end;
        end if;
    elsif (new.id, new.key, new.tenant_id, new.source_model_id, new.target_model_id,
            new.association_kind_id, new.mapping)
        is distinct from
        (old.id, old.key, old.tenant_id, old.source_model_id, old.target_model_id,
            old.association_kind_id, old.mapping)
    then
        raise exception
            'id, key, tenant, models, kind and mapping of a model association cannot be updated'
            using errcode = 'object_not_in_prerequisite_state',
                hint = 'Delete the model association and insert a new one.';
    end if;
    return new;
end
$$;

-- Grants to create, change and delete models, kinds and model associations. The grants for a model
-- are deleted with it.
alter table cmdb.permission_grant
    drop constraint permission_grant_action_check,
    add constraint permission_grant_action_check check (action in ('edit', 'view', 'models')),
    add constraint permission_grant_models_check check (action <> 'models' or model_id is null),
    drop constraint permission_grant_model_fk,
    add constraint permission_grant_model_fk
        foreign key (model_id) references cmdb.model (id) on delete cascade;

create index permission_grant_model_idx on cmdb.permission_grant (model_id);

comment on table cmdb.permission_grant is
    'Allows a user to edit or to view instances, or to change models, for every tenant. A grant '
    'for one instance remains when the instance is deleted, and applies to a later one with the '
    'same id.';
comment on column cmdb.permission_grant.action is
    'What the user may do. edit and view: instances; who may edit all instances of a model may '
    'view it, too. models: create, change and delete models, association kinds and model '
    'associations.';
comment on column cmdb.permission_grant.model_id is
    'The model of the instances. Null: all models; always so for the action models.';
comment on constraint permission_grant_action_check on cmdb.permission_grant is
    'The action is edit, view or models.';
comment on constraint permission_grant_models_check on cmdb.permission_grant is
    'A grant to change models names none.';
comment on constraint permission_grant_model_fk on cmdb.permission_grant is
    'The model exists. The grants for it are deleted with it.';
comment on index cmdb.permission_grant_model_idx is 'Serves the deletion of a model.';

alter table cmdb.audit_log
    add column resource_type text collate "C",
    add column resource_id integer,
    add column before jsonb,
    add column after jsonb;

create or replace function cmdb.audit_log_check() returns trigger
    language plpgsql set search_path = pg_catalog, pg_temp
as $$
begin
    if (case
            when new.resource_type is not null then
                new.resource_type in ('model', 'association_kind', 'model_association')
                and num_nulls(new.resource_id, new.user_name, new.tenant_id) = 0
                and num_nonnulls(new.before, new.after) > 0
                and isempty(new.association_ids) and isempty(new.deleted_ids)
                and case new.origin
                    when 'request' then num_nulls(new.request_id, new.app) = 0
                    when 'command' then num_nonnulls(new.request_id, new.app) = 0
                end
            when new.origin = 'request' then
                num_nulls(new.request_id, new.app, new.user_name, new.tenant_id) = 0
                and case when isempty(new.deleted_ids)
                    then new.model_association_id is not null and new.model_association_ids is null
                    else new.model_association_id is null and isempty(new.association_ids)
                end
            when new.origin = 'import' then
                num_nulls(new.tenant_id, new.model_association_id) = 0
                and isempty(new.deleted_ids)
            when new.origin = 'purge' then
                num_nulls(new.user_name, new.purged_before, new.purged_records) = 0
        end) is not true
    then
        raise exception 'an audit record of this origin has other columns'
            using errcode = 'check_violation', table = tg_table_name, constraint = tg_name;
    end if;
    return new;
end
$$;

comment on function cmdb.audit_log_check() is
    'Rejects a record without the columns of its origin. The origin is request, command, import or '
    'purge. A record with a resource type is of a request or a command that changed a model, an '
    'association kind or a model association; it has the row before and after the change, and no '
    'links. Any other request names itself, its application, user and tenant; if it created links '
    'their model association, and if it deleted links no created ones. An import names its tenant '
    'and model association, and deletes nothing. A purge names its user, its time and the number '
    'of deleted records.';

create function cmdb.audit_change(
    request_id text, app text, user_name text, tenant_id integer, resource_type text,
    resource_id integer, before jsonb, after jsonb
) returns bigint
    language sql set search_path = pg_catalog, pg_temp
as $$
    insert into cmdb.audit_log
        (origin, request_id, app, user_name, tenant_id, association_ids, resource_type,
         resource_id, before, after)
    values
        (case when request_id is null then 'command' else 'request' end, request_id, app,
         coalesce(user_name, session_user), tenant_id, '{}', resource_type, resource_id, before,
         after)
    returning id
$$;

comment on function cmdb.audit_change is
    'Inserts the audit record of a request that changed a row, or of a command if there is no '
    'request id. Returns the id of the record.';

comment on table cmdb.audit_log is
    'A request that created or deleted links, part of an import, which created links, or a request '
    'or a command that changed a model, an association kind or a model association. A record is '
    'committed together with the change that it describes. The record of a creation remains when '
    'its links are deleted. The command audit purge deletes old records of requests and commands, '
    'and keeps the ids of their links in records of its own. There are no foreign keys: every '
    'batch would lock the same tenant row.';
comment on column cmdb.audit_log.origin is
    'request: an API request. command: the commands model, kind and association. import: the '
    'import command, which created the links. purge: requests created or deleted the links, and '
    'their records were purged.';
comment on column cmdb.audit_log.user_name is
    'The user of the request. The PostgreSQL user of a command or a purge.';
comment on column cmdb.audit_log.resource_type is
    'What was created, changed or deleted: model, association_kind or model_association. Null in a '
    'record of links.';
comment on column cmdb.audit_log.resource_id is 'The id of the row in the table of that name.';
comment on column cmdb.audit_log.before is 'The row before the change. Null if it was created.';
comment on column cmdb.audit_log.after is 'The row after the change. Null if it was deleted.';
