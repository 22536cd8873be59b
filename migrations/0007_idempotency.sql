-- Answers that are kept, so that a request whose answer was lost can be sent again.

create table idempotency_record (
    app text not null,
    user_name text not null,
    key text not null,
    request_hash bytea not null,
    created_at timestamptz not null default now(),
    request_id text not null,
    language text not null,
    association_ids int8multirange not null,
    refusals integer[] not null,
    constraint idempotency_record_pkey primary key (app, user_name, key),
    constraint idempotency_record_key_check check (char_length(key) between 1 and 255),
    constraint idempotency_record_meaning_check check (octet_length(request_hash) = 32),
    constraint idempotency_record_language_check check (language in ('en', 'zh'))
);

create index idempotency_record_created_at_idx on idempotency_record (created_at);

comment on table idempotency_record is
    'The answer to a request that came with an Idempotency-Key, written in the commit of its links. Dropped after a day.';
comment on column idempotency_record.request_hash is 'SHA-256 of what the request asked for, so that the key does not pass for another one.';
comment on column idempotency_record.request_id is 'The id that the answer names.';
comment on column idempotency_record.language is 'The language that the answer is written in.';
comment on column idempotency_record.association_ids is 'The ids that were created, ascending in the order of their details.';
comment on column idempotency_record.refusals is 'For each detail the code of its refusal; null if it was created.';
