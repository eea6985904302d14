-- Payments that take days.
--
-- An invoice whose payment failed is closed after the reason was written down, and whoever hears first that it was closed
-- settles its top-up: whether the same card, or bank account, may pay on another day is part of that reason.

-- +goose Up
alter table topups
    add column failure_soft boolean not null default false;  -- of failure_code: another day may change it

-- +goose Down
alter table topups drop column failure_soft;
