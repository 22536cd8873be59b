-- The documents of instances, and what requests and commands need to create, change and delete
-- instances.

-- A table can be altered only when the deferred triggers of earlier statements have run.
set constraints all immediate;

-- So that each instance gets a document. Batches of links only read instances.
lock table cmdb.instance in share row exclusive mode;

create table cmdb.instance_document (
    model_id integer not null,
    instance_id bigint not null,
    tenant_id integer not null,
    unique_name text collate "C",
    import_hash bigint,
    document jsonb not null,
    constraint instance_document_pkey primary key (model_id, instance_id)
);

create unique index instance_document_name_key
    on cmdb.instance_document (model_id, tenant_id, unique_name)
    where unique_name is not null;

comment on table cmdb.instance_document is
    'What callers see of an instance: a JSON document with any keys. Each instance has one; a '
    'trigger inserts it for an instance that is inserted without. It is not in the table instance, '
    'because each batch of links searches that. Triggers keep it in step with its instance.';
comment on column cmdb.instance_document.tenant_id is 'The tenant of the instance.';
comment on column cmdb.instance_document.unique_name is
    'The name, if no other instance of the model and the tenant has it: of a host its cloud area '
    'and its address. Null if the instance has no name, or was imported with the name of another.';
comment on column cmdb.instance_document.import_hash is
    'A hash of the exported document from which this one was made. An import with the same '
    'document changes nothing. Null if it was not imported, or was changed since.';
comment on column cmdb.instance_document.document is
    'The keys and values, with the id, the name, the model and the tenant. Times are texts as in '
    '"2026-01-31T18:00:00.123Z".';
comment on constraint instance_document_pkey on cmdb.instance_document is
    'An instance has at most one document.';
comment on index cmdb.instance_document_name_key is
    'No two instances of a model and a tenant have the same name, but for imported ones.';

-- The fields of ids and names are those of BlueKing CMDB. What these functions refer to is fixed
-- when they are created. Without a setting of their own, PostgreSQL calls them much faster.
create function cmdb.id_field(model_key text) returns text
    language sql immutable parallel safe
    return case model_key
        when 'host' then 'bk_host_id'
        when 'biz' then 'bk_biz_id'
        when 'set' then 'bk_set_id'
        when 'module' then 'bk_module_id'
        when 'process' then 'bk_process_id'
        when 'plat' then 'bk_cloud_id'
        when 'bk_biz_set_obj' then 'bk_biz_set_id'
        when 'bk_project' then 'id'
        else 'bk_inst_id'
    end;

comment on function cmdb.id_field(text) is 'The key that has the id in documents of a model.';

create function cmdb.name_field(model_key text) returns text
    language sql immutable parallel safe
    return case model_key
        when 'host' then 'bk_host_innerip'
        when 'biz' then 'bk_biz_name'
        when 'set' then 'bk_set_name'
        when 'module' then 'bk_module_name'
        when 'process' then 'bk_process_name'
        when 'plat' then 'bk_cloud_name'
        when 'bk_biz_set_obj' then 'bk_biz_set_name'
        when 'bk_project' then 'bk_project_name'
        else 'bk_inst_name'
    end;

comment on function cmdb.name_field(text) is 'The key that has the name in documents of a model.';

create function cmdb.unique_name(model_key text, document jsonb, name text) returns text
    language sql immutable parallel safe
    return case
        when model_key <> 'host'
        then case when octet_length(name) between 1 and 1024 then name end
        when octet_length(document ->> 'bk_cloud_id') > 64 then null
        when octet_length(document ->> 'bk_host_innerip') between 1 and 512
        then (document ->> 'bk_cloud_id') || ':' || (document ->> 'bk_host_innerip')
        when coalesce(document ->> 'bk_host_innerip', '') = ''
            and octet_length(document ->> 'bk_host_innerip_v6') between 1 and 512
        then (document ->> 'bk_cloud_id') || ':' || (document ->> 'bk_host_innerip_v6')
    end;

