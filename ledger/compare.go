package ledger

import (
	"context"
	"time"

	"github.com/lib/pq"
)

// What the books say of things at Stripe, many at a time, for those who compare the two. Everything here only reads, but
// for noting what was seen to be right.

// TopupBooks is a top-up with the grant that it bought.
type TopupBooks struct {
	Topup
	GrantAmount int64      `db:"grant_amount"` // steps
	GrantStatus string     `db:"grant_status"`
	Leased      bool       `db:"leased"` // a worker has it
	SettledAt   *time.Time `db:"settled_at"`
}

// Bought is how much of what was paid, in minor units, the grant is of.
func (b *TopupBooks) Bought() int64 {
	if b.Amount == 0 || b.GrantAmount == b.Amount {
		return b.Charge
	}
	return share(b.Charge, b.GrantAmount, b.Amount)
}

// Buys is how many steps the top-up's grant is of when that much was received.
func (b *TopupBooks) Buys(received int64) int64 {
	if received == b.Charge {
		return b.Amount
	}
	return share(b.Amount, received, b.Charge)
}

const topupBooksColumns = topupColumns + `, g.amount as grant_amount, g.status as grant_status, t.settled_at,
	coalesce(t.lease_until > $1, false) as leased`

const topupBooksFrom = topupsFrom + `join grants g on g.bucket = t.bucket and g.id = t.grant_id `

// TopupsBooked answers the top-ups of those ids that there are.
func (l *Ledger) TopupsBooked(ctx context.Context, ids []string) (map[string]*TopupBooks, error) {
	var buckets pq.Int64Array
	var known textArray
	for _, id := range ids {
		if b, ok := bucketOfID("top_", id); ok {
			buckets, known = append(buckets, int64(b)), append(known, id)
		}
	}
	var rows []*TopupBooks
	err := l.db.SelectContext(ctx, &rows, `select `+topupBooksColumns+topupBooksFrom+`
		join unnest($2::smallint[], $3::text[]) u(bucket, id) on u.bucket = t.bucket and u.id = t.id`, l.Now(), buckets, known)
	byID := make(map[string]*TopupBooks, len(rows))
	for _, r := range rows {
		byID[r.ID] = r
	}
	return byID, err
}

// Unverified answers ids of top-ups and sales that are booked as paid since a time and until another, and that nobody has
// seen paid at Stripe; with all, also those that somebody has. Of a zero customer they are everybody's.
func (l *Ledger) Unverified(ctx context.Context, customer Ref, since, until time.Time, all bool) (topups, sales []string, err error) {
	whose := `($4 = '' or bucket = $3 and customer_id = $4)`
	err = l.db.SelectContext(ctx, &topups, `select id from topups where status = 'succeeded' and (verified_at is null or $5)
		and created_at >= $1 and coalesce(settled_at, created_at) <= $2 and `+whose+` order by id`, since, until, customer.Bucket, customer.ID, all)
	if err != nil {
		return nil, nil, err
	}
	err = l.db.SelectContext(ctx, &sales, `select id from sales where (verified_at is null or $5)
		and paid_at >= $1 and applied_at <= $2 and `+whose+` order by id`, since, until, customer.Bucket, customer.ID, all)
	return topups, sales, err
}

// Stuck answers the top-ups that have been in flight since before a time.
func (l *Ledger) Stuck(ctx context.Context, customer Ref, before time.Time) (ids []string, err error) {
	err = l.db.SelectContext(ctx, &ids, `select id from topups where status in ('pending', 'processing', 'action_required') and created_at < $1
		and ($3 = '' or bucket = $2 and customer_id = $3) order by id`, before, customer.Bucket, customer.ID)
	return ids, err
}

