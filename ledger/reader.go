package ledger

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Reader reads what is one customer's, and nothing of anybody else's: an id that is another's is not there. The customer's
// own pages have their figures from it alone, and it can't write.
type Reader struct {
	l   *Ledger
	ref Ref
}

// ReaderOf is the reader of one customer's books.
func (l *Ledger) ReaderOf(ref Ref) Reader { return Reader{l, ref} }

// Wallets are the customer's, the oldest first.
func (r Reader) Wallets(ctx context.Context) ([]Wallet, error) { return r.l.Wallets(ctx, r.ref) }

// Wallet is one of the customer's.
func (r Reader) Wallet(ctx context.Context, id string) (Wallet, error) {
	if bucket, ok := bucketOfID("wal_", id); !ok || bucket != r.ref.Bucket {
		return Wallet{}, noWallet(id)
	}
	w, err := r.l.Wallet(ctx, id)
	if err == nil && w.Customer != r.ref.ID {
		return Wallet{}, noWallet(id)
	}
	return w, err
}

// Asset is what a wallet counts.
func (r Reader) Asset(ctx context.Context, code string) (Asset, error) { return r.l.Asset(ctx, code) }

// Price is what so much credit costs, before tax, or why it can't be bought: what CreateTopup says of it. least is the
// smallest charge in the currency.
func (r Reader) Price(ctx context.Context, w *Wallet, amount Decimal, least func(currency string) int64) (Money, error) {
	asset, err := r.l.Asset(ctx, w.Asset)
	if err != nil {
		return Money{}, err
	}
	_, cost, err := asset.cost(amount, least)
	return cost, err
}

// Rule is the auto top-up rule of one of the customer's wallets.
func (r Reader) Rule(ctx context.Context, w *Wallet) (v RuleView, found bool, err error) {
	if w.ref() != r.ref {
		return RuleView{}, false, noWallet(w.ID)
	}
	return r.l.RuleOf(ctx, w)
}

// Forecast is how long the credit of one of the customer's wallets lasts.
func (r Reader) Forecast(ctx context.Context, w *Wallet) (Forecast, error) {
	if w.ref() != r.ref {
		return Forecast{}, noWallet(w.ID)
	}
	return r.l.Forecast(ctx, w.ID)
}

// Topup is one of the customer's.
func (r Reader) Topup(ctx context.Context, id string) (Topup, error) {
	if bucket, ok := bucketOfID("top_", id); !ok || bucket != r.ref.Bucket {
		return Topup{}, noTopup(id)
	}
	top, err := r.l.TopupByID(ctx, id)
	if err == nil && top.Customer != r.ref.ID {
		return Topup{}, noTopup(id)
	}
	return top, err
}

// TopupsOf are the top-ups of one of the customer's wallets, newest first, before the one named by after.
func (r Reader) TopupsOf(ctx context.Context, w *Wallet, after string, limit int) (tops []Topup, err error) {
	if _, ok := bucketOfID("top_", after); w.ref() != r.ref || after != "" && !ok {
		return nil, noneAfter(after)
	}
	err = r.l.db.SelectContext(ctx, &tops, `select `+topupColumns+topupsFrom+`
		where t.bucket = $1 and t.wallet_id = $2 and ($3 = '' or t.id < $3) order by t.id desc limit $4`, w.Bucket, w.ID, after, limit)
	return tops, err
}

// leftSQL reads a wallet's grants that have something left, in the order in which they are spent, after the one named by $3.
const leftSQL = `select ` + grantColumns + grantsFrom + `
where g.bucket = $1 and g.wallet_id = $2 and g.live and ($3 = '' or
	(g.priority, coalesce(g.expires_at, 'infinity'), g.kind_rank, g.id) >
	(select a.priority, coalesce(a.expires_at, 'infinity'), a.kind_rank, a.id from grants a where a.bucket = $1 and a.wallet_id = $2 and a.id = $3))
order by g.priority, g.expires_at, g.kind_rank, g.id limit $4`

// Left are the grants of a wallet that have something left, in burn order, after the one named by after.
func (r Reader) Left(ctx context.Context, w *Wallet, after string, limit int) (grants []Grant, err error) {
	if _, ok := bucketOfID("grt_", after); w.ref() != r.ref || after != "" && !ok {
		return nil, noneAfter(after)
	}
	err = r.l.db.SelectContext(ctx, &grants, leftSQL, w.Bucket, w.ID, after, limit)
	return grants, err
}

// comingLook is how many of a wallet's newest grants are looked at for those that are not in force yet.
const comingLook = 500

// Coming are the grants of a wallet, among its newest, that wait for their payment or their day.
func (r Reader) Coming(ctx context.Context, w *Wallet, limit int) (grants []Grant, err error) {
	if w.ref() != r.ref {
		return nil, noWallet(w.ID)
	}
	err = r.l.db.SelectContext(ctx, &grants, `select `+grantColumns+` from
			(select * from grants where bucket = $1 and wallet_id = $2 order by id desc limit $3) g
			join wallets w on w.bucket = g.bucket and w.id = g.wallet_id
		where w.bucket = $1 and (g.status = 'pending' or g.status = 'confirmed' and not g.in_force) order by g.effective_at, g.id limit $4`,
		w.Bucket, w.ID, comingLook, limit)
	return grants, err
}

// EntryTypes are what entries can be, as their filter takes them.
var EntryTypes = []string{"grant", "debit", "hold", "capture", "release", "expire", "void", "refund", "dispute", "reversal", "stripe_balance", "adjustment"}

