-- Credit set aside for work whose cost is known only at its end, and credit given back.

-- +goose Up

-- One row is a hold: credit pinned on certain grants until it is captured, released, or runs out.
create table holds (
    bucket      smallint    not null,
    id          text collate "C" not null,
    wallet_id   text collate "C" not null,
    status      text        not null default 'open',
    amount      bigint      not null,
    captured    bigint      not null default 0,   -- what was taken by it, also beyond amount
    parts       text        not null,             -- "grt_…:steps,…": what is still pinned, in the order it is taken
    expires_at  timestamptz not null,
    metadata    text        not null default '{}',
    created_at  timestamptz not null,
    constraint holds_pkey primary key (bucket, id),
    constraint holds_status_known check (status in ('open', 'captured', 'released', 'expired')),
    constraint holds_ended_pin_nothing check (status = 'open' or parts = '')
);
create index holds_expiring on holds (expires_at) where status = 'open';
create index holds_open on holds (bucket, wallet_id) where status = 'open';

-- How much of a debit was given back is read from its reversals.
create index entries_reversals on entries (bucket, refers_to) where type = 'reversal';

-- +goose Down
drop index entries_reversals;
drop table holds;
