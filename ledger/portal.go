package ledger

import (
	"context"
	"crypto/sha256"
	"time"
)

// A customer follows a link to the portal once, and has a session for it.
const (
	portalIdle  = time.Hour       // a session ends when nobody has used it for so long
	portalRenew = 5 * time.Minute // use moves the end on once it would move it by that much: not every page writes
)

// PortalLink is what a link to the portal says, once its signature was found to be right.
type PortalLink struct {
	Customer  string
	Nonce     []byte // makes it unlike any other
	ExpiresAt time.Time
	ReturnURL string
}

// PortalSession is a customer who is signed in to the portal.
type PortalSession struct {
	Customer  Customer
	ReturnURL string
	Link      [32]byte // hash of the nonce of the link that it came from
}

// PortalLinkHash is what is kept of a link that was followed.
func PortalLinkHash(nonce []byte) [32]byte { return sha256.Sum256(nonce) }

// PortalMost is how long a session may last, however much it is used.
const PortalMost = 12 * time.Hour

type portalRow struct {
	Link      []byte    `db:"link"`
	ReturnURL string    `db:"return_url"`
	SeenUntil time.Time `db:"expires_at"`
	EndsAt    time.Time `db:"ends_at"`
	customerRow
}

// EnterPortal exchanges a link for a session whose secret is given. entered is false where the link was exchanged
// already, has expired, or its customer is deleted or not there: of the calls that come with one link, the database lets
// one insert.
func (l *Ledger) EnterPortal(ctx context.Context, link PortalLink, secret []byte) (entered bool, err error) {
	now := l.Now()
	if !now.Before(link.ExpiresAt) {
		return false, nil
	}
	nonce, hash, bucket := PortalLinkHash(link.Nonce), sha256.Sum256(secret), bucketOf(link.Customer)
	ends := now.Add(PortalMost)
	kept := ends
	if link.ExpiresAt.After(kept) {
		kept = link.ExpiresAt
	}
	return l.getRow(ctx, new(int), `insert into portal_sessions (bucket, link, secret, customer_id, return_url, created_at, expires_at, ends_at, kept_until)
		select $1, $2, $3, c.id, $5, $6, $7, $8, $9 from customers c where c.bucket = $1 and c.id = $4 and c.status <> 'deleted'
		on conflict (bucket, link) do nothing returning 1`,
		bucket, nonce[:], hash[:], link.Customer, link.ReturnURL, now, now.Add(portalIdle), ends, kept)
}

// PortalSession finds the session of a secret, in the bucket that the cookie says, and moves its end on. A customer who
// was deleted has none; one who is frozen may look.
func (l *Ledger) PortalSession(ctx context.Context, bucket int16, secret []byte) (s PortalSession, found bool, err error) {
	var row portalRow
	hash, now := sha256.Sum256(secret), l.Now()
	found, err = l.getRow(ctx, &row, `select s.link, s.return_url, s.expires_at, s.ends_at,
			c.bucket, c.id, c.stripe_customer, c.email, c.name, c.currency, c.status, c.metadata, c.created_at
		from portal_sessions s join customers c on c.bucket = s.bucket and c.id = s.customer_id
		where s.bucket = $1 and s.secret = $2 and s.expires_at > $3 and c.status <> 'deleted'`, bucket, hash[:], now)
	if err != nil || !found {
		return PortalSession{}, false, err
	}
	until := now.Add(portalIdle)
	if row.EndsAt.Before(until) {
		until = row.EndsAt
	}
	if until.Sub(row.SeenUntil) >= portalRenew {
		// One that was ended meanwhile stays so.
		if _, err := l.db.ExecContext(ctx, `update portal_sessions set expires_at = $3 where bucket = $1 and secret = $2 and expires_at > $4`,
			bucket, hash[:], until, now); err != nil {
			return PortalSession{}, false, err
		}
	}
	return PortalSession{Customer: row.customer(), ReturnURL: row.ReturnURL, Link: [32]byte(row.Link)}, true, nil
}

// LeavePortal ends a session. Its row stays, so that its link is not followed again.
func (l *Ledger) LeavePortal(ctx context.Context, bucket int16, secret []byte) error {
	hash := sha256.Sum256(secret)
	_, err := l.db.ExecContext(ctx, `update portal_sessions set expires_at = $3, ends_at = $3 where bucket = $1 and secret = $2 and expires_at > $3`,
		bucket, hash[:], l.Now())
	return err
}

// PrunePortal deletes a bounded number of sessions that are over, and whose links are. It answers whether there may be more.
func (l *Ledger) PrunePortal(ctx context.Context) (more bool, err error) {
	var n int
	err = l.db.GetContext(ctx, &n, `
		with o as (
			select bucket, link from portal_sessions where kept_until < $2 order by kept_until limit $1
		), d as (
			delete from portal_sessions s using o where s.bucket = o.bucket and s.link = o.link returning 1
		)
		select count(*) from d`, pruneBatch, l.Now())
	return n == pruneBatch, err
}
