-- Credit bought on a page of Stripe's: the page, and where its customer goes from there.

-- +goose Up
alter table topups
    add column checkout_session text collate "C",   -- Stripe's, once known; of mode checkout alone
    add column url              text,               -- where the customer pays
    add column success_url      text;               -- where Stripe sends the customer when they have

-- One page pays for one top-up.
create unique index topups_checkout_session on topups (bucket, checkout_session) where checkout_session is not null;

-- +goose Down
drop index topups_checkout_session;
alter table topups drop column checkout_session, drop column url, drop column success_url;
