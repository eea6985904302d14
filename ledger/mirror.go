package ledger

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/lib/pq"
)

// The mirror is a controller: it computes from the ledger what Stripe's customer balance should show, knows
// from Stripe's answers what it shows, and posts the difference. However many debits lie between two looks,
// they make one balance transaction. What strangers did to the balance is imported, since Stripe has given
// or spent that credit: the ledger follows.

// Mirror is what is known of one customer's balance in Stripe. Credit is minor units, above zero for credit.
type Mirror struct {
	Bucket         int16      `db:"bucket"`
	Customer       string     `db:"customer_id"`
	StripeCustomer string     `db:"stripe_customer"`
	Currency       string     `db:"currency"`
	Credit         int64      `db:"credit"`
	ListedTo       *string    `db:"listed_to"`
	ImportDue      bool       `db:"import_due"`
	Tries          int        `db:"tries"`
	CheckedAt      *time.Time `db:"checked_at"`
}

const mirrorColumns = `bucket, customer_id, stripe_customer, currency, credit, listed_to, import_due, tries, checked_at`

// Ref names the mirror's customer.
func (m *Mirror) Ref() Ref { return Ref{m.Bucket, m.Customer} }

// TakeDirty answers the customers whose credit may have changed since it was last asked, each once. It
// forgets them: what a crash loses here, StaleMirrors finds.
func (l *Ledger) TakeDirty() []Ref { return l.dirty.take() }

// MarkDirty has a customer's mirror looked at again.
func (l *Ledger) MarkDirty(ref Ref) { l.dirty.add(ref) }

// StaleMirrors answers customers with entries that Stripe's balance is not known to follow, or whose
// balance transactions are to be imported, however that came about, after the one named.
func (l *Ledger) StaleMirrors(ctx context.Context, after Ref, limit int) ([]Ref, error) {
	var refs []Ref
	err := l.db.SelectContext(ctx, &refs, `
		select m.bucket, m.customer_id as id from mirrors m
		where (m.bucket, m.customer_id) > ($1, $2) and m.run_at <= $3
		and (m.import_due or exists (select from flushes f where f.bucket = m.bucket and f.customer_id = m.customer_id and f.status = 'pending')
			or exists (select from wallets w where w.bucket = m.bucket and w.customer_id = m.customer_id and w.seq <> w.mirrored_seq))
		order by m.bucket, m.customer_id limit $4`, after.Bucket, after.ID, l.Now(), limit)
	return refs, err
}

// LeaseMirror makes the caller the one writer of a customer's balance for the time of a Lease; calling it
// again renews it. found is false when the customer has no mirror, another has it, or it is not due.
func (l *Ledger) LeaseMirror(ctx context.Context, ref Ref) (m Mirror, found bool, err error) {
	now := l.Now()
	found, err = l.getRow(ctx, &m, `update mirrors set lease_until = $3 where bucket = $1 and customer_id = $2
		and (lease_until is null or lease_until <= $4) and run_at <= $4 returning `+mirrorColumns, ref.Bucket, ref.ID, now.Add(Lease), now)
	return m, found, err
}

// RenewMirror keeps a mirror for another Lease.
func (l *Ledger) RenewMirror(ctx context.Context, ref Ref) error {
	_, err := l.db.ExecContext(ctx, `update mirrors set lease_until = $3 where bucket = $1 and customer_id = $2`,
		ref.Bucket, ref.ID, l.Now().Add(Lease))
	return err
}

// ReleaseMirror gives a mirror back. With failed it is left alone for a while that grows with each failure.
func (l *Ledger) ReleaseMirror(ctx context.Context, ref Ref, failed bool) error {
	now := l.Now()
	query := `update mirrors set lease_until = null, tries = 0 where bucket = $1 and customer_id = $2 and $3::timestamptz is not null`
	if failed {
		query = `update mirrors set lease_until = null, tries = tries + 1,
			run_at = case when run_at = 'infinity' then run_at -- stopped meanwhile
				else $3::timestamptz + least(300, power(2, least(tries, 10))) * interval '1 second' end where bucket = $1 and customer_id = $2`
	}
	_, err := l.db.ExecContext(ctx, query, ref.Bucket, ref.ID, now)
	return err
}

