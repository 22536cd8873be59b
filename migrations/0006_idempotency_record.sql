-- Stored responses, so that a request with an Idempotency-Key can be retried.

create table cmdb.idempotency_record (
    app text collate "C" not null,
    user_name text collate "C" not null,
    key text collate "C" not null,
    request_hash bytea not null,
    created_at timestamptz not null default now(),
    request_id text collate "C" not null,
    language text collate "C" not null,
    association_ids int8multirange not null,
    refusals integer[] not null,
    deleted_ids int8multirange not null default '{}',
    constraint idempotency_record_pkey primary key (app, user_name, key),
    constraint idempotency_record_key_check check (char_length(key) between 1 and 255),
    constraint idempotency_record_request_hash_check check (octet_length(request_hash) = 32),
    constraint idempotency_record_language_check check (language in ('en', 'zh'))
);

create index idempotency_record_created_at_idx on cmdb.idempotency_record (created_at);

comment on table cmdb.idempotency_record is
    'The response to a request that had an Idempotency-Key. A record is committed together with '
    'what its request created or deleted. The server deletes it after 25 hours.';
comment on column cmdb.idempotency_record.request_hash is
    'SHA-256 of the content of the request. A different request cannot reuse the key.';
comment on column cmdb.idempotency_record.request_id is 'The request id in the stored response.';
comment on column cmdb.idempotency_record.language is 'The language of the stored response.';
comment on column cmdb.idempotency_record.association_ids is
    'The ids of the created links. The n-th lowest id is that of the n-th detail that was created.';
comment on column cmdb.idempotency_record.refusals is
    'The error code of each detail, in the order of the request. Null where a link was created. '
    'Empty for a request without details.';
comment on column cmdb.idempotency_record.deleted_ids is 'The ids of the deleted links.';
comment on constraint idempotency_record_pkey on cmdb.idempotency_record is
    'An application and user use a key for one request.';
comment on constraint idempotency_record_key_check on cmdb.idempotency_record is
    'A key has 1 to 255 characters.';
comment on constraint idempotency_record_request_hash_check on cmdb.idempotency_record is
    'A hash has 32 bytes.';
comment on constraint idempotency_record_language_check on cmdb.idempotency_record is
    'The language is English or Chinese.';
comment on index cmdb.idempotency_record_created_at_idx is 'Serves the deletion of old records.';