// Verified notes which top-ups and sales were seen to be paid at Stripe. A row that somebody is busy with is left for
// another time, so that nobody waits for anybody here.
func (l *Ledger) Verified(ctx context.Context, topups, sales []string) error {
	if len(topups) > 0 {
		var buckets pq.Int64Array
		for _, id := range topups {
			b, _ := bucketOfID("top_", id)
			buckets = append(buckets, int64(b))
		}
		if _, err := l.db.ExecContext(ctx, `
			with seen as materialized (select t.bucket, t.id from unnest($1::smallint[], $2::text[]) u(bucket, id)
				join topups t on t.bucket = u.bucket and t.id = u.id and t.verified_at is null order by t.bucket, t.id for update of t skip locked)
			update topups t set verified_at = $3 from seen where t.bucket = seen.bucket and t.id = seen.id`, buckets, textArray(topups), l.Now()); err != nil {
			return err
		}
	}
	if len(sales) == 0 {
		return nil
	}
	_, err := l.db.ExecContext(ctx, `
		with seen as materialized (select s.bucket, s.id from generate_series(0, $3::int - 1) b join unnest($1::text[]) u(id) on true
			join sales s on s.bucket = b and s.id = u.id and s.verified_at is null order by s.bucket, s.id for update of s skip locked)
		update sales s set verified_at = $2 from seen where s.bucket = seen.bucket and s.id = seen.id`, textArray(sales), l.Now(), Buckets)
	return err
}

// SaleBooks is a sale that was booked.
type SaleBooks struct {
	Ref
	Sale          string `db:"sale"`
	PaymentIntent string `db:"payment_intent"`
	Grants        string `db:"grants"` // ids of those that were not voided, with commas between
	Cost          int64  `db:"cost"`   // minor units that they cost
	Currency      string `db:"currency"`
}

// SalesBooked answers which of the invoices and sessions were booked, and what they gave.
func (l *Ledger) SalesBooked(ctx context.Context, ids []string) (map[string]*SaleBooks, error) {
	var rows []*SaleBooks
	err := l.db.SelectContext(ctx, &rows, `
		select s.bucket, s.customer_id as id, s.id as sale, coalesce(s.payment_intent, '') as payment_intent,
			coalesce(string_agg(g.id, ', ' order by g.id), '') as grants, coalesce(sum(g.cost_amount), 0)::bigint as cost, coalesce(max(g.cost_currency), '') as currency
		from generate_series(0, $2::int - 1) b join unnest($1::text[]) u(id) on true join sales s on s.bucket = b and s.id = u.id
		left join sold_lines sl on sl.bucket = s.bucket and sl.grant_id is not null and sl.id not like '%/rollover' and split_part(sl.id, '/', 1) = s.id
			and sl.id >= s.id || '/' and sl.id < s.id || '0'
		left join grants g on g.bucket = sl.bucket and g.id = sl.grant_id and g.status <> 'voided'
		group by s.bucket, s.customer_id, s.id, s.payment_intent`, textArray(ids), Buckets)
	byID := make(map[string]*SaleBooks, len(rows))
	for _, r := range rows {
		byID[r.Sale] = r
	}
	return byID, err
}

// BoughtGrant is a grant that a payment bought, and how much of it was taken back.
type BoughtGrant struct {
	ID     string `db:"id"`
	Amount int64  `db:"amount"` // steps
	Taken  int64  `db:"taken"`  // steps that refunds and disputes have taken back, less what they gave back
	Times  int64  `db:"times"`  // in how many takings
}

// PaymentBooks is what the books say of a payment.
type PaymentBooks struct {
	Ref
	PaymentIntent string `db:"payment_intent"`
	Topup         string `db:"topup"`  // "" for a sale
	Charge        int64  `db:"charge"` // minor units; 0 for a sale, whose payment the books have no amount of
	Grants        []BoughtGrant
	Backs         []MoneyBack // refunds and disputes that are booked
}