// Flush is a balance transaction that is to be made, or was.
type Flush struct {
	Bucket      int16      `db:"bucket"`
	ID          string     `db:"id"`
	Customer    string     `db:"customer_id"`
	Amount      int64      `db:"amount"` // Stripe's sign: negative gives credit
	ParamsJSON  string     `db:"params"`
	CalledAt    *time.Time `db:"called_at"`
	Transaction *string    `db:"transaction"`
	CreatedAt   time.Time  `db:"created_at"`
}

const flushColumns = `bucket, id, customer_id, amount, params, called_at, transaction, created_at`

// FlushParams are the parameters of a flush, fixed before it is called so that whoever resends it sends the same.
type FlushParams struct {
	StripeCustomer string           `json:"stripe_customer"`
	Currency       string           `json:"currency"`
	From           map[string]int64 `json:"from"` // by wallet: the first entry that it covers
	To             map[string]int64 `json:"to"`   // and the last
}

// Params reads the flush's parameters.
func (f *Flush) Params() (p FlushParams, err error) {
	err = json.Unmarshal([]byte(f.ParamsJSON), &p)
	return p, err
}

// Range names entries for the metadata of a balance transaction: "wal_…:12", one for each wallet.
func Range(seqs map[string]int64) string {
	names := make([]string, 0, len(seqs))
	for w, seq := range seqs {
		names = append(names, fmt.Sprintf("%s:%d", w, seq))
	}
	slices.Sort(names)
	text := strings.Join(names, ",")
	return text[:min(len(text), 500)] // the most that Stripe's metadata takes
}

// shown is what a wallet should show in Stripe, and how far it has been shown.
type shown struct {
	ID       string `db:"id"`
	Asset    string `db:"asset"`
	Scale    int16  `db:"scale"`
	Seq      int64  `db:"seq"`
	Mirrored int64  `db:"mirrored_seq"`
	Steps    int64  `db:"steps"`
}

// shownSQL reads in one statement, and so of one moment, the credit of a customer that may pay invoices:
// in force, not held, of wallets that may pay invoices, less the debt that Stripe shows.
const shownSQL = `
select w.id, w.asset, w.scale, w.seq, w.mirrored_seq, case when w.scope = 'usage' then 0 else
	coalesce((select sum(g.remaining - g.held) from grants g
		where g.bucket = w.bucket and g.wallet_id = w.id and g.live and g.covers = 'all'), 0)::bigint - w.stripe_debt end as steps
from wallets w where w.bucket = $1 and w.customer_id = $2 order by w.id`

// Behind is a customer whose balance in Stripe there is something to do for.
type Behind struct {
	Ref
	Minor   int64      // how far it is off, in minor units, without a sign; 0 where an import or an open flush is due
	Flushed *time.Time // when Stripe was last known to show what it should; nil: never
	Since   *time.Time // when the first entry was written that Stripe may not follow; nil where that was not asked for
	Later   bool       // another process has the customer, or a failure is being waited out
}

// OutOfStep answers which of the customers there is something to do for.
func (l *Ledger) OutOfStep(ctx context.Context, refs []Ref, note bool) ([]Ref, error) {
	drifts, err := l.Behind(ctx, refs, note)
	out := make([]Ref, len(drifts))
	for i, d := range drifts {
		out[i] = d.Ref
	}
	return out, err
}

// walletDrift is what one wallet adds to what its customer's balance should be.
type walletDrift struct {
	Ref
	Credit   int64      `db:"credit"`
	Currency string     `db:"currency"`
	Due      bool       `db:"due"`
	Later    bool       `db:"later"`
	Flushed  *time.Time `db:"checked_at"`
	Wallet   string     `db:"wallet_id"`
	Seq      int64      `db:"seq"`
	Since    *time.Time `db:"since"`
	Asset    string     `db:"asset"`
	Scale    int16      `db:"scale"`
	Steps    int64      `db:"steps"`
	Emptied  bool       `db:"emptied"`
}

