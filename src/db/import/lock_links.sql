-- Blocks writers of links, and transactions that delete what links refer to, until this transaction
-- ends. What is merged from here on depends on the stored rows. A transaction that deletes a model
-- association locks the two tables in the same order.
lock table cmdb.instance_association in share row exclusive mode;

