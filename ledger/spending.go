package ledger

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/lib/pq"
)

// Stripe pays any invoice of a customer with the customer's balance: a subscription's, one from the dashboard, a
// top-up's that a stranger came in between. What it took is booked to the grants that may pay invoices, and each wallet's
// part of it is written down, so that a void of the invoice gives back the same to the same grants.
//
//	balance transaction known → wallets asked in order → an entry for each, and a row of what it was for
//
// All of it is the transaction of the import: killed before its commit nothing is known, and the next import finds the
// same list.

// spending is what a balance transaction takes from one wallet.
type spending struct {
	ID       string `db:"id"`
	Wallet   string `db:"wallet_id"`
	Minor    int64  `db:"minor"` // of the transaction's amount
	Steps    int64  `db:"steps"`
	Returned int64  `db:"returned"`
	Entry    string `db:"entry_id"`
}

// strangerTook books credit that Stripe has spent, on an invoice or by hand: from the grants that may pay invoices, those
// of wallets for invoices before those of wallets for everything, and beyond all of them as debt of w, which is the
// first of the latter and which Stripe shows as owed too. What a credit note gave and takes again, as it was voided,
// comes from what it gave first.
func (t *tx) strangerTook(w *Wallet, p price, s StripeTransaction) error {
	first, err := t.givenByNote(w.ref(), s.CreditNote)
	if err != nil {
		return err
	}
	shares, err := t.spread(w, p, s, first.Wallet)
	if err != nil {
		return err
	}
	for place, sh := range shares {
		from := w
		if sh.Wallet != w.ID {
			if from, err = t.lockWallet(w.Bucket, sh.Wallet); err != nil {
				return err
			}
		}
		entry, err := t.spentAtStripe(from, sh.Steps, first.ID, s)
		if err != nil {
			return err
		}
		if s.Type != "applied_to_invoice" || s.Invoice == "" {
			continue
		}
		if err := t.exec(`insert into invoice_spendings (bucket, id, wallet_id, place, minor, steps, entry_id) values ($1, $2, $3, $4, $5, $6, $7)`,
			w.Bucket, s.ID, sh.Wallet, place, sh.Minor, sh.Steps, entry); err != nil {
			return err
		}
	}
	return nil
}

// givenByNote is the grant that a credit note gave; the zero one where there is none.
func (t *tx) givenByNote(ref Ref, note string) (given struct {
	ID     string `db:"id"`
	Wallet string `db:"wallet_id"`
}, err error) {
	if note == "" {
		return given, nil
	}
	_, err = t.get(&given, `select g.id, g.wallet_id from balance_transactions b join grants g on g.bucket = b.bucket and g.source_id = b.id
		where b.bucket = $1 and b.customer_id = $2 and b.credit_note = $3 and b.amount < 0 order by b.created_at limit 1`, ref.Bucket, ref.ID, note)
	return given, err
}

// spread says which wallets pay a transaction that takes, and how much each: of all that Stripe's balance is made of,
// whatever the asset. w, which is of the asset that strangers' doings are booked in, comes first of its scope and pays
// what is beyond all of them.
func (t *tx) spread(w *Wallet, p price, s StripeTransaction, first string) ([]spending, error) {
	var others []struct {
		ID    string `db:"id"`
		Asset string `db:"asset"`
		Scale int16  `db:"scale"`
	}
	if err := t.SelectContext(t.ctx, &others, `select id, asset, scale from wallets where bucket = $1 and customer_id = $2 and scope <> 'usage' and status <> 'closed'
		order by id <> $4, scope <> 'invoices', asset <> $3, id`, w.Bucket, w.Customer, w.Asset, first); err != nil {
		return nil, err
	}
	left, own := s.Amount, 0
	var shares []spending
	for _, o := range others {
		asset, err := t.asset(o.Asset)
		if err != nil {
			return nil, err
		}
		price, priced := asset.price()
		if !priced || price.currency != p.currency {
			continue
		}
		free, err := t.freeAtStripe(w, o.ID)
		if err != nil {
			return nil, err
		}
		sh := spending{Wallet: o.ID}
		worth, fit := price.worth(free, o.Scale)
		if !fit {
			worth = left // more than can be counted
		}
		sh.Steps, _ = price.buys(max(min(left, worth), 0), o.Scale)
		sh.Minor, _ = price.charge(sh.Steps, o.Scale)
		if left -= sh.Minor; o.ID == w.ID {
			own = len(shares)
		}
		shares = append(shares, sh)
	}
	// What no whole minor unit covers is its own too, so it is counted once more with the rest.
	rest := &shares[own]
	rest.Minor += left
	var ok bool
	if rest.Steps, ok = p.buys(rest.Minor, w.Scale); !ok {
		return nil, fmt.Errorf("balance transaction %s takes more than %s can count", s.ID, w.Asset)
	}
	return slices.DeleteFunc(shares, func(sh spending) bool { return sh.Steps == 0 || sh.Minor == 0 }), nil
}

