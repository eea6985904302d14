-- What usage costs: features, in versions that are never changed, so that a debit can always be explained.

-- +goose Up

-- One row is what a feature costs from a moment on, until a later version's moment.
create table features (
    key           text collate "C" not null,
    version       integer     not null,   -- 1, 2, 3 …
    asset         text collate "C" not null,
    name          text        not null default '',
    unit_cost     text,                   -- a decimal in the asset's unit; this or tiers
    tiers         text,                   -- JSON: [{"up_to":…,"unit_cost":…,"flat_cost":…}, …], the last up_to null
    tier_mode     text,
    minimum_cost  text,                   -- of one usage event
    effective_at  timestamptz not null,
    created_at    timestamptz not null,
    constraint features_pkey primary key (key, version),
    constraint features_one_price check ((unit_cost is null) <> (tiers is null)),
    constraint features_tier_mode_known check (tier_mode in ('graduated', 'volume')),
    constraint features_tiers_have_mode check ((tiers is null) = (tier_mode is null))
);

-- +goose Down
drop table features;