comment on function cmdb.unique_name(text, jsonb, text) is
    'The name of an instance that no other one of the model and the tenant may have. Null if any '
    'may have it. An exported name may be too long for an index.';

create function cmdb.new_document(
    model_key text, tenant_key text, instance_id bigint, name text
) returns jsonb
    language sql immutable parallel safe
    return jsonb_strip_nulls(jsonb_build_object(
        cmdb.id_field(model_key), instance_id,
        cmdb.name_field(model_key), name,
        'bk_supplier_account', tenant_key,
        'bk_obj_id',
        case when cmdb.id_field(model_key) = 'bk_inst_id' then model_key end));

comment on function cmdb.new_document(text, text, bigint, text) is
    'The document of an instance of which nothing else is known.';

insert into cmdb.instance_document (model_id, instance_id, tenant_id, unique_name, document)
select instance.model_id, instance_id, instance.tenant_id,
    case when row_number() over (
        partition by instance.model_id, instance.tenant_id, instance.name order by instance_id) = 1
        and model.key <> 'host'
    then cmdb.unique_name(model.key, null, instance.name) end,
    cmdb.new_document(model.key, tenant.key, instance_id, instance.name)
from cmdb.instance
join cmdb.model on model.id = instance.model_id
join cmdb.tenant on tenant.id = instance.tenant_id
order by instance.model_id, instance_id;

create index instance_document_document_idx
    on cmdb.instance_document using gin (document jsonb_path_ops);

comment on index cmdb.instance_document_document_idx is
    'Serves searches for documents that have a key with a value.';

-- The ids of new instances. Hosts have a sequence of their own, as in BlueKing CMDB. Ids of the
-- other built-in models are not assigned here.
create sequence cmdb.instance_id_seq;
create sequence cmdb.host_id_seq;

comment on sequence cmdb.instance_id_seq is
    'Ids of new instances of all models that are not built in.';
comment on sequence cmdb.host_id_seq is 'Ids of new hosts.';

select setval('cmdb.instance_id_seq', max(instance_id))
from cmdb.instance join cmdb.model on model.id = model_id
where not is_built_in having max(instance_id) > 0;
select setval('cmdb.host_id_seq', max(instance_id))
from cmdb.instance join cmdb.model on model.id = model_id
where model.key = 'host' having max(instance_id) > 0;

create function cmdb.skip_ids(sequence regclass, highest bigint) returns void
    language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
    last bigint := coalesce(pg_sequence_last_value(sequence), 0);
begin
    -- Others may assign ids meanwhile, and setval would lower the sequence if they assigned more
    -- than it skips. nextval cannot.
    -- Ids beyond 2^53 are not those of a client that counts, and would leave no ids.
    if highest > 9007199254740992 then
        return;
    elsif highest - last > 10000 then
        perform setval(sequence, highest);
    elsif highest > last then
        perform nextval(sequence) from generate_series(last + 1, highest);
    end if;
end
$$;

comment on function cmdb.skip_ids(regclass, bigint) is
    'Moves a sequence past an id, unless it is past it.';

-- The statements of the program that write instances write their documents, too. They set
-- cmdb.documents_are_written to 'yes' until the end of the transaction.
create function cmdb.documents_are_written() returns boolean
    language sql stable
    return coalesce(current_setting('cmdb.documents_are_written', true), '') = 'yes';

comment on function cmdb.documents_are_written() is
    'Whether the transaction writes the documents of the instances that it writes.';

