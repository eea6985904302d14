-- The operators' console: who is signed in, and what was done by hand.

-- +goose Up

-- One row is a person who is signed in at the console, by an API key with the scope admin. The cookie has the secret; only
-- its hash is here. A session ends with its key: revoked, or replaced by another under the same id.
create table console_sessions (
    hash        bytea       not null,   -- SHA-256 of 256 random bits
    key_id      text collate "C" not null,
    key_hash    bytea       not null,   -- the key's when the session began
    operator    text        not null,   -- the name that the person gave
    created_at  timestamptz not null,
    seen_at     timestamptz not null,   -- of the last page that the person asked for, to the minute
    expires_at  timestamptz not null,
    constraint console_sessions_pkey primary key (hash)
);

-- One row is one act of an operator in the console. It is written before the act is done, with no outcome: a row that has
-- none says that nobody knows, and the ledger, under the key "console:" and the row's id, does. Nothing of it ever changes
-- but the outcome, once.
create table acts (
    id           text collate "C" not null,   -- act_…, the form's own: sent twice, it is one act
    at           timestamptz not null,
    operator     text        not null,
    key_id       text collate "C" not null,
    key_name     text        not null,
    action       text collate "C" not null,   -- grant, void_grant, freeze …
    customer_id  text collate "C" not null default '',
    object       text collate "C" not null default '',  -- the id of what it was done to
    reason       text        not null,
    request      bigint      not null,        -- fingerprint of what the form asked for
    shown        text        not null,        -- JSON: what the operator had been shown that it would do
    outcome      text        not null default '',  -- done, refused; '' while nobody knows
    said         text        not null default '',  -- what it came to, in words
    result       text collate "C" not null default '',  -- the id of what it made
    ended_at     timestamptz,
    constraint acts_pkey primary key (id),
    constraint acts_outcome_known check (outcome in ('', 'done', 'refused')),
    constraint acts_ended check ((outcome = '') = (ended_at is null))
);
create index acts_newest on acts (at, id);
create index acts_of_customer on acts (customer_id, at, id);
create index acts_of_action on acts (action, at, id);

-- One row is what an operator was shown that an act would do. It becomes part of the act's row when that is begun; those
-- that nobody went on with are deleted after a day.
create table act_previews (
    id       text collate "C" not null,
    request  bigint      not null,
    shown    text        not null,  -- JSON
    at       timestamptz not null,
    constraint act_previews_pkey primary key (id)
);
create index act_previews_at on act_previews (at);

-- Customers are searched by how their id, their e-mail address and their name begin.
create index customers_email on customers (lower(email) collate "C", id) where email <> '';
create index customers_name  on customers (lower(name) collate "C", id) where name <> '';
create index customers_ids   on customers (id);

-- What the overview counts is found without reading the rest.
create index customers_drifted   on customers (id) where drift_told <> '';
create index topup_rules_paused  on topup_rules (pause_reason, bucket, wallet_id) where pause_reason is not null and enabled;
create index stripe_events_stuck on stripe_events (received_at) where status = 'failed';
-- The newest of a customer's balance transactions stand beside Stripe's own list.
create index balance_transactions_newest on balance_transactions (bucket, customer_id, created_at, id);
drop index balance_transactions_of_customer;

-- +goose Down
create index balance_transactions_of_customer on balance_transactions (bucket, customer_id);
drop index balance_transactions_newest, stripe_events_stuck, topup_rules_paused, customers_drifted;
drop index customers_ids, customers_name, customers_email;
drop table act_previews, acts, console_sessions;
