-- Money that went back: refunds and disputes, and the credit that was taken back for them.

-- +goose Up

-- One row is a refund or a dispute of one of a customer's payments, as Stripe last told of it.
create table clawbacks (
    bucket          smallint    not null,
    id              text collate "C" not null,   -- Stripe's: re_…, dp_…
    customer_id     text collate "C" not null,
    kind            text        not null,
    payment_intent  text collate "C" not null,
    amount          bigint      not null,        -- minor units of currency
    currency        text collate "C" not null,
    status          text        not null,        -- Stripe's word
    stands          boolean     not null,        -- the customer has the money: credit is taken back for it
    created_at      timestamptz not null,
    constraint clawbacks_pkey primary key (bucket, id),
    constraint clawbacks_kind_known check (kind in ('refund', 'dispute'))
);
create index clawbacks_of_payment on clawbacks (bucket, payment_intent);
create index clawbacks_open_disputes on clawbacks (bucket, customer_id) where kind = 'dispute' and status in ('needs_response', 'under_review');

-- One row is what a clawback took back for one grant that its payment bought.
create table clawback_grants (
    bucket     smallint    not null,
    id         text collate "C" not null,   -- the clawback's
    grant_id   text collate "C" not null,
    steps      bigint      not null,
    entry_id   text collate "C" not null,   -- its parts say from where
    returned   boolean     not null default false,  -- the money came back after all, and so did the credit
    constraint clawback_grants_pkey primary key (bucket, id, grant_id)
);
create index clawback_grants_of_grant on clawback_grants (bucket, grant_id);

-- Whose a payment's sale is, whoever the payment names.
create index sales_of_payment on sales (payment_intent);

-- +goose Down
drop index sales_of_payment;
drop table clawback_grants, clawbacks;