// PaymentsBooked answers what the books say of payments that bought credit.
func (l *Ledger) PaymentsBooked(ctx context.Context, paymentIntents []string) (map[string]*PaymentBooks, error) {
	var rows []*PaymentBooks
	err := l.db.SelectContext(ctx, &rows, `
		select t.bucket, t.customer_id as id, t.payment_intent, t.id as topup, t.charge from topups t where t.payment_intent = any($1) and t.status = 'succeeded'
		union all select s.bucket, s.customer_id, s.payment_intent, '', 0 from sales s where s.payment_intent = any($1)`, textArray(paymentIntents))
	byID := make(map[string]*PaymentBooks, len(rows))
	var buckets pq.Int64Array
	var ids textArray
	for _, r := range rows {
		if byID[r.PaymentIntent] == nil {
			byID[r.PaymentIntent] = r
			buckets, ids = append(buckets, int64(r.Bucket)), append(ids, r.PaymentIntent)
		}
	}
	if err != nil || len(rows) == 0 {
		return byID, err
	}
	var grants []struct {
		BoughtGrant
		PaymentIntent string `db:"payment_intent"`
	}
	if err := l.db.SelectContext(ctx, &grants, `
		select g.id, g.amount, p.payment_intent, coalesce(sum(k.steps) filter (where not k.returned), 0)::bigint as taken, count(k.id) filter (where not k.returned) as times
		from (select u.bucket, u.pi as payment_intent, t.grant_id from unnest($1::smallint[], $2::text[]) u(bucket, pi)
				join topups t on t.bucket = u.bucket and t.payment_intent = u.pi and t.status = 'succeeded'
			union all select u.bucket, u.pi, sl.grant_id from unnest($1::smallint[], $2::text[]) u(bucket, pi)
				join sales s on s.bucket = u.bucket and s.payment_intent = u.pi
				join sold_lines sl on sl.bucket = s.bucket and sl.grant_id is not null and sl.id not like '%/rollover' and sl.id >= s.id || '/' and sl.id < s.id || '0') p
		join grants g on g.bucket = p.bucket and g.id = p.grant_id
		left join clawback_grants k on k.bucket = g.bucket and k.grant_id = g.id
		group by g.bucket, g.id, g.amount, p.payment_intent order by g.id`, buckets, ids); err != nil {
		return nil, err
	}
	for _, g := range grants {
		byID[g.PaymentIntent].Grants = append(byID[g.PaymentIntent].Grants, g.BoughtGrant)
	}
	backs, err := l.backs(ctx, buckets, ids)
	for _, b := range backs {
		byID[b.PaymentIntent].Backs = append(byID[b.PaymentIntent].Backs, b.MoneyBack)
	}
	return byID, err
}

// bookedBack is a refund or a dispute as it is booked.
type bookedBack struct {
	MoneyBack
	PaymentIntent string
}

// backs are the refunds and disputes that are booked of payments.
func (l *Ledger) backs(ctx context.Context, buckets pq.Int64Array, ids textArray) ([]bookedBack, error) {
	var rows []backRow
	err := l.db.SelectContext(ctx, &rows, `select c.id, c.kind, c.payment_intent, c.amount, c.currency, c.status, c.stands, c.created_at
		from unnest($1::smallint[], $2::text[]) u(bucket, pi) join clawbacks c on c.bucket = u.bucket and c.payment_intent = u.pi order by c.created_at, c.id`, buckets, ids)
	all := make([]bookedBack, len(rows))
	for i, r := range rows {
		all[i] = r.back()
	}
	return all, err
}

type backRow struct {
	ID            string    `db:"id"`
	Kind          string    `db:"kind"`
	PaymentIntent string    `db:"payment_intent"`
	Amount        int64     `db:"amount"`
	Currency      string    `db:"currency"`
	Status        string    `db:"status"`
	Stands        bool      `db:"stands"`
	CreatedAt     time.Time `db:"created_at"`
}

func (r *backRow) back() bookedBack {
	return bookedBack{MoneyBack{ID: r.ID, Kind: r.Kind, Amount: r.Amount, Currency: r.Currency, Status: r.Status, Stands: r.Stands, Created: r.CreatedAt.UTC()}, r.PaymentIntent}
}

// UnendedBacks answers the payments of refunds and disputes whose end nobody has heard of, and that were made before a
// time, and of credit notes, which may be voided whenever; of a zero customer they are everybody's.
func (l *Ledger) UnendedBacks(ctx context.Context, customer Ref, before time.Time) (paymentIntents []string, err error) {
	err = l.db.SelectContext(ctx, &paymentIntents, `select distinct payment_intent from clawbacks
		where payment_intent is not null and (status in ('pending', 'requires_action', 'needs_response', 'under_review') and created_at < $1 or kind = 'credit_note' and stands)
		and ($3 = '' or bucket = $2 and customer_id = $3) order by payment_intent`, before, customer.Bucket, customer.ID)
	return paymentIntents, err
}

// BackedPayments answers the payments of a customer of which a refund or a dispute is booked.
func (l *Ledger) BackedPayments(ctx context.Context, customer Ref) (paymentIntents []string, err error) {
	err = l.db.SelectContext(ctx, &paymentIntents, `select distinct payment_intent from clawbacks where bucket = $1 and customer_id = $2 and payment_intent is not null order by 1`, customer.Bucket, customer.ID)
	return paymentIntents, err
}