create function cmdb.instance_insert_document() returns trigger
    language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
    insert into cmdb.instance_document (model_id, instance_id, tenant_id, document)
    select new_instance.model_id, instance_id, new_instance.tenant_id,
        cmdb.new_document(model.key, tenant.key, instance_id, new_instance.name)
    from new_instance
    join cmdb.model on model.id = new_instance.model_id
    join cmdb.tenant on tenant.id = new_instance.tenant_id
    on conflict (model_id, instance_id) do nothing;
    perform cmdb.skip_ids(
        case when is_built_in then 'cmdb.host_id_seq' else 'cmdb.instance_id_seq' end, highest)
    from (
        select model_id, max(instance_id) as highest from new_instance group by model_id
    ) inserted
    join cmdb.model on model.id = model_id
    where key = 'host' or not is_built_in;
    return null;
end
$$;

comment on function cmdb.instance_insert_document() is
    'Inserts documents for instances that are inserted without, and keeps their ids from being '
    'assigned again.';

create trigger instance_insert_document after insert on cmdb.instance
    referencing new table as new_instance for each statement
    when (not cmdb.documents_are_written())
    execute function cmdb.instance_insert_document();

create function cmdb.instance_update_document() returns trigger
    language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
    update cmdb.instance_document stored
    set model_id = new.model_id, instance_id = new.instance_id, tenant_id = new.tenant_id,
        unique_name = case when new.name is not distinct from old.name then unique_name end,
        import_hash = null,
        document = document
            - array[cmdb.id_field(old_model.key), cmdb.name_field(old_model.key), 'bk_obj_id']
            || cmdb.new_document(model.key, tenant.key, new.instance_id, new.name)
    from cmdb.model old_model, cmdb.model, cmdb.tenant
    where (stored.model_id, stored.instance_id) = (old.model_id, old.instance_id)
        and old_model.id = old.model_id and model.id = new.model_id and tenant.id = new.tenant_id;
    perform cmdb.skip_ids(
        case when is_built_in then 'cmdb.host_id_seq' else 'cmdb.instance_id_seq' end,
        new.instance_id)
    from cmdb.model
    where id = new.model_id and (key = 'host' or not is_built_in);
    return null;
end
$$;

comment on function cmdb.instance_update_document() is
    'Writes the changed id, name, model or tenant of an instance into its document. A changed name '
    'is no longer kept from other instances.';

create trigger instance_update_document
    after update of model_id, instance_id, tenant_id, name on cmdb.instance
    for each row
    when ((old.model_id, old.instance_id, old.tenant_id, old.name)
        is distinct from (new.model_id, new.instance_id, new.tenant_id, new.name)
        and not cmdb.documents_are_written())
    execute function cmdb.instance_update_document();

create function cmdb.instance_delete_document() returns trigger
    language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
    deleted record;
begin
    if tg_op = 'TRUNCATE' then
        delete from cmdb.instance_document;
        return null;
    end if;
    -- Ids in an array are looked up in the index, whatever the planner's statistics say.
    for deleted in
        select model_id, array_agg(instance_id) as ids from old_instance group by model_id
    loop
        delete from cmdb.instance_document
        where model_id = deleted.model_id and instance_id = any (deleted.ids);
    end loop;
    return null;
end
$$;

comment on function cmdb.instance_delete_document() is
    'Deletes the documents of deleted instances.';

create trigger instance_delete_document after delete on cmdb.instance
    referencing old table as old_instance for each statement
    execute function cmdb.instance_delete_document();
create trigger instance_delete_document_truncate after truncate on cmdb.instance
    for each statement execute function cmdb.instance_delete_document();

create function cmdb.instance_document_guard() returns trigger
    language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
    if exists (
        select from new_document
        where (select tenant_id from cmdb.instance
                where instance.model_id = new_document.model_id
                    and instance.instance_id = new_document.instance_id)
            is distinct from tenant_id
    ) then
        raise exception
            'a document belongs to an instance that does not exist, or to another tenant'
            using errcode = 'foreign_key_violation', table = tg_table_name, constraint = tg_name;
    end if;
    return null;
end
$$;

comment on function cmdb.instance_document_guard() is
    'Checks that the instances of written documents exist and have their tenants.';

