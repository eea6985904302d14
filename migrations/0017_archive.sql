-- Old entries move out of the way of the debits: `lockstep archive` takes what is older than the keys' promise out of
-- entries, a month after the other, into partitions that can lie on slower disks and be detached.
--
-- entries itself is not partitioned: an index that is unique over partitions by time can't refuse a key that was used in
-- the month before. It is kept small instead. The keys of what was moved are free again, so nothing looks for them there.

-- +goose Up

-- One row is an entry that was moved here, as it was. Of each wallet it is the first ones that are here, in whole: what
-- entries has of it begins after the last of them.
create table archived_entries (
    bucket         smallint    not null,
    wallet_id      text collate "C" not null,
    seq            bigint      not null,
    id             text collate "C" not null,
    type           text        not null,
    amount         bigint      not null,
    held           bigint      not null,
    balance_after  bigint      not null,
    held_after     bigint      not null,
    pending_after  bigint      not null,
    used_after     bigint      not null,
    parts          text        not null,
    reason         text        not null,
    refers_to      text collate "C",
    key            text collate "C",
    request        bigint,
    metadata       text,
    rated          text,
    seal           bytea,
    created_at     timestamptz not null,
    constraint archived_entries_pkey primary key (bucket, wallet_id, seq, created_at)  -- created_at: PostgreSQL wants the partitions' key in it
) partition by range (created_at);
create index archived_entries_id on archived_entries (bucket, id) where type <> 'debit' or octet_length(id) < 28;
create index archived_entries_reversals on archived_entries (bucket, refers_to) where type = 'reversal';
create index archived_entries_expired on archived_entries (bucket, refers_to) where type = 'expire';
create index archived_entries_created on archived_entries using brin (created_at);

-- One row is a month, in UTC, that has a partition of archived_entries, or had one: whoever adds up entries of a month
-- that was detached has to hear of it.
create table archived_months (
    month       date        not null,  -- its first day
    partition   text collate "C" not null,
    created_at  timestamptz not null,
    constraint archived_months_pkey primary key (month)
);

-- All entries, wherever they are; each once in any snapshot.
create view all_entries as
select bucket, wallet_id, seq, id, type, amount, held, balance_after, held_after, pending_after, used_after, parts, reason,
    refers_to, key, request, metadata, rated, seal, created_at
from entries
union all
select bucket, wallet_id, seq, id, type, amount, held, balance_after, held_after, pending_after, used_after, parts, reason,
    refers_to, key, request, metadata, rated, seal, created_at
from archived_entries;

-- The answers of a day lie together on disk, too: those whose keys have run out are found by it.
create index answers_created on answers using brin (created_at) with (autosummarize = on);

-- +goose Down
insert into entries (bucket, wallet_id, seq, id, type, amount, held, balance_after, held_after, pending_after, used_after, parts,
    reason, refers_to, metadata, rated, seal, created_at, key, request)
select bucket, wallet_id, seq, id, type, amount, held, balance_after, held_after, pending_after, used_after, parts,
    reason, refers_to, metadata, rated, seal, created_at, key, request
from archived_entries;
drop index answers_created;
drop view all_entries;
drop table archived_months, archived_entries;
