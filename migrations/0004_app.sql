-- Who may call.

create table app (
    id integer generated always as identity,
    code text not null,
    trusts_username boolean not null default false,
    enabled boolean not null default true,
    created_at timestamptz not null default now(),
    constraint app_pkey primary key (id),
    constraint app_code_key unique (code),
    constraint app_code_check check (char_length(code) between 1 and 128)
);

comment on table app is 'An application that may call the endpoint.';
comment on column app.code is 'As it names itself (bk_app_code).';
comment on column app.trusts_username is 'Whether its word is enough for who the user is (bk_username).';

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

comment on table app_secret is 'What proves that an application is itself. Two are valid while one replaces the other.';
comment on column app_secret.hash is
    'HMAC-SHA-256 of the secret, keyed with the salt. A fast hash suits: secrets are long and random.';
