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

-- +goose Down
drop table events;