// ActivityFilter picks entries. The zero value picks all.
type ActivityFilter struct {
	Type  string // one of EntryTypes
	Text  string // stands in the reason, the feature or the metadata, in whatever case
	Below int64  // the seq to go on before; 0: the newest
}

// Activity is a page of a wallet's entries, newest first.
type Activity struct {
	Entries []Entry
	Next    int64 // what to go on below; 0 where nothing is older
	Looked  int64 // how many entries were looked at
	Gone    bool  // some of them lie in a month that was detached from the archive, and are not here
}

// ActivityLook is how many entries are looked at for a page of those that fit a filter, so that a search costs the same
// in a wallet of a million entries. What is older is the next page's.
const ActivityLook = 5000

// activitySQL reads by seqs, as entriesSQL does.
const activitySQL = `select ` + entryColumns + ` from all_entries
where bucket = $1 and wallet_id = $2 and seq >= $3 and seq < $4 and ($5 = '' or type = $5)
	and ($6 = '' or strpos(lower(reason), $6) > 0 or strpos(lower(coalesce(rated, '')), $6) > 0 or strpos(lower(coalesce(metadata, '')), $6) > 0)
order by seq desc limit $7`

// Activity reads a page of at most limit entries that fit.
func (r Reader) Activity(ctx context.Context, w *Wallet, f ActivityFilter, limit int) (a Activity, err error) {
	if w.ref() != r.ref {
		return a, noWallet(w.ID)
	}
	below := w.Seq + 1
	if f.Below > 0 && f.Below < below {
		below = f.Below
	}
	look := int64(ActivityLook)
	if f.Type == "" && f.Text == "" {
		look = int64(limit)
	}
	from := max(1, below-look)
	if err = r.l.db.SelectContext(ctx, &a.Entries, activitySQL, w.Bucket, w.ID, from, below, f.Type, strings.ToLower(f.Text), limit); err != nil {
		return a, err
	}
	if len(a.Entries) == limit {
		from = a.Entries[limit-1].Seq
	}
	a.Looked = below - from
	if from > 1 {
		a.Next = from
	}
	there := int64(len(a.Entries))
	if look != int64(limit) {
		if err = r.l.db.GetContext(ctx, &there, `select count(*) from all_entries where bucket = $1 and wallet_id = $2 and seq >= $3 and seq < $4`,
			w.Bucket, w.ID, from, below); err != nil {
			return a, err
		}
	}
	a.Gone = there < a.Looked
	return a, nil
}

// Curve is how a wallet's balance went.
type Curve struct {
	Points []CurvePoint // the oldest first
	Marks  []CurveMark  // the oldest first
}

// CurvePoint is what was available at a moment, and whether that is known: its entry may have been detached.
type CurvePoint struct {
	At        time.Time
	Available int64
	Known     bool
}

// CurveMark is credit that came.
type CurveMark struct {
	At     time.Time
	Amount int64
	Bought bool // else it was given
}

// curveMarks bounds the marks, the newest of which are told.
const curveMarks = 30

// Curve reads how a wallet's balance went since a moment, at so many moments evenly apart and when credit came. Each is a
// look by the primary key; a stretch in which nothing was booked is one look, however long.
func (r Reader) Curve(ctx context.Context, w *Wallet, since time.Time, points int) (c Curve, err error) {
	if w.ref() != r.ref {
		return c, noWallet(w.ID)
	}
	now := r.l.Now()
	if since.Before(w.CreatedAt) { // a young wallet's curve begins before it, with nothing, and is a week long at least
		since = w.CreatedAt.UTC()
		if week := now.AddDate(0, 0, -7); since.After(week) {
			since = week
		}
	}
	if c.Marks, err = r.marks(ctx, w, since, now); err != nil {
		return c, err
	}
	moments := []time.Time{now}
	mark := len(c.Marks) - 1
	for i := points - 1; i >= 0; i-- {
		at := since.Add(now.Sub(since) / time.Duration(points) * time.Duration(i))
		for ; mark >= 0 && !c.Marks[mark].At.Before(at); mark-- {
			moments = append(moments, c.Marks[mark].At)
		}
		moments = append(moments, at)
	}
	get := r.l.getter(ctx)
	var last *Entry
	for _, at := range slices.Backward(moments) {
		c.Points = append(c.Points, CurvePoint{At: at})
	}
	for i := len(c.Points) - 1; i >= 0; i-- {
		p := &c.Points[i]
		if last == nil || last.CreatedAt.After(p.At) {
			e, err := entryAt(get, w.Bucket, w.ID, p.At)
			if IsCode(err, CodeState) {
				continue // it was detached, and so was all that is older
			}
			if err != nil {
				return c, err
			}
			last = &e
		}
		p.Available, p.Known = last.BalanceAfter-last.HeldAfter, true
	}
	return c, nil
}

// marks are the moments at which credit came into force, of the newest grants.
func (r Reader) marks(ctx context.Context, w *Wallet, since, now time.Time) (marks []CurveMark, err error) {
	rows, err := r.l.db.QueryContext(ctx, `select effective_at, amount, bought from (
			select effective_at, amount, source_type in ('topup', 'stripe_checkout') as bought, id from grants
			where bucket = $1 and wallet_id = $2 and status not in ('pending', 'voided') order by id desc limit `+strconv.Itoa(curveMarks)+`) g
		where effective_at >= $3 and effective_at <= $4 order by effective_at, id`, w.Bucket, w.ID, since, now)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var m CurveMark
		if err := rows.Scan(&m.At, &m.Amount, &m.Bought); err != nil {
			return nil, err
		}
		m.At = m.At.UTC()
		marks = append(marks, m)
	}
	return marks, rows.Err()
}
