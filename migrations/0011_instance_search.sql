-- Searches for instances of one model by the values in their documents.

-- The index begins with the model, so that a value which instances of other models share costs
-- nothing. GIN has no operators for integers, but it has some for arrays.
--
-- Changes of documents are collected in a list before they are sorted into the index. Each search
-- reads the whole list, so it is kept short: 1 MB takes about 1 ms.
drop index cmdb.instance_document_document_idx;

create index instance_document_document_idx
    on cmdb.instance_document using gin ((array[model_id]), document jsonb_path_ops)
    with (gin_pending_list_limit = 1024);

comment on index cmdb.instance_document_document_idx is
    'Serves searches for documents of a model that have a key with a value.';

create function cmdb.document_time() returns text language sql stable parallel safe
    return rtrim(rtrim(
        to_char(now() at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS'), '0'), '.') || 'Z';

comment on function cmdb.document_time() is
    'The time of the transaction, as documents have it: RFC 3339, in UTC, with milliseconds.';
