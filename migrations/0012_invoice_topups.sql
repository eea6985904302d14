-- Credit bought by an invoice.
--
-- Stripe pays any invoice that it finalizes with the customer's balance first, the invoice of a top-up too. So that the
-- customer pays for all of what they buy and keeps what they had, the mirror shows nothing while such an invoice is
-- about to be finalized (step 2), and is restored after it.
--
-- An invoice is charged to the saved card, or sent to the customer to be paid within days. Tax comes on top of the
-- credit: a top-up's charge is with it, once Stripe has said how much it is.

-- +goose Up
alter table topups
    add column invoice      text collate "C",             -- Stripe's, once known; of mode invoice alone
    add column invoice_step smallint not null default 0,  -- 1: drafted, 2: complete, to be finalized, 3: finalized, or given up, 4: sent
    add column automatic_tax  boolean not null default false,
    add column days_until_due smallint,                   -- where it is sent to the customer; null where the card is charged
    add column tax            bigint,                     -- the part of charge that is tax, once known
    add constraint topups_invoice_step_range check (invoice_step between 0 and 4),
    add constraint topups_tax_range check (tax between 0 and charge);

alter table topup_rules
    add column automatic_tax  boolean not null default false,
    add column days_until_due smallint;

-- One invoice pays for one top-up.
create unique index topups_invoice on topups (bucket, invoice) where invoice is not null;
-- Whose mirror shows nothing for now: a handful of rows.
create index topups_finalizing on topups (bucket, customer_id) where invoice_step = 2;

-- +goose Down
drop index topups_invoice, topups_finalizing;
alter table topups drop column invoice, drop column invoice_step, drop column automatic_tax, drop column days_until_due, drop column tax;
alter table topup_rules drop column automatic_tax, drop column days_until_due;
