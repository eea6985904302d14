-- Comparing all customers with Stripe.
--
-- A walk through all of them may take an hour, and goes on where it was stopped. What it finds of a customer is told
-- once, until it is gone or has become something else; mirrors.drift_told, which knew only that something was told, is
-- left to the processes of the version before.

-- +goose Up

-- One row is a walk: how far it has got, and what it has found so far.
create table walks (
    name         text collate "C" not null,   -- command, api, night: who asked for it
    state        text        not null default '',    -- JSON: its options, its place in Stripe's lists, what it has counted
    suspects     text        not null default '[]',  -- JSON: what is to be looked at by itself, in order
    findings     text        not null default '[]',  -- JSON
    lease_by     text        not null default '',    -- the process that walks
    lease_until  timestamptz,
    done_for     timestamptz,                  -- of the night's: the time of day that it was last walked to its end for
    updated_at   timestamptz not null,
    constraint walks_pkey primary key (name)
);

-- What Stripe was seen to have been paid: a payment that has succeeded, or an invoice that was paid, never is anything
-- else again, so that it need not be asked about twice.
alter table topups add column verified_at timestamptz;
alter table sales  add column verified_at timestamptz;
create index topups_unverified on topups (created_at) where status = 'succeeded' and verified_at is null;
create index sales_unverified  on sales (paid_at) where verified_at is null;
-- Whose a payment is, whoever asks.
create index topups_of_payment on topups (payment_intent) where payment_intent is not null;

-- What of a customer's differences has been told: fingerprints, with blanks between.
alter table customers add column drift_told text not null default '';

-- +goose Down
alter table customers drop column drift_told;
drop index topups_of_payment, sales_unverified, topups_unverified;
alter table sales  drop column verified_at;
alter table topups drop column verified_at;
drop table walks;
