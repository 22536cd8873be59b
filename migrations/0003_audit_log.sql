-- The audit log: one record for each request that created or deleted links, for each part of an
-- import that created links, and for each purge of records of requests.

create table cmdb.audit_log (
    id bigint generated always as identity,
    created_at timestamptz not null default now(),
    origin text collate "C" not null,
    request_id text collate "C",
    app text collate "C",
    user_name text collate "C",
    tenant_id integer,
    model_association_id integer,
    association_ids int8multirange not null,
    deleted_ids int8multirange not null default '{}',
    model_association_ids integer[],
    source_ids bigint[],
    target_ids bigint[],
    purged_before timestamptz,
    purged_records bigint,
    constraint audit_log_pkey primary key (id)
);

-- A trigger, because PostgreSQL parses and plans check constraints anew for every statement. For a
-- batch of one link, that of these conditions took 6 % of the time.
create function cmdb.audit_log_check() returns trigger
    language plpgsql set search_path = pg_catalog, pg_temp
as $$
begin
    if (case new.origin
            when 'request' then
                num_nulls(new.request_id, new.app, new.user_name, new.tenant_id) = 0
                and case when isempty(new.deleted_ids)
                    then new.model_association_id is not null and new.model_association_ids is null
                    else new.model_association_id is null and isempty(new.association_ids)
                end
            when 'import' then
                num_nulls(new.tenant_id, new.model_association_id) = 0
                and isempty(new.deleted_ids)
            when 'purge' then
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
    'Rejects a record without the columns of its origin. The origin is request, import or purge. A '
    'request names itself, its application, user and tenant; if it created links their model '
    'association, and if it deleted links no created ones. An import names its tenant and model '
    'association, and deletes nothing. A purge names its user, its time and the number of deleted '
    'records.';

create trigger audit_log_check before insert or update on cmdb.audit_log
    for each row execute function cmdb.audit_log_check();

-- The id arrays of 200 links take 3.2 kB. Compressing them takes more time than the space is worth,
-- so rows up to the size of a page are stored as they are.
alter table cmdb.audit_log set (toast_tuple_target = 8160);

comment on table cmdb.audit_log is
    'A request that created or deleted links, or part of an import, which created links. A record '
    'is committed together with the change that it describes. The record of a creation remains '
    'when its links are deleted. The command audit purge deletes old records of requests, and '
    'keeps the ids of their links in records of its own. There are no foreign keys: every batch '
    'would lock the same tenant row.';
comment on column cmdb.audit_log.origin is
    'request: an API request created or deleted the links. import: the import command created '
    'them. purge: requests created or deleted the links, and their records were purged.';
comment on column cmdb.audit_log.request_id is
    'The id of the request, as in its answer and in the server''s log. Gateways may give requests '
    'the same id.';
comment on column cmdb.audit_log.app is
    'The code of the application; empty if a trusted peer named none.';
comment on column cmdb.audit_log.user_name is
    'The user of the request. The PostgreSQL user of a purge.';
comment on column cmdb.audit_log.model_association_id is
    'The model association of the created links. Null in the record of a deletion.';
comment on column cmdb.audit_log.association_ids is 'The ids of the created links.';
comment on column cmdb.audit_log.deleted_ids is
    'The ids of the deleted links. A request either creates or deletes links.';
comment on column cmdb.audit_log.model_association_ids is
    'The model association of each deleted link, in the order of the link ids.';
comment on column cmdb.audit_log.source_ids is
    'The source of each created or deleted link, in the order of the link ids. Null for an import.';
comment on column cmdb.audit_log.target_ids is
    'The target of each created or deleted link, in the order of the link ids. Null for an import.';
comment on column cmdb.audit_log.purged_before is
    'A purge deletes records of requests that were created before this time.';
comment on column cmdb.audit_log.purged_records is 'How many records a purge has deleted.';
comment on constraint audit_log_pkey on cmdb.audit_log is 'No two records have the same id.';