create trigger instance_document_guard_insert after insert on cmdb.instance_document
    referencing new table as new_document for each statement
    when (not cmdb.documents_are_written())
    execute function cmdb.instance_document_guard();
create trigger instance_document_guard_update after update on cmdb.instance_document
    referencing new table as new_document for each statement
    when (not cmdb.documents_are_written())
    execute function cmdb.instance_document_guard();

create function cmdb.instance_document_restrict_delete() returns trigger
    language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
    if exists (
        select from old_document
        where (select true from cmdb.instance
                where instance.model_id = old_document.model_id
                    and instance.instance_id = old_document.instance_id)
    ) then
        raise exception 'the document of an instance cannot be deleted'
            using errcode = 'foreign_key_violation', table = tg_table_name, constraint = tg_name;
    end if;
    return null;
end
$$;

comment on function cmdb.instance_document_restrict_delete() is
    'Rejects the deletion of a document whose instance exists.';

create trigger instance_document_restrict_delete after delete on cmdb.instance_document
    referencing old table as old_document for each statement
    execute function cmdb.instance_document_restrict_delete();
create trigger instance_document_restrict_truncate before truncate on cmdb.instance_document
    for each statement execute function cmdb.reject_change(
        'documents cannot be truncated: each instance has one');

-- Grants to create and to delete instances.
alter table cmdb.permission_grant
    drop constraint permission_grant_action_check,
    add constraint permission_grant_action_check
        check (action in ('edit', 'view', 'models', 'create', 'delete'));

comment on column cmdb.permission_grant.action is
    'What the user may do. edit and view: instances; who may edit all instances of a model may '
    'view it, too. create and delete: instances of the model. models: create, change and delete '
    'models, association kinds and model associations.';
comment on constraint permission_grant_action_check on cmdb.permission_grant is
    'The action is edit, view, create, delete or models.';

alter table cmdb.audit_log add column instance_ids bigint[];

create or replace function cmdb.audit_log_check() returns trigger
    language plpgsql set search_path = pg_catalog, pg_temp
as $$
begin
    if (case
            when new.resource_type is not null then
                num_nulls(new.resource_id, new.user_name, new.tenant_id) = 0
                and case new.resource_type
                    when 'instance' then new.instance_ids is not null
                    when 'model' then num_nonnulls(new.before, new.after) > 0
                    when 'association_kind' then num_nonnulls(new.before, new.after) > 0
                    when 'model_association' then num_nonnulls(new.before, new.after) > 0
                end
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
    'purge. A record with a resource type is of a request or a command that changed instances, a '
    'model, an association kind or a model association, and has no links. Any other request names '
    'itself, its application, user and tenant; if it created links their model association, and if '
    'it deleted links no created ones. An import names its tenant and model association, and '
    'deletes nothing. A purge names its user, its time and the number of deleted records.';

comment on table cmdb.audit_log is
    'A request that created or deleted links, part of an import, which created links, or a request '
    'or a command that changed instances, a model, an association kind or a model association. A '
    'record is committed together with the change that it describes. The record of a creation '
    'remains when what it created is deleted. The command audit purge deletes old records of '
    'requests and commands, and keeps the ids of their links in records of its own. There are no '
    'foreign keys: every batch would lock the same tenant row.';
comment on column cmdb.audit_log.resource_type is
    'What was created, changed or deleted: instance, model, association_kind or model_association. '
    'Null in a record of links.';
comment on column cmdb.audit_log.resource_id is
    'The id of the row in the table of that name; of instances the id of their model.';
comment on column cmdb.audit_log.instance_ids is 'The ids of the instances.';
comment on column cmdb.audit_log.before is
    'The row before the change. Null if it was created. Of instances, the changed keys of each '
    'document, or the whole document if it was deleted, by their ids.';
comment on column cmdb.audit_log.after is
    'The row after the change. Null if it was deleted. Of instances, the changed keys of each '
    'document, or the whole document if it was created, by their ids.';
