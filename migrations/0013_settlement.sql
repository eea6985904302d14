-- Payments that take days, payments that need the customer, and credit that does not wait for its payment.
--
-- An invoice whose payment failed is closed after the reason was written down, and whoever hears first that it was closed
-- settles its top-up: whether the same card, or bank account, may pay on another day is part of that reason.
--
-- A charge without the customer that needs their authentication is closed at Stripe, and then a page is opened on which
-- they pay for the same top-up: another attempt of it, with parameters and a key of its own.
--
-- A rule may give the credit of its top-ups at once. It is a grant in force from the intent on, which pays usage alone
-- until the payment has come, so that Stripe's balance never shows it; when the payment fails an entry takes it back.

-- +goose Up
alter table topups
    add column failure_soft boolean  not null default false,  -- of failure_code: another day may change it
    add column page         smallint not null default 0,      -- of mode charge: 1: its payment is being closed, 2: it is paid on a page
    add column immediate    boolean  not null default false,  -- its grant came in force with the intent
    add column taken_entry  text collate "C",                 -- the entry that took that credit back, once one has
    add constraint topups_page_range check (page between 0 and 2),
    add constraint topups_taken_was_given check (taken_entry is null or immediate);

-- +goose Down
alter table topups drop column failure_soft, drop column page, drop column immediate, drop column taken_entry;
