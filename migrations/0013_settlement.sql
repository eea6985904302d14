-- Payments that take days, and payments that need the customer.
--
-- An invoice whose payment failed is closed after the reason was written down, and whoever hears first that it was closed
-- settles its top-up: whether the same card, or bank account, may pay on another day is part of that reason.
--
-- A charge without the customer that needs their authentication is closed at Stripe, and then a page is opened on which
-- they pay for the same top-up: another attempt of it, with parameters and a key of its own.

-- +goose Up
alter table topups
    add column failure_soft boolean  not null default false,  -- of failure_code: another day may change it
    add column page         smallint not null default 0,      -- of mode charge: 1: its payment is being closed, 2: it is paid on a page
    add constraint topups_page_range check (page between 0 and 2);

-- +goose Down
alter table topups drop column failure_soft, drop column page;
