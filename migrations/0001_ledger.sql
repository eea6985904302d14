-- The ledger: who has credit, where it came from, and every movement of it.
--
-- Amounts are bigint in the smallest step of the wallet's asset (scale 6: one step is 0.000001).
-- Charges are bigint in Stripe's smallest unit of the currency. Nothing here is a float.
--
-- bucket is a small hash of the customer's id (0–63), fixed when the customer is made. Every table that
-- commits together with a wallet carries it in its primary key and in every unique constraint, so that the
-- schema can be distributed by bucket over several machines and each transaction stays on one of them.
-- Ids end in their bucket, so that whoever holds an id can find the row without asking every bucket.

-- +goose Up

-- One row is a kind of credit that the merchant made up: tokens, messages, minutes.
-- ISO currencies are assets without a row here: scale 6, one unit costs one unit of the currency.
create table assets (
    code        text collate "C" not null,
    scale       smallint    not null,
    price_pico  bigint,                  -- price of one unit, in currency × 10^-12; null: granted and spent, never bought
    currency    text collate "C",
    created_at  timestamptz not null,
    updated_at  timestamptz not null,
    constraint assets_pkey primary key (code),
    constraint assets_scale_range check (scale between 0 and 9),
    constraint assets_price_with_currency check ((price_pico is null) = (currency is null)),
    constraint assets_price_positive check (price_pico > 0)
);

-- One row is a customer of the merchant, under the merchant's own id.
create table customers (
    bucket           smallint    not null,
    id               text collate "C" not null,
    stripe_customer  text collate "C",   -- null until Stripe has answered
    email            text        not null default '',
    name             text        not null default '',
    currency         text collate "C",   -- the currency of the balance in Stripe; fixed once there is one
    status           text        not null default 'active',
    metadata         text        not null default '{}',
    created_at       timestamptz not null,
    constraint customers_pkey primary key (bucket, id),
    constraint customers_status_known check (status in ('active', 'frozen', 'deleted'))
);
create index customers_created on customers (created_at, id);

-- One row says which customer a Stripe customer belongs to: a directory, not part of any wallet's commit.
-- Its key is what refuses two customers on one Stripe customer.
create table stripe_links (
    stripe_customer  text collate "C" not null,
    bucket           smallint    not null,
    customer_id      text collate "C" not null,
    constraint stripe_links_pkey primary key (stripe_customer)
);

-- One row is one balance of one customer in one asset. Its row lock is what makes debits take turns.
create table wallets (
    bucket           smallint    not null,
    id               text collate "C" not null,
    customer_id      text collate "C" not null,
    asset            text collate "C" not null,
    scale            smallint    not null,   -- the asset's, which never changes
    scope            text        not null,
    status           text        not null default 'active',
    total            bigint      not null default 0,  -- sum of the entries: available + held
    held             bigint      not null default 0,
    pending          bigint      not null default 0,  -- waits for a payment; not in total
    debt             bigint      not null default 0,  -- taken beyond all grants; the next grant pays it down
    stripe_debt      bigint      not null default 0,  -- the part of debt that Stripe's own balance shows as owed
    overdraft_limit  bigint      not null default 0,
    seq              bigint      not null default 0,  -- of the last entry
    version          bigint      not null default 0,  -- moves with every change that a debit could be decided by
    mirrored_seq     bigint      not null default 0,  -- up to which entry Stripe's balance is known to follow
    entered_at       timestamptz not null,            -- of the last entry; entries of a wallet never go back in time
    turns_at         timestamptz,                     -- when the next grant comes in force or expires
    refill_below     bigint,                          -- armed auto top-up: fires when available + pending falls below
    created_at       timestamptz not null,
    constraint wallets_pkey primary key (bucket, id),
    constraint wallets_one_per_scope unique (bucket, customer_id, asset, scope),
    constraint wallets_scope_known check (scope in ('all', 'usage', 'invoices')),
    constraint wallets_status_known check (status in ('active', 'frozen', 'closed')),
    constraint wallets_not_negative check (held >= 0 and pending >= 0 and debt >= 0
        and stripe_debt between 0 and debt and overdraft_limit >= 0)
) with (fillfactor = 50);  -- room for the next version of a row beside it: a debit rewrites it in place

