-- A card that was declined for a passing reason may be tried again.

-- +goose Up
alter table topup_rules
    add column decline_retries smallint not null default 0,  -- how often, days apart
    add column retried         smallint not null default 0,  -- since a payment last went through
    add constraint topup_rules_decline_retries_range check (decline_retries between 0 and 4);

-- +goose Down
alter table topup_rules drop column decline_retries, drop column retried;