// freeAtStripe is what a wallet has that an invoice may be paid with now, in steps.
func (t *tx) freeAtStripe(own *Wallet, id string) (free int64, err error) {
	if id != own.ID { // which is up to now
		if _, err := t.lockWallet(own.Bucket, id); err != nil {
			return 0, err
		}
	}
	_, err = t.get(&free, `select coalesce(sum(remaining - held), 0)::bigint from grants where bucket = $1 and wallet_id = $2 and live and covers = 'all'`, own.Bucket, id)
	return free, err
}

// spentAtStripe books what Stripe took from one locked wallet: from one grant first, then in burn order, then as debt.
func (t *tx) spentAtStripe(w *Wallet, amount int64, first string, s StripeTransaction) (entry string, err error) {
	grants, err := t.liveGrants(w, `g.covers = 'all'`)
	if err != nil {
		return "", err
	}
	slices.SortStableFunc(grants, func(a, b Grant) int { return cmp.Compare(notThis(a.ID, first), notThis(b.ID, first)) })
	posting := newPosting(t.now)
	parts, short := takeFrom(posting, grants, amount)
	if short > 0 {
		parts = append(parts, Part{Grant: stripeDebtPart, Amount: -short})
	}
	e := posting.enter(w, Entry{ID: t.l.ids.newID("ent_", w.Bucket, t.now), Type: "stripe_balance", Amount: -amount,
		Parts: parts, Reason: s.Reason, RefersTo: s.ID})
	if err := t.write(posting); err != nil {
		return "", err
	}
	return e.ID, t.rearm(w)
}

// strangerReturned books what Stripe gave back of an invoice that was voided: to the grants that paid it, what was taken
// last first, never more than was taken from each. How much has to be back by now follows from all that Stripe gave
// back of the invoice, so it is the same in however many parts it comes. What is beyond is a stranger's credit.
//
// Credit of a grant that has expired meanwhile expires at once, as that of a debit that is reversed does.
func (t *tx) strangerReturned(w *Wallet, p price, s StripeTransaction) error {
	var came int64
	if _, err := t.get(&came, `select -sum(amount)::bigint from balance_transactions
		where bucket = $1 and customer_id = $2 and invoice = $3 and type = 'unapplied_from_invoice' and amount < 0`, w.Bucket, w.Customer, s.Invoice); err != nil {
		return err
	}
	var rows []spending
	if err := t.SelectContext(t.ctx, &rows, `select s.id, s.wallet_id, s.minor, s.steps, s.returned, s.entry_id
		from balance_transactions b join invoice_spendings s on s.bucket = b.bucket and s.id = b.id
		where b.bucket = $1 and b.customer_id = $2 and b.invoice = $3 order by b.created_at desc, b.id desc, s.place desc`, w.Bucket, w.Customer, s.Invoice); err != nil {
		return err
	}
	returning := map[string]Parts{} // by wallet
	var order []string
	for _, sp := range rows {
		some := min(came, sp.Minor)
		came -= some
		steps := share(sp.Steps, some, sp.Minor) - sp.Returned
		if steps <= 0 {
			continue
		}
		if returning[sp.Wallet] == nil {
			order = append(order, sp.Wallet)
		}
		parts, err := t.returning(w.Bucket, sp, steps)
		if err != nil {
			return err
		}
		for _, part := range parts {
			returning[sp.Wallet] = returning[sp.Wallet].with(part)
		}
	}
	if beyond := min(came, -s.Amount); beyond > 0 {
		if returning[w.ID] == nil {
			rest := s
			rest.Amount = -beyond
			if err := t.strangerGave(w, p, rest); err != nil {
				return err
			}
		} else if steps, ok := p.buys(beyond, w.Scale); ok && steps > 0 { // one transaction is one entry of a wallet
			returning[w.ID] = returning[w.ID].with(Part{stripeDebtPart, steps})
		}
	}
	for _, id := range order {
		to := w
		if id != w.ID {
			var err error
			if to, err = t.lockWallet(w.Bucket, id); err != nil {
				return err
			}
		}
		b := &back{entryType: "stripe_balance", id: t.l.ids.newID("ent_", w.Bucket, t.now), refersTo: s.ID, reason: s.Reason, covers: "all"}
		if err := t.giveBack(to, b, returning[id]); err != nil {
			return err
		}
	}
	return nil
}

