-- Credit sold by Stripe alone: packs and plans that are set up as prices in Stripe, and what their payments gave.

-- +goose Up

-- One row says whose a sale is: an invoice, a checkout session, or a subscription with all its invoices. A directory,
-- not part of any wallet's commit. The first to say so holds, so that no sale is ever two customers'.
create table sale_owners (
    id           text collate "C" not null,   -- in_…, cs_…, sub_…
    bucket       smallint    not null,
    customer_id  text collate "C" not null,
    constraint sale_owners_pkey primary key (id)
);

-- One row is an invoice or a checkout session that was paid and read to its end.
create table sales (
    bucket          smallint    not null,
    id              text collate "C" not null,
    customer_id     text collate "C" not null,
    payment_intent  text collate "C",
    paid_at         timestamptz not null,
    applied_at      timestamptz not null,
    constraint sales_pkey primary key (bucket, id)
);

-- One row is a line of a sale whose price sells credit, written in the commit of what the line did: it is what makes
-- that happen once. What a renewal carries over is a line of its own.
create table sold_lines (
    bucket             smallint    not null,
    id                 text collate "C" not null,  -- "in_…/il_…", "in_…/il_…/rollover", "cs_…/li_…": the source of its grant
    wallet_id          text collate "C" not null,
    steps              bigint      not null,       -- what it gave, or, negative, took back
    grant_id           text collate "C",           -- null: it gave nothing
    subscription_item  text collate "C",
    period_start       timestamptz,                -- what the line pays for
    period_end         timestamptz,
    rollover           bigint,                     -- most steps of it that a renewal carries over; null: none
    withheld           bigint      not null default 0,  -- of what expired of it: taken back by a change heard of only after that
    rolled_to          text collate "C",           -- the line that carried it over
    constraint sold_lines_pkey primary key (bucket, id),
    constraint sold_lines_gave check ((grant_id is null) = (steps <= 0))
);
create index sold_lines_of_period on sold_lines (bucket, subscription_item, period_end) where grant_id is not null;

-- How much of a grant expired is read from its entries.
create index entries_expired on entries (bucket, refers_to) where type = 'expire';

-- +goose Down
drop index entries_expired;
drop table sold_lines, sales, sale_owners;