-- One row is a grant: a tranche of credit with its own terms.
create table grants (
    bucket         smallint    not null,
    id             text collate "C" not null,
    wallet_id      text collate "C" not null,
    amount         bigint      not null,
    remaining      bigint      not null,
    held           bigint      not null default 0,
    kind           text        not null,
    kind_rank      smallint    not null,   -- plan 0, promotional 1, adjustment 2, purchased 3: the third word in burn order
    priority       smallint    not null,
    covers         text        not null,
    status         text        not null,
    live           boolean     not null,   -- a debit may take from it now: confirmed, in force, something left
    in_force       boolean     not null,   -- its entry is booked, so it is part of the wallet's total
    effective_at   timestamptz not null,
    expires_at     timestamptz,
    reason         text        not null default '',
    cost_amount    bigint,
    cost_currency  text collate "C",
    source_type    text        not null,
    source_id      text collate "C" not null,  -- what paid for it; unique, so that one payment gives at most one grant
    metadata       text        not null default '{}',
    created_at     timestamptz not null,
    constraint grants_pkey primary key (bucket, id),
    constraint grants_source unique (bucket, source_id),
    constraint grants_within_amount check (remaining between 0 and amount and held between 0 and remaining and amount > 0),
    constraint grants_kind_known check (kind in ('plan', 'promotional', 'adjustment', 'purchased')),
    constraint grants_priority_range check (priority between 0 and 100),
    constraint grants_covers_known check (covers in ('usage', 'all')),
    constraint grants_status_known check (status in ('pending', 'confirmed', 'exhausted', 'expired', 'voided', 'frozen')),
    constraint grants_live_means check (not live or (in_force and status = 'confirmed' and remaining > 0))
) with (fillfactor = 50);
-- Burn order. remaining is not in it, nor in its condition, so that a debit leaves every index alone.
create index grants_burn_order on grants (bucket, wallet_id, priority, expires_at, kind_rank, id) where live;
create index grants_newest on grants (id);
create index grants_of_wallet on grants (bucket, wallet_id, id);
create index grants_expiring on grants (expires_at) where live and expires_at is not null;
create index grants_starting on grants (effective_at) where status = 'confirmed' and not in_force;

-- One row is one movement of one wallet, never changed. A debit is its entry: deb_X and ent_X are one row.
create table entries (
    bucket         smallint    not null,
    wallet_id      text collate "C" not null,
    seq            bigint      not null,    -- 1, 2, 3 … in each wallet, without a gap
    id             text collate "C" not null,
    type           text        not null,
    amount         bigint      not null,    -- what it did to the wallet's total
    held           bigint      not null default 0,  -- what it did to held
    balance_after  bigint      not null,    -- the wallet's total after it
    held_after     bigint      not null default 0,
    pending_after  bigint      not null default 0,
    parts          text        not null,    -- "grt_…:steps,…" sums to amount; without a grant it is debt, "stripe" debt that Stripe shows
    reason         text        not null default '',
    refers_to      text collate "C",        -- the grant, top-up, debit or Stripe object that it is about
    key            text collate "C",        -- the caller's idempotency key
    request        bigint,                  -- fingerprint of the request that used the key
    metadata       text,                    -- null: none was sent
    created_at     timestamptz not null,
    constraint entries_pkey primary key (bucket, wallet_id, seq),
    constraint entries_id unique (bucket, id),
    constraint entries_type_known check (type in ('grant', 'debit', 'hold', 'capture', 'release', 'expire', 'void',
        'refund', 'dispute', 'reversal', 'stripe_balance', 'adjustment'))
);
create unique index entries_key on entries (bucket, key) where key is not null;

-- One row is the answer to a POST under an idempotency key (debits keep theirs in their entry).
-- It is written with the effect itself; body is filled before the answer is sent.
create table answers (
    bucket      smallint    not null,
    key         text collate "C" not null,
    request     bigint      not null,
    refers_to   text collate "C" not null default '',  -- what the call made
    status      smallint,
    body        text,
    created_at  timestamptz not null,
    constraint answers_pkey primary key (bucket, key)
);

-- One row is a key that may call the API. Only its hash is here.
create table api_keys (
    id          text collate "C" not null,
    name        text        not null,
    hash        bytea       not null,      -- SHA-256 of the key: 256 random bits need no slow hash
    hint        text        not null,      -- the key's last four characters
    scopes      text        not null,      -- comma-separated: usage, read, write, admin
    created_at  timestamptz not null,
    revoked_at  timestamptz,
    constraint api_keys_pkey primary key (id),
    constraint api_keys_hash unique (hash)
);

-- +goose Down
drop table api_keys, answers, entries, grants, wallets, stripe_links, customers, assets;