// Behind answers for which of the customers there is something to do: Stripe should show something else
// than it is known to, a flush is open, or an import due. Most of the dirty ones are in step to the cent,
// and one statement tells of all of them. With note, it is found out since when, and the others are noted as
// followed up to now.
func (l *Ledger) Behind(ctx context.Context, refs []Ref, note bool) ([]Behind, error) {
	buckets, ids := make(pq.Int64Array, len(refs)), make(textArray, len(refs))
	for i, r := range refs {
		buckets[i], ids[i] = int64(r.Bucket), r.ID
	}
	var rows []walletDrift
	err := l.db.SelectContext(ctx, &rows, `
		select m.bucket, m.customer_id as id, m.credit, m.currency, m.checked_at, w.id as wallet_id, w.seq, w.asset, w.scale,
			m.import_due or exists (select from flushes f where f.bucket = m.bucket and f.customer_id = m.customer_id and f.status = 'pending')
				or coalesce(w.turns_at <= $3, false) as due, `+emptiedSQL+` as emptied,
			m.run_at > $3 or coalesce(m.lease_until > $3, false) as later,
			case when $4 and w.mirrored_seq < w.seq then coalesce((select e.created_at from entries e
				where e.bucket = w.bucket and e.wallet_id = w.id and e.seq = w.mirrored_seq + 1), (select e.created_at from archived_entries e
				where e.bucket = w.bucket and e.wallet_id = w.id and e.seq = w.mirrored_seq + 1)) end as since,
			case when w.scope = 'usage' then 0 else coalesce((select sum(g.remaining - g.held) from grants g
				where g.bucket = w.bucket and g.wallet_id = w.id and g.live and g.covers = 'all'), 0)::bigint - w.stripe_debt end as steps
		from unnest($1::smallint[], $2::text[]) u(bucket, id)
		join mirrors m on m.bucket = u.bucket and m.customer_id = u.id and m.run_at < 'infinity'
		join wallets w on w.bucket = u.bucket and w.customer_id = u.id
		order by w.bucket, w.id`, buckets, ids, l.Now(), note)
	if err != nil {
		return nil, err
	}
	out, behind, err := l.behind(ctx, rows)
	if err != nil || !note {
		return out, err
	}
	bs, ws, seqs := make(pq.Int64Array, 0, len(rows)), make(textArray, 0, len(rows)), make(pq.Int64Array, 0, len(rows))
	for _, r := range rows {
		if !behind[r.Ref] {
			bs, ws, seqs = append(bs, int64(r.Bucket)), append(ws, r.Wallet), append(seqs, r.Seq)
		}
	}
	_, err = l.db.ExecContext(ctx, mirroredSQL, bs, ws, seqs)
	return out, err
}

// behind adds up customers' wallets, and answers those for whom there is something to do.
func (l *Ledger) behind(ctx context.Context, rows []walletDrift) ([]Behind, map[Ref]bool, error) {
	type sum struct {
		Behind
		due bool
	}
	sums := make(map[Ref]*sum)
	for _, r := range rows {
		s, ok := sums[r.Ref]
		if !ok {
			s = &sum{Behind: Behind{Ref: r.Ref, Minor: -r.Credit, Flushed: r.Flushed, Later: r.Later}}
			sums[r.Ref] = s
		}
		asset, err := l.Asset(ctx, r.Asset)
		if err != nil {
			return nil, nil, err
		}
		if p, priced := asset.price(); priced && p.currency == r.Currency && !r.Emptied {
			worth, _ := p.worth(r.Steps, r.Scale)
			s.Minor += worth
		}
		if r.Since != nil && (s.Since == nil || r.Since.Before(*s.Since)) {
			s.Since = r.Since
		}
		s.due = s.due || r.Due
	}
	behind := make(map[Ref]bool)
	var out []Behind
	for ref, s := range sums {
		if s.Minor == 0 && !s.due {
			continue
		}
		if s.Minor < 0 {
			s.Minor = max(-s.Minor, 0) // the smallest number has no opposite
		}
		behind[ref] = true
		out = append(out, s.Behind)
	}
	return out, behind, nil
}