// DisputesBooked answers the status that disputes are booked with, by their ids.
func (l *Ledger) DisputesBooked(ctx context.Context, ids []string) (map[string]string, error) {
	var rows []backRow
	err := l.db.SelectContext(ctx, &rows, `select c.id, c.kind, c.payment_intent, c.amount, c.currency, c.status, c.stands, c.created_at
		from generate_series(0, $2::int - 1) b join unnest($1::text[]) u(id) on true join clawbacks c on c.bucket = b and c.id = u.id`, textArray(ids), Buckets)
	status := make(map[string]string, len(rows))
	for _, r := range rows {
		status[r.ID] = r.Status
	}
	return status, err
}

// MirrorsOfStripe answers the mirrors of Stripe customers, by their Stripe ids.
func (l *Ledger) MirrorsOfStripe(ctx context.Context, stripeCustomers []string) (map[string]*Mirror, error) {
	var rows []*Mirror
	err := l.db.SelectContext(ctx, &rows, `select m.bucket, m.customer_id, m.stripe_customer, m.currency, m.credit, m.listed_to, m.import_due, m.tries, m.checked_at
		from stripe_links s join mirrors m on m.bucket = s.bucket and m.customer_id = s.customer_id where s.stripe_customer = any($1)`, textArray(stripeCustomers))
	byID := make(map[string]*Mirror, len(rows))
	for _, r := range rows {
		byID[r.StripeCustomer] = r
	}
	return byID, err
}

// CheckedAll is Checked for many. A row that somebody is busy with is left out.
func (l *Ledger) CheckedAll(ctx context.Context, refs []Ref, at time.Time) error {
	buckets, ids := make(pq.Int64Array, len(refs)), make(textArray, len(refs))
	for i, r := range refs {
		buckets[i], ids[i] = int64(r.Bucket), r.ID
	}
	_, err := l.db.ExecContext(ctx, `
		with seen as materialized (select m.bucket, m.customer_id from unnest($1::smallint[], $2::text[]) u(bucket, id)
			join mirrors m on m.bucket = u.bucket and m.customer_id = u.id order by m.bucket, m.customer_id for update of m skip locked)
		update mirrors m set checked_at = $3 from seen where m.bucket = seen.bucket and m.customer_id = seen.customer_id`, buckets, ids, at)
	return err
}

// Unchecked answers customers whose balance in Stripe nobody has looked at since a time, after the one named. Of those
// that were deleted in Stripe, whose balance is no more, it answers the ones that still have credit in the books.
func (l *Ledger) Unchecked(ctx context.Context, since time.Time, after Ref, limit int) ([]Ref, error) {
	var refs []Ref
	err := l.db.SelectContext(ctx, &refs, `select m.bucket, m.customer_id as id from mirrors m join customers c on c.bucket = m.bucket and c.id = m.customer_id
		where (m.bucket, m.customer_id) > ($2, $3) and case when c.status = 'deleted'
			then exists (select from wallets w where w.bucket = m.bucket and w.customer_id = m.customer_id and w.total > 0)
			else m.checked_at is null or m.checked_at < $1 end
		order by m.bucket, m.customer_id limit $4`, since, after.Bucket, after.ID, limit)
	return refs, err
}

// CountUnchecked counts those of Unchecked that Stripe has to be asked about.
func (l *Ledger) CountUnchecked(ctx context.Context, since time.Time) (n int64, err error) {
	err = l.db.GetContext(ctx, &n, `select count(*) from mirrors m join customers c on c.bucket = m.bucket and c.id = m.customer_id
		where c.status <> 'deleted' and (m.checked_at is null or m.checked_at < $1)`, since)
	return n, err
}

// FailedEvents answers the events that were tried in vain until nobody tried any more.
func (l *Ledger) FailedEvents(ctx context.Context) (ids []string, err error) {
	err = l.db.SelectContext(ctx, &ids, `select id from stripe_events where status = 'failed' order by created_at, id`)
	return ids, err
}

// StoredEvent answers an event of Stripe's that was kept; found is false when there is none.
func (l *Ledger) StoredEvent(ctx context.Context, id string) (e StripeEvent, found bool, err error) {
	found, err = l.getRow(ctx, &e, `select `+eventColumns+` from stripe_events where id = $1`, id)
	return e, found, err
}