// returning are the parts of what an invoice took from a wallet that go back next, so many steps of them, and notes that
// they do.
func (t *tx) returning(bucket int16, sp spending, steps int64) (parts Parts, err error) {
	taken, err := t.entryTaken(bucket, sp.Entry)
	if err != nil {
		return nil, err
	}
	skip, left := sp.Returned, steps
	for _, part := range slices.Backward(taken.Parts) {
		before := min(skip, -part.Amount)
		skip -= before
		if some := min(left, -part.Amount-before); some > 0 {
			parts, left = append(parts, Part{part.Grant, some}), left-some
		}
	}
	return parts, t.exec(`update invoice_spendings set returned = returned + $4 where bucket = $1 and id = $2 and wallet_id = $3`, bucket, sp.ID, sp.Wallet, steps)
}

// with adds a part to those of the same grant.
func (p Parts) with(part Part) Parts {
	for i := range p {
		if p[i].Grant == part.Grant {
			p[i].Amount += part.Amount
			return p
		}
	}
	return append(p, part)
}

// AtStripe is what an entry is about at Stripe; "" is nothing.
type AtStripe struct {
	Transaction string `db:"id"`
	Invoice     string `db:"invoice"`
	CreditNote  string `db:"credit_note"`
}

// atStripeSQL answers what entries refer to: balance transactions, and credit notes that took credit back.
const atStripeSQL = `
select r.id as refers_to, r.id, coalesce(b.invoice, '') as invoice, coalesce(b.credit_note, '') as credit_note
from unnest($1::smallint[], $2::text[]) r(bucket, id) join balance_transactions b on b.bucket = r.bucket and b.id = r.id
union
select r.id, '', coalesce(c.invoice, ''), r.id
from unnest($1::smallint[], $2::text[]) r(bucket, id) join clawbacks c on c.bucket = r.bucket and c.id = r.id and c.kind = 'credit_note'`

// findAtStripe fills in what the entries are about at Stripe. Most are not, and of them nobody is asked.
func findAtStripe(ctx context.Context, q querier, entries []*Entry) error {
	var buckets pq.Int64Array
	var ids textArray
	about := map[string][]*Entry{}
	for _, e := range entries {
		if e.Type != "stripe_balance" && e.Type != "refund" {
			continue
		}
		if about[e.RefersTo] == nil {
			buckets, ids = append(buckets, int64(e.Bucket)), append(ids, e.RefersTo)
		}
		about[e.RefersTo] = append(about[e.RefersTo], e)
	}
	if len(ids) == 0 {
		return nil
	}
	var found []struct {
		RefersTo string `db:"refers_to"`
		AtStripe
	}
	if err := q.SelectContext(ctx, &found, atStripeSQL, buckets, ids); err != nil {
		return err
	}
	for i := range found {
		for _, e := range about[found[i].RefersTo] {
			e.AtStripe = &found[i].AtStripe
		}
	}
	return nil
}
