-- The books read: reports over a stretch of time, and a rule that looks ahead.

-- +goose Up

-- Entries are only ever added, so a month of them lies together on disk: a BRIN index finds it and costs a debit nothing.
create index entries_created on entries using brin (created_at) with (autosummarize = on);

alter table topup_rules
    add column runway_minutes integer,                 -- the rule also acts when the balance won't last that long; null: it doesn't
    add column looked_seq     bigint not null default 0,  -- the wallet's last entry when its rate was last looked at
    add constraint topup_rules_runway_range check (runway_minutes between 1 and 43200);
create index topup_rules_runway on topup_rules (bucket, wallet_id) where runway_minutes is not null and enabled;

-- +goose Down
drop index topup_rules_runway, entries_created;
alter table topup_rules drop column runway_minutes, drop column looked_seq;
