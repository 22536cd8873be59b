-- The audit log: one record for each request or part of an import that created links.

create table cmdb.audit_log (
    id bigint generated always as identity,
    created_at timestamptz not null default now(),
    origin text collate "C" not null,
    request_id text collate "C",
    app text collate "C",
    user_name text collate "C",
    tenant_id integer not null,
    model_association_id integer not null,
    association_ids int8multirange not null,
    source_ids bigint[],
    target_ids bigint[],
    constraint audit_log_pkey primary key (id),
    constraint audit_log_origin_check check (origin in ('request', 'import')),
    constraint audit_log_request_check check (
        origin <> 'request' or num_nulls(request_id, app, user_name) = 0)
);

-- The id arrays of 200 links take 3.2 kB. Compressing them takes more time than the space is worth,
-- so rows up to the size of a page are stored as they are.
alter table cmdb.audit_log set (toast_tuple_target = 8160);

comment on table cmdb.audit_log is
    'A request, or part of an import, that created links. A record is committed together with its '
    'links and remains when they are deleted. There are no foreign keys: every batch would lock '
    'the same tenant row.';
comment on column cmdb.audit_log.origin is
    'request: an API request created the links. import: the import command did.';
comment on column cmdb.audit_log.request_id is
    'The id of the request, as in its answer and in the server''s log. Gateways may give requests '
    'the same id.';
comment on column cmdb.audit_log.app is
    'The code of the application; empty if a trusted peer named none.';
comment on column cmdb.audit_log.association_ids is 'The ids of the created links.';
comment on column cmdb.audit_log.source_ids is
    'The source of each created link, in the order of the link ids. Null for an import.';
comment on column cmdb.audit_log.target_ids is
    'The target of each created link, in the order of the link ids. Null for an import.';
comment on constraint audit_log_pkey on cmdb.audit_log is 'No two records have the same id.';
comment on constraint audit_log_origin_check on cmdb.audit_log is
    'The origin is request or import.';
comment on constraint audit_log_request_check on cmdb.audit_log is
    'The record of a request names the request, its application and its user.';
