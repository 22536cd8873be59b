-- What callers of batches can ask for: a reason, ids of links that stand already, explanations; and
-- to find out what became of an earlier batch, or to undo it.

alter table cmdb.audit_log
    add column reason text collate "C",
    add column detail_indexes smallint[],
    add column idempotency_key text collate "C",
    add column undone_record_id bigint;

comment on column cmdb.audit_log.reason is 'Why, as the request says. At most 200 characters.';
comment on column cmdb.audit_log.detail_indexes is
    'The index of each created link''s detail in the request, in the order of the link ids. Null if '
    'the indexes are 0, 1, 2 and so on.';
comment on column cmdb.audit_log.idempotency_key is
    'The key of the request''s idempotency record, if it had one.';
comment on column cmdb.audit_log.undone_record_id is
    'The record of the request whose links this one has removed, as far as they stood.';

-- On a large table, create it before the migration, with CREATE INDEX CONCURRENTLY.
create index if not exists audit_log_request_id_idx
    on cmdb.audit_log (request_id) where origin = 'request';

comment on index cmdb.audit_log_request_id_idx is 'Serves searches for a request by its id.';

-- Few records are in it, so it costs a batch little more than the test of its condition.
create index if not exists audit_log_undone_record_id_idx
    on cmdb.audit_log (undone_record_id) where undone_record_id is not null;

comment on index cmdb.audit_log_undone_record_id_idx is
    'Serves searches for the requests that have undone another.';

alter table cmdb.idempotency_record
    add column explanations jsonb,
    add column undone_record_id bigint,
    add column gone bigint;

comment on column cmdb.idempotency_record.explanations is
    'What was in the way of each detail that has an error code, in the order of the request; null '
    'elements for the others. Null if the response does not depend on it.';
comment on column cmdb.idempotency_record.undone_record_id is
    'The audit record of the request that was undone. Null if the response is not to an undo.';
comment on column cmdb.idempotency_record.gone is
    'How many links of the request that was undone did not stand any more. Null otherwise.';
