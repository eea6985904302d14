-- Money in, and the balance in Stripe: auto top-up rules, top-ups, the mirror, and what Stripe told us.
--
-- Nothing here is done inside a transaction that waits for Stripe: a row says what is about to be asked,
-- under which key and with which parameters; then Stripe is asked; then the row learns the outcome.

-- +goose Up

-- One row is the auto top-up rule of a wallet.
create table topup_rules (
    bucket                 smallint    not null,
    wallet_id              text collate "C" not null,
    enabled                boolean     not null,
    threshold              bigint,           -- steps; this or threshold_percent
    threshold_percent      smallint,         -- of what was available right after the last grant or refill came in force
    full_amount            bigint      not null default 0,  -- that amount
    amount                 bigint,           -- steps; this or target
    target                 bigint,
    cap_amount             bigint,           -- minor units of cap_currency; null: no cap
    cap_currency           text collate "C",
    cap_interval           text,
    mode                   text        not null,
    settlement             text        not null,
    payment_method         text collate "C", -- null: the customer's default at Stripe when the charge is made
    grant_kind             text        not null,
    grant_priority         smallint    not null,
    grant_expires_in_days  integer,
    pause_reason           text,             -- null: not paused
    pause_since            timestamptz,
    pause_until            timestamptz,      -- a cap's pause ends by itself when its period turns
    pause_method           text collate "C", -- the payment method that failed: the same one again clears nothing
    pause_topup            text collate "C", -- the top-up that the pause is about
    updated_at             timestamptz not null,
    constraint topup_rules_pkey primary key (bucket, wallet_id),
    constraint topup_rules_one_threshold check ((threshold is null) <> (threshold_percent is null)),
    constraint topup_rules_one_size check ((amount is null) <> (target is null)),
    constraint topup_rules_cap_whole check ((cap_amount is null) = (cap_currency is null) and (cap_amount is null) = (cap_interval is null)),
    constraint topup_rules_pause_known check (pause_reason in ('payment_failed', 'action_required', 'no_payment_method', 'spend_cap', 'dispute', 'manual'))
);
create index topup_rules_waiting on topup_rules (pause_until) where pause_until is not null;

-- One row is one purchase of credit, from the intent to charge a card to the grant that it paid for.
create table topups (
    bucket           smallint    not null,
    id               text collate "C" not null,
    wallet_id        text collate "C" not null,
    customer_id      text collate "C" not null,
    trigger          text        not null,
    mode             text        not null,
    status           text        not null,
    amount           bigint      not null,   -- steps of the wallet's asset
    charge           bigint      not null,   -- minor units of currency
    currency         text collate "C" not null,
    attempt          integer     not null default 1,
    payment_method   text collate "C",       -- as asked for; null: the customer's default, found before the call
    params           text,                   -- the exact parameters of this attempt's call, fixed before it is made
    called_at        timestamptz,            -- first call of this attempt; after 23 hours it is looked up, never resent
    payment_intent   text collate "C",
    failure_code     text,
    decline_code     text,
    failure_message  text,
    grant_id         text collate "C" not null,  -- pending until paid, voided when it fails
    expires_in_days  integer,                    -- of the grant, from its payment on; null: never
    cap_used         bigint,                 -- auto: what the cap's period had charged and in flight, this one included
    cap_amount       bigint,                 -- auto: the cap in force then
    cancel           boolean     not null default false,  -- its payment is to be canceled at Stripe
    lease_until      timestamptz,            -- a worker has it
    tries            integer     not null default 0,
    run_at           timestamptz not null,   -- when a worker should look at it next
    settled_at       timestamptz,
    created_at       timestamptz not null,
    constraint topups_pkey primary key (bucket, id),
    constraint topups_trigger_known check (trigger in ('auto', 'manual')),
    constraint topups_status_known check (status in ('pending', 'processing', 'action_required', 'succeeded', 'failed', 'canceled')),
    constraint topups_within_cap check (trigger <> 'auto' or cap_amount is null or cap_used <= cap_amount)
);
-- At most one top-up of a wallet is in flight: the database says so, whatever the code does.
create unique index topups_one_in_flight on topups (bucket, wallet_id) where status in ('pending', 'processing', 'action_required');
create unique index topups_payment_intent on topups (bucket, payment_intent) where payment_intent is not null;
create index topups_due on topups (run_at) where status in ('pending', 'processing', 'action_required');
create index topups_newest on topups (id);
create index topups_of_wallet on topups (bucket, wallet_id, id);