// want is what Stripe should show for the wallets, in minor units of credit.
func (t *tx) want(ref Ref, currency string) (minor int64, wallets []shown, err error) {
	if err := t.SelectContext(t.ctx, &wallets, shownSQL, ref.Bucket, ref.ID); err != nil {
		return 0, nil, err
	}
	for _, w := range wallets {
		asset, err := t.asset(w.Asset)
		if err != nil {
			return 0, nil, err
		}
		p, priced := asset.price()
		if !priced || p.currency != currency {
			continue
		}
		worth, ok := p.worth(w.Steps, w.Scale)
		if !ok {
			return 0, nil, fmt.Errorf("wallet %s is worth more than can be counted", w.ID)
		}
		minor += worth
	}
	var emptied bool
	if _, err := t.get(&emptied, `select `+emptiedSQL+` from mirrors m where m.bucket = $1 and m.customer_id = $2`, ref.Bucket, ref.ID); err != nil || emptied {
		return 0, wallets, err
	}
	return minor, wallets, nil
}

// PlanFlush answers what is to be posted to Stripe for a leased mirror: a flush that is still open, whose
// outcome nobody knows, or a new one for the difference. found is false when Stripe shows what it should.
//
// Steps: row → commit → Stripe → RecordFlush. A crash before the commit leaves nothing; after it, an open
// flush, which is sent again under the same key; after Stripe's answer the same, and the key makes it a
// replay, or the import finds it by its metadata.
func (l *Ledger) PlanFlush(ctx context.Context, m Mirror) (f Flush, found bool, err error) {
	if _, err := l.Wallets(ctx, m.Ref()); err != nil { // turns those that are due
		return Flush{}, false, err
	}
	err = l.inTx(ctx, func(t *tx) error {
		if found, err = t.get(&f, `select `+flushColumns+` from flushes where bucket = $1 and customer_id = $2 and status = 'pending'`,
			m.Bucket, m.Customer); err != nil || found {
			return err
		}
		var credit int64
		if _, err := t.get(&credit, `select credit from mirrors where bucket = $1 and customer_id = $2 for update`, m.Bucket, m.Customer); err != nil {
			return err
		}
		want, wallets, err := t.want(m.Ref(), m.Currency)
		if err != nil {
			return err
		}
		if want == credit {
			return t.mirrored(m.Bucket, seqsOf(wallets))
		}
		p := FlushParams{StripeCustomer: m.StripeCustomer, Currency: m.Currency, From: map[string]int64{}, To: map[string]int64{}}
		for _, w := range wallets {
			if w.Seq != w.Mirrored {
				p.From[w.ID], p.To[w.ID] = max(w.Mirrored, 0)+1, w.Seq
			}
		}
		params, err := json.Marshal(p)
		if err != nil {
			return err
		}
		f = Flush{Bucket: m.Bucket, ID: l.ids.newID("flu_", m.Bucket, t.now), Customer: m.Customer, Amount: credit - want,
			ParamsJSON: string(params), CreatedAt: t.now}
		found = true
		return t.exec(`insert into flushes (bucket, id, customer_id, amount, params, created_at) values ($1, $2, $3, $4, $5, $6)`,
			f.Bucket, f.ID, f.Customer, f.Amount, f.ParamsJSON, f.CreatedAt)
	})
	return f, found && err == nil, err
}

func seqsOf(wallets []shown) map[string]int64 {
	seqs := make(map[string]int64, len(wallets))
	for _, w := range wallets {
		seqs[w.ID] = w.Seq
	}
	return seqs
}

// mirrored notes that Stripe shows each wallet as of an entry.
func (t *tx) mirrored(bucket int16, seqs map[string]int64) error {
	buckets, ids, to := make(pq.Int64Array, 0, len(seqs)), make(textArray, 0, len(seqs)), make(pq.Int64Array, 0, len(seqs))
	for id, seq := range seqs {
		buckets, ids, to = append(buckets, int64(bucket)), append(ids, id), append(to, seq)
	}
	return t.exec(mirroredSQL, buckets, ids, to)
}

// mirroredSQL locks wallets in the one order that everybody locks in, and notes how far Stripe shows them.
const mirroredSQL = `
with shown as materialized (
	select w.bucket, w.id, u.seq from unnest($1::smallint[], $2::text[], $3::bigint[]) u(bucket, id, seq)
	join wallets w on w.bucket = u.bucket and w.id = u.id and w.mirrored_seq < u.seq
	order by w.bucket, w.id for update of w)
update wallets w set mirrored_seq = shown.seq from shown where w.bucket = shown.bucket and w.id = shown.id`

