-- What happened, and who is told of it: events, the endpoints that take them, and every delivery.
--
-- An event is written in the commit that made it happen, so there is none of what did not happen, and none is
-- missing of what did. It is delivered after: at least once, under its id.

-- +goose Up

-- One row is something that happened. data is the object that it is about, as the API showed it then.
create table events (
    bucket       smallint    not null,
    id           text collate "C" not null,
    type         text        not null,
    customer_id  text collate "C" not null,
    wallet_id    text collate "C",
    data         text        not null,
    created_at   timestamptz not null,
    fanned       boolean     not null default false,  -- its deliveries have been written
    constraint events_pkey primary key (bucket, id)
);
create index events_to_fan on events (id) where not fanned;
create index events_newest on events (id);
create index events_of_type on events (type, id);
create index events_of_customer on events (bucket, customer_id, id);

-- One row is a receiver of the merchant's, to which events are POSTed.
create table webhook_endpoints (
    id               text collate "C" not null,
    url              text        not null,
    events           text        not null,             -- comma-separated types, or *
    description      text        not null default '',
    metadata         text        not null default '{}',
    status           text        not null default 'enabled',
    disabled_reason  text,
    secret           text        not null,             -- whsec_…: signs what is sent
    old_secret       text,                             -- signs too, until then
    old_secret_until timestamptz,
    failing_since    timestamptz,                      -- the first failure since anything was taken; null: the last try succeeded
    created_at       timestamptz not null,
    constraint webhook_endpoints_pkey primary key (id),
    constraint webhook_endpoints_status_known check (status in ('enabled', 'disabled')),
    constraint webhook_endpoints_disabled_for_a_reason check ((status = 'disabled') = (disabled_reason is not null))
);

-- One row is an event on its way to an endpoint: once for each pair, however often it is tried.
create table deliveries (
    bucket       smallint    not null,                 -- the event's
    event_id     text collate "C" not null,
    endpoint_id  text collate "C" not null,
    status       text        not null default 'pending',
    attempts     integer     not null default 0,       -- all that were ever begun
    tries        integer     not null default 0,       -- those since it was last sent anew: where in the schedule it is
    run_at       timestamptz not null,
    lease_until  timestamptz,                          -- a worker has it
    created_at   timestamptz not null,
    constraint deliveries_pkey primary key (bucket, event_id, endpoint_id),
    constraint deliveries_status_known check (status in ('pending', 'delivered', 'failed'))
);
create index deliveries_due on deliveries (endpoint_id, run_at) where status = 'pending';

-- One row is one try of a delivery and what came of it: the delivery log.
create table delivery_attempts (
    bucket       smallint    not null,
    id           text collate "C" not null,
    endpoint_id  text collate "C" not null,
    event_id     text collate "C" not null,
    event_type   text        not null,
    attempt      integer     not null,
    succeeded    boolean     not null,
    status_code  smallint,                             -- null: no answer came
    error        text        not null default '',
    response     text        not null default '',      -- the start of the answer's body
    duration_ms  integer     not null,
    next_at      timestamptz,                          -- when it is tried again; null: not
    created_at   timestamptz not null,
    constraint delivery_attempts_pkey primary key (bucket, id)
);
create index delivery_attempts_of_endpoint on delivery_attempts (endpoint_id, id);
create index delivery_attempts_oldest on delivery_attempts (id);

-- A grant's end is told of once before it comes.
alter table grants add warned_at timestamptz;
create index grants_to_warn on grants (expires_at) where live and expires_at is not null and warned_at is null;

-- A difference that no transaction explains is told of once, when it is first seen.
alter table mirrors add drift_told boolean not null default false;

-- +goose Down
alter table mirrors drop drift_told;
drop index grants_to_warn;
alter table grants drop warned_at;
drop table delivery_attempts, deliveries, webhook_endpoints, events;