-- One row is what is known of a customer's balance in Stripe.
create table mirrors (
    bucket           smallint    not null,
    customer_id      text collate "C" not null,
    stripe_customer  text collate "C" not null,
    currency         text collate "C" not null,
    credit           bigint      not null default 0,  -- minor units of credit (Stripe's balance, negated) by all transactions known here
    listed_to        text collate "C",  -- the newest transaction when Stripe's list was last read to its end; null: never read
    import_due       boolean     not null default true,   -- Stripe may hold transactions that we have not seen
    lease_until      timestamptz,      -- one writer per customer at a time
    run_at           timestamptz not null,
    tries            integer     not null default 0,
    checked_at       timestamptz,
    constraint mirrors_pkey primary key (bucket, customer_id)
);
create index mirrors_import_due on mirrors (run_at) where import_due;

-- One row is a balance transaction that we are about to make, make, or have made at Stripe.
create table flushes (
    bucket       smallint    not null,
    id           text collate "C" not null,
    customer_id  text collate "C" not null,
    amount       bigint      not null,   -- Stripe's sign: negative gives credit
    params       text        not null,   -- the exact parameters
    status       text        not null default 'pending',
    called_at    timestamptz,
    transaction  text collate "C",       -- Stripe's id, once known
    created_at   timestamptz not null,
    constraint flushes_pkey primary key (bucket, id),
    constraint flushes_status_known check (status in ('pending', 'done', 'failed'))
);
create unique index flushes_one_open on flushes (bucket, customer_id) where status = 'pending';

-- One row is a balance transaction at Stripe: ours (with the flush that asked for it) or a stranger's.
create table balance_transactions (
    bucket          smallint    not null,
    id              text collate "C" not null,  -- Stripe's
    customer_id     text collate "C" not null,
    amount          bigint      not null,       -- Stripe's sign
    type            text        not null,
    flush_id        text collate "C",           -- null: a stranger's, booked as entries
    created_at      timestamptz not null,       -- Stripe's
    constraint balance_transactions_pkey primary key (bucket, id)
);
create index balance_transactions_of_customer on balance_transactions (bucket, customer_id);

-- One row is an event that Stripe sent or that was fetched from it, kept as it came.
create table stripe_events (
    id           text collate "C" not null,
    type         text        not null,
    api_version  text        not null default '',
    livemode     boolean     not null,
    payload      text        not null,
    origin       text        not null,       -- webhook or backfill: who brought it first
    status       text        not null default 'pending',
    tries        integer     not null default 0,
    run_at       timestamptz not null,
    last_error   text        not null default '',
    created_at   timestamptz not null,       -- Stripe's, in seconds: not an order
    received_at  timestamptz not null,
    done_at      timestamptz,
    constraint stripe_events_pkey primary key (id),
    constraint stripe_events_status_known check (status in ('pending', 'done', 'ignored', 'failed'))
);
create index stripe_events_due on stripe_events (run_at) where status = 'pending';
create index stripe_events_received on stripe_events (received_at);

-- One row remembers how far something has got: the backfill of events, for one.
create table progress (
    name        text collate "C" not null,
    at          timestamptz not null,
    constraint progress_pkey primary key (name)
);

-- +goose Down
drop table progress, stripe_events, balance_transactions, flushes, mirrors, topups, topup_rules;
