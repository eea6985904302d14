-- The lists that operators read page by page: each choice of what is listed is found by an index, however much else there is.

-- +goose Up

-- Top-ups by how they stand and what called for them. Without one of the two, each of its few words is looked at in turn.
create index topups_of_status on topups (status, trigger, id);
create index if not exists topups_of_customer on topups (bucket, customer_id, id);

-- Events from Stripe in the order in which they came. None is an order by itself: many may come in one moment.
create index stripe_events_newest on stripe_events (received_at, id);
create index stripe_events_of_status on stripe_events (status, received_at, id);
create index stripe_events_of_type on stripe_events (type, received_at, id);
drop index stripe_events_received;

-- What became of one event on its way to the endpoints.
create index delivery_attempts_of_event on delivery_attempts (bucket, event_id, id);

-- +goose Down
create index stripe_events_received on stripe_events (received_at);
drop index delivery_attempts_of_event, stripe_events_of_type, stripe_events_of_status, stripe_events_newest, topups_of_customer, topups_of_status;
