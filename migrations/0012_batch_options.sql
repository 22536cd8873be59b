-- What callers of batches can ask for: a reason, ids of links that stand already, explanations.

alter table cmdb.audit_log
    add column reason text collate "C",
    add column detail_indexes smallint[],
    add column idempotency_key text collate "C";

comment on column cmdb.audit_log.reason is 'Why, as the request says. At most 200 characters.';
comment on column cmdb.audit_log.detail_indexes is
    'The index of each created link''s detail in the request, in the order of the link ids. Null '
    'if the indexes are 0, 1, 2 and so on.';
comment on column cmdb.audit_log.idempotency_key is
    'The key of the request''s idempotency record, if it had one.';

alter table cmdb.idempotency_record add column explanations jsonb;

comment on column cmdb.idempotency_record.explanations is
    'What was in the way of each detail that has an error code, in the order of the request; null '
    'elements for the others. Null if the response does not depend on it.';