// FlushCalled notes when a flush was first called; long after, it is looked up and never sent again.
func (l *Ledger) FlushCalled(ctx context.Context, f Flush) (time.Time, error) {
	var at time.Time
	err := l.db.GetContext(ctx, &at, `update flushes set called_at = coalesce(called_at, $3) where bucket = $1 and id = $2 returning called_at`,
		f.Bucket, f.ID, l.Now())
	return at.UTC(), err
}

// StripeTransaction is a balance transaction at Stripe, in Stripe's sign.
type StripeTransaction struct {
	ID            string
	Amount        int64
	EndingBalance int64
	Type          string
	Reason        string // what the entry says of it
	Flush         string // our flush that asked for it, "" for a stranger's
	Invoice       string // what made it, where something did
	CreditNote    string
	Doubles       string // the transaction by which that flush is known already, where it is another
	Created       time.Time
}

// RecordFlush books Stripe's answer to a flush, once. Where the balance that Stripe names is not what all
// known transactions add up to, somebody else wrote too, and an import falls due.
func (l *Ledger) RecordFlush(ctx context.Context, f Flush, s StripeTransaction) error {
	s.Flush = f.ID
	return l.inTx(ctx, func(t *tx) error {
		var m Mirror
		if _, err := t.get(&m, `select `+mirrorColumns+` from mirrors where bucket = $1 and customer_id = $2 for update`, f.Bucket, f.Customer); err != nil {
			return err
		}
		if err := t.adopt(&m, s); err != nil {
			return err
		}
		return t.exec(`update mirrors set import_due = import_due or $3, checked_at = $4 where bucket = $1 and customer_id = $2`,
			f.Bucket, f.Customer, s.EndingBalance != -m.Credit, t.now)
	})
}

// adopt notes a transaction of ours and closes the flush that asked for it.
func (t *tx) adopt(m *Mirror, s StripeTransaction) error {
	fresh, err := t.know(m, s)
	if err != nil || !fresh {
		return err
	}
	var f Flush
	found, err := t.get(&f, `update flushes set status = 'done', transaction = $3 where bucket = $1 and id = $2 returning `+flushColumns, m.Bucket, s.Flush, s.ID)
	if err != nil || !found {
		return err
	}
	p, err := f.Params()
	if err != nil {
		return err
	}
	return t.mirrored(m.Bucket, p.To)
}

// know writes a transaction down and counts it; fresh is false when it was known.
func (t *tx) know(m *Mirror, s StripeTransaction) (fresh bool, err error) {
	res, err := t.ExecContext(t.ctx, `insert into balance_transactions (bucket, id, customer_id, amount, type, flush_id, created_at, invoice, credit_note)
		values ($1, $2, $3, $4, $5, nullif($6, ''), $7, nullif($8, ''), nullif($9, '')) on conflict do nothing`,
		m.Bucket, s.ID, m.Customer, s.Amount, s.Type, s.Flush, s.Created, s.Invoice, s.CreditNote)
	if err != nil {
		return false, err
	}
	if n, err := res.RowsAffected(); err != nil || n == 0 {
		return false, err
	}
	m.Credit -= s.Amount
	return true, t.exec(`update mirrors set credit = $3 where bucket = $1 and customer_id = $2`, m.Bucket, m.Customer, m.Credit)
}

// FailFlush closes a flush that Stripe refused: nothing was posted, and the next look plans anew.
func (l *Ledger) FailFlush(ctx context.Context, f Flush) error {
	_, err := l.db.ExecContext(ctx, `update flushes set status = 'failed' where bucket = $1 and id = $2 and status = 'pending'`, f.Bucket, f.ID)
	return err
}

// OwnFlush reports whether a flush of that id was made for the customer, which is how the metadata of a
// balance transaction is believed, and the transaction that it is known by, "" where none is yet.
func (l *Ledger) OwnFlush(ctx context.Context, ref Ref, id string) (transaction string, own bool, err error) {
	own, err = l.getRow(ctx, &transaction, `select coalesce(transaction, '') from flushes where bucket = $1 and id = $2 and customer_id = $3`, ref.Bucket, id, ref.ID)
	return transaction, own, err
}
