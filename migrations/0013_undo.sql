-- To find out what became of an earlier request, and to undo it.

alter table cmdb.audit_log add column undone_record_id bigint;

comment on column cmdb.audit_log.undone_record_id is
    'The record of the request whose links this one has deleted, as far as they existed.';

-- On a large table, create it before the migration, with CREATE INDEX CONCURRENTLY.
create index if not exists audit_log_request_id_idx
    on cmdb.audit_log (request_id, id) where origin = 'request';

comment on index cmdb.audit_log_request_id_idx is 'Serves searches for a request by its id.';

alter table cmdb.idempotency_record
    add column undone_record_id bigint,
    add column gone bigint;

comment on column cmdb.idempotency_record.undone_record_id is
    'The audit record of the request that was undone. Null if the response is not to an undo.';
comment on column cmdb.idempotency_record.gone is
    'How many links of the request that was undone did not exist any more. Null otherwise.';
