-- Who is signed in to the customer's portal.

-- +goose Up

-- One row is a link to the portal that was followed, and the session that its browser got for it. The link itself is kept
-- nowhere: whoever makes one signs what it says. So that it is followed once is this row's primary key. Of secrets there
-- are hashes here alone.
create table portal_sessions (
    bucket       smallint    not null,
    link         bytea       not null,               -- SHA-256 of the link's nonce
    secret       bytea       not null,               -- SHA-256 of what the browser's cookie holds
    customer_id  text collate "C" not null,
    return_url   text        not null default '',    -- where the merchant's own page is; '' for nowhere
    created_at   timestamptz not null,
    expires_at   timestamptz not null,               -- moved on by use
    ends_at      timestamptz not null,               -- and never past this
    kept_until   timestamptz not null,               -- the link's own end, or the session's: nothing needs the row after it
    constraint portal_sessions_pkey primary key (bucket, link),
    constraint portal_sessions_secret unique (bucket, secret),
    constraint portal_sessions_customer foreign key (bucket, customer_id) references customers
);
create index portal_sessions_old on portal_sessions (kept_until);

-- +goose Down
drop table portal_sessions;
