-- What a debit costs.
--
-- A posting goes to the server as three arrays of rows in binary form, one of each type below: a third of the work of
-- an array of text for every column.
--
-- A debit's id says where its entry is: the last ten characters are those of its wallet's id, the four before them the
-- last twenty bits of its seq. So debits, which are nearly all entries, need no index of ids.

-- +goose Up

-- One of these is an entry as it is posted.
create type posted_entry as (
    bucket         smallint,
    wallet_id      text,
    seq            bigint,
    id             text,
    type           text,
    amount         bigint,
    held           bigint,
    balance_after  bigint,
    held_after     bigint,
    pending_after  bigint,
    used_after     bigint,
    parts          text,
    reason         text,
    refers_to      text,
    key            text,
    request        bigint,
    metadata       text,
    rated          text,
    seal           bytea,
    created_at     timestamptz
);

-- One of these is the state in which a posting leaves a grant.
create type posted_grant as (
    bucket     smallint,
    id         text,
    remaining  bigint,
    held       bigint,
    status     text,
    in_force   boolean
);

-- One of these is the state in which a posting leaves a wallet.
create type posted_wallet as (
    bucket       smallint,
    id           text,
    version      bigint,   -- null, or what it must be for any of the posting to be written
    total        bigint,
    held         bigint,
    pending      bigint,
    debt         bigint,
    stripe_debt  bigint,
    seq          bigint,
    used         bigint,
    seal         bytea,
    entered_at   timestamptz
);

-- The ids of debits that were booked before are shorter, and say nothing.
alter table entries drop constraint entries_id;
create unique index entries_id on entries (bucket, id) where type <> 'debit' or octet_length(id) < 28;
create index wallets_tail on wallets (bucket, right(id, 10));

-- An unknown type is a finding of `lockstep verify`; to compare twelve words with each debit is not worth it.
alter table entries drop constraint entries_type_known;

-- +goose Down
alter table entries add constraint entries_type_known check (type in ('grant', 'debit', 'hold', 'capture', 'release', 'expire', 'void',
    'refund', 'dispute', 'reversal', 'stripe_balance', 'adjustment'));
drop index wallets_tail, entries_id;
alter table entries add constraint entries_id unique (bucket, id);
drop type posted_wallet, posted_grant, posted_entry;
