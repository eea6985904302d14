-- Credit bought by an invoice.
--
-- Stripe pays any invoice that it finalizes with the customer's balance first, the invoice of a top-up too. So that the
-- customer pays for all of what they buy and keeps what they had, the mirror shows nothing while such an invoice is
-- about to be finalized (step 2), and is restored after it.

-- +goose Up
alter table topups
    add column invoice      text collate "C",             -- Stripe's, once known; of mode invoice alone
    add column invoice_step smallint not null default 0,  -- 1: drafted, 2: complete, to be finalized, 3: finalized, or given up
    add constraint topups_invoice_step_range check (invoice_step between 0 and 3);

-- One invoice pays for one top-up.
create unique index topups_invoice on topups (bucket, invoice) where invoice is not null;
-- Whose mirror shows nothing for now: a handful of rows.
create index topups_finalizing on topups (bucket, customer_id) where invoice_step = 2;

-- +goose Down
drop index topups_invoice, topups_finalizing;
alter table topups drop column invoice, drop column invoice_step;
