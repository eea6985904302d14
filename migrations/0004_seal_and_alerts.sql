-- The books sealed entry by entry, usage counted as it goes, and who is told when a balance runs low.

-- +goose Up

-- An entry's seal is the SHA-256 of the seal before it in its wallet and of everything in the entry, so that a row
-- changed behind our back is found, and named. Entries from before this migration have none; the chain begins after them.
alter table entries
    add column used_after bigint not null default 0,  -- usage of the wallet so far: between two entries, their difference
    add column seal bytea,
    add column rated text;  -- of a debit by the rate card: "feature version quantity"

alter table wallets
    add column used        bigint  not null default 0,  -- of the last entry
    add column seal        bytea,                       -- of the last entry
    add column barred      boolean not null default false,  -- its customer is frozen or deleted
    add column full_amount bigint  not null default 0,  -- available right after the last grant or refill came in force: what percents are of
    add column alert_state text    not null default 'ok',
    add column quiet_from  bigint,  -- no alert begins or ends while quiet_from <= available < quiet_below; null: without end
    add column quiet_below bigint,
    add constraint wallets_alert_state_known check (alert_state in ('ok', 'info', 'warning', 'critical', 'depleted'));

update wallets set barred = true, status = 'active' where status = 'frozen'
    and exists (select from customers c where c.bucket = wallets.bucket and c.id = wallets.customer_id and c.status = 'deleted');
update wallets w set full_amount = coalesce((select r.full_amount from topup_rules r
        where r.bucket = w.bucket and r.wallet_id = w.id and r.threshold_percent is not null), greatest(total - held, 0)),
    alert_state = case when total - held + overdraft_limit <= 0 then 'depleted' else 'ok' end,
    quiet_from  = case when total - held + overdraft_limit <= 0 then null else 1 - overdraft_limit end,
    quiet_below = case when total - held + overdraft_limit <= 0 then 1 - overdraft_limit end;

alter table topup_rules drop column full_amount;  -- the wallet's own now

-- One row is a level of a wallet's balance at which somebody is to be told.
create table wallet_alerts (
    bucket     smallint    not null,
    wallet_id  text collate "C" not null,
    place      smallint    not null,   -- in the order in which they were given
    level      text        not null,
    direction  text        not null,   -- it is on while available is below (above) that
    amount     bigint,                 -- steps; this or percent
    percent    smallint,               -- of wallets.full_amount
    active     boolean     not null default false,
    constraint wallet_alerts_pkey primary key (bucket, wallet_id, place),
    constraint wallet_alerts_level_known check (level in ('info', 'warning', 'critical')),
    constraint wallet_alerts_direction_known check (direction in ('below', 'above')),
    constraint wallet_alerts_one_threshold check ((amount is null) <> (percent is null))
);

-- +goose Down
drop table wallet_alerts;
alter table topup_rules add column full_amount bigint not null default 0;
alter table wallets drop column used, drop column seal, drop column barred, drop column full_amount, drop column alert_state,
    drop column quiet_from, drop column quiet_below;
alter table entries drop column used_after, drop column seal, drop column rated;
