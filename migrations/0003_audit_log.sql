-- Who created what: one row a request, in the same commit as the links.

create table audit_log (
    id bigint generated always as identity,
    created_at timestamptz not null default now(),
    origin text not null,
    request_id text,
    app text,
    user_name text,
    tenant_id integer not null,
    model_association_id integer not null,
    association_ids int8multirange not null,
    source_ids bigint[],
    target_ids bigint[],
    constraint audit_log_pkey primary key (id),
    constraint audit_log_origin_check check (origin in ('request', 'import')),
    constraint audit_log_request_check check (origin <> 'request' or num_nulls(request_id, app, user_name) = 0)
);

comment on table audit_log is 'One request, or one part of an import, that created links. Kept when the links go. '
    'No foreign keys: they would make every batch lock the one row of its account.';
comment on column audit_log.origin is 'request: through the endpoint; import: by the command.';
comment on column audit_log.request_id is 'The id in the answer and in the server''s log.';
comment on column audit_log.association_ids is 'The ids that it created.';
comment on column audit_log.source_ids is
    'The source of each created link, in the order of their ids. Null for an import: its files say it.';
comment on column audit_log.target_ids is 'The target of each, likewise.';
