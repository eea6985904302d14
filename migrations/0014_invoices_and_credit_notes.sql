-- What Stripe's balance paid, and what credit notes gave.

-- +goose Up

-- What made a balance transaction, where something did. Null too on those that were booked before this migration.
alter table balance_transactions
    add column invoice      text collate "C",
    add column credit_note  text collate "C";
create index balance_transactions_of_invoice on balance_transactions (bucket, invoice) where invoice is not null;
create index balance_transactions_of_credit_note on balance_transactions (bucket, credit_note) where credit_note is not null;

-- One row is what an invoice took from one wallet of a customer by one balance transaction, so that the same goes back
-- to the same grants when the invoice is voided.
create table invoice_spendings (
    bucket     smallint    not null,
    id         text collate "C" not null,   -- the balance transaction's
    wallet_id  text collate "C" not null,
    place      smallint    not null,        -- in the order in which the wallets were asked
    minor      bigint      not null,        -- of the transaction's amount, what this wallet paid
    steps      bigint      not null,        -- and in its asset
    entry_id   text collate "C" not null,   -- its parts say which grants paid
    returned   bigint      not null default 0,  -- steps that came back, those of the last part first
    constraint invoice_spendings_pkey primary key (bucket, id, wallet_id),
    constraint invoice_spendings_within check (minor > 0 and steps > 0 and returned between 0 and steps)
);

-- Money that a credit note says was given back outside Stripe is clawed back too. It is of an invoice, which may have no
-- payment at Stripe.
alter table clawbacks
    alter column payment_intent drop not null,
    add column invoice text collate "C",
    drop constraint clawbacks_kind_known,
    add constraint clawbacks_kind_known check (kind in ('refund', 'dispute', 'credit_note')),
    add constraint clawbacks_of_something check (payment_intent is not null or invoice is not null);

-- Whose rule names a card that was taken away.
create index topup_rules_of_method on topup_rules (payment_method) where payment_method is not null;

-- +goose Down
drop index topup_rules_of_method;
delete from clawback_grants g using clawbacks c where c.bucket = g.bucket and c.id = g.id and c.kind = 'credit_note';
delete from clawbacks where kind = 'credit_note';
alter table clawbacks
    drop constraint clawbacks_of_something,
    drop constraint clawbacks_kind_known,
    add constraint clawbacks_kind_known check (kind in ('refund', 'dispute')),
    drop column invoice,
    alter column payment_intent set not null;
drop table invoice_spendings;
drop index balance_transactions_of_invoice, balance_transactions_of_credit_note;
alter table balance_transactions drop column invoice, drop column credit_note;
