-- Applications that call the API, and their secrets.

create table app (
    id integer generated always as identity,
    code text not null,
    trusts_username boolean not null default false,
    enabled boolean not null default true,
    created_at timestamptz not null default now(),
    apis text[],
    tenants text[],
    constraint app_pkey primary key (id),
    constraint app_code_key unique (code),
    constraint app_code_check check (char_length(code) between 1 and 128)
);

comment on table app is 'An application that may call the API.';
comment on column app.code is 'The name that the application sends (bk_app_code).';
comment on column app.trusts_username is
    'Whether bk_username, sent by this application, identifies the user without further proof.';
comment on column app.apis is 'The names of the endpoints that it may call. Null: all.';
comment on column app.tenants is 'The keys of the tenants that it may act for. Null: all.';

create table app_secret (
    id integer generated always as identity,
    app_id integer not null,
    salt bytea not null,
    hash bytea not null,
    created_at timestamptz not null default now(),
    constraint app_secret_pkey primary key (id),
    constraint app_secret_app_fk foreign key (app_id) references app (id) on delete cascade,
    constraint app_secret_salt_check check (octet_length(salt) = 16),
    constraint app_secret_hash_check check (octet_length(hash) = 32)
);

create index app_secret_app_idx on app_secret (app_id);

comment on table app_secret is
    'A secret of an application. While a secret is rotated, the application has two valid ones.';
comment on column app_secret.hash is
    'HMAC-SHA-256 of the secret, keyed with the salt. Secrets are long and random, so a fast hash '
    'is safe.';
