package ledger

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// When money goes back to a customer, by a refund or because their bank disputes a payment, the credit that it bought
// goes back too: first what is left of the grant that it bought, then what else the wallet has, then as debt, which the
// next grant pays down. When the money comes back after all, for a refund failed or a dispute was won, the same
// amounts go back to the same grants.
//
// A purchase is looked at as a whole: what Stripe now says of all its refunds and disputes, and of what its credit notes
// gave back outside Stripe, however many events told of them and in whatever order. Each is counted once, by its id. Of a
// purchase's credit goes back the share that went back of what came for it, to the step: several refunds take together
// what one of their sum would.

// Purchase is what was paid for, by a payment, by an invoice, or by both.
type Purchase struct {
	PaymentIntent, Invoice string // "" where there is none
	Topup                  string // "" for what Stripe alone sold
	Received               int64  // what came, minor units
}

// name is how entries speak of a purchase.
func (p Purchase) name() string {
	if p.PaymentIntent != "" {
		return p.PaymentIntent
	}
	return p.Invoice
}

// MoneyBack is a refund, a dispute, or what a credit note gave back outside Stripe, as Stripe now tells of it.
type MoneyBack struct {
	ID       string // re_…, dp_…, cn_…
	Kind     string // refund, dispute, credit_note
	Amount   int64  // minor units
	Currency string
	Status   string // Stripe's word
	Stands   bool   // the customer has the money
	Open     bool   // a dispute that waits for its end
	Final    bool   // its status is its last
	Created  time.Time
}

// Clawback is a refund or a dispute, as events show it.
type Clawback struct {
	MoneyBack
	Customer      string
	PaymentIntent string
}

// PauseDispute is why a rule is paused while a payment of its customer is disputed.
const PauseDispute = "dispute"

// ClawBack brings the books in line with what Stripe says of a purchase's refunds, disputes and credit notes. A top-up
// that is not booked yet is an error: the same call has to come again.
//
// All of it is one transaction: killed before its commit nothing was taken, killed after it the event that told of it is
// worked off again and finds everything done.
func (l *Ledger) ClawBack(ctx context.Context, ref Ref, of Purchase, moves []MoneyBack) error {
	if of.Received <= 0 || len(moves) == 0 {
		return nil // nothing came, so nothing goes back
	}
	moves = slices.SortedFunc(slices.Values(moves), func(a, b MoneyBack) int { return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.ID, b.ID)) })
	return l.inTx(ctx, func(t *tx) error {
		if err := t.lockWallets(ref); err != nil {
			return err
		}
		grants, err := t.bought(ref, of)
		if err != nil {
			return err
		}
		c := &clawing{t: t, ref: ref, of: of, grants: grants, wallets: make(map[string]*Wallet)}
		for _, m := range moves {
			if err := c.follow(m); err != nil {
				return err
			}
		}
		return c.pauseOrResume()
	})
}

// bought are the grants that a purchase gave, in force or gone.
func (t *tx) bought(ref Ref, of Purchase) (grants []Grant, err error) {
	if of.Topup == "" {
		// What a renewal carried over was bought by an earlier payment.
		err = t.SelectContext(t.ctx, &grants, `select `+grantColumns+grantsFrom+`
			join sold_lines sl on sl.bucket = g.bucket and sl.grant_id = g.id and sl.id not like '%/rollover'
			join sales s on s.bucket = sl.bucket and s.id = split_part(sl.id, '/', 1)
			where s.bucket = $1 and s.customer_id = $2 and (s.payment_intent = nullif($3, '') or s.id = nullif($4, '')) order by g.id`,
			ref.Bucket, ref.ID, of.PaymentIntent, of.Invoice)
		return grants, err
	}
	var top Topup
	found, err := t.get(&top, `select `+topupColumns+topupsFrom+`where t.bucket = $1 and t.id = $2 and t.customer_id = $3`, ref.Bucket, of.Topup, ref.ID)
	if err != nil || !found {
		return nil, err
	}
	if top.Status != "succeeded" {
		return nil, fmt.Errorf("payment %s of top-up %s is not booked yet", of.name(), of.Topup)
	}
	err = t.SelectContext(t.ctx, &grants, `select `+grantColumns+grantsFrom+`where g.bucket = $1 and g.id = $2`, ref.Bucket, top.GrantID)
	return grants, err
}

// clawing is one look at a purchase, under the locks of its customer's wallets.
type clawing struct {
	t       *tx
	ref     Ref
	of      Purchase
	grants  []Grant
	wallets map[string]*Wallet
}

// entryType is the type of the entries of a clawback: a credit note's are of money that was given back, as a refund's.
func (m *MoneyBack) entryType() string {
	if m.Kind == "credit_note" {
		return "refund"
	}
	return m.Kind
}

// word is how entries speak of its kind.
func (m *MoneyBack) word() string { return strings.ReplaceAll(m.Kind, "_", " ") }

// follow brings the books in line with one refund, dispute or credit note.
func (c *clawing) follow(m MoneyBack) error {
	var old struct {
		Status string `db:"status"`
		Stands bool   `db:"stands"`
	}
	known, err := c.t.get(&old, `select status, stands from clawbacks where bucket = $1 and id = $2`, c.ref.Bucket, m.ID)
	if err != nil {
		return err
	}
	// Two looks may overtake each other: what has ended does not go on because an older look says so.
	if known && !old.Stands && m.Stands && !m.Final && slices.Contains([]string{"won", "failed", "canceled", "void"}, old.Status) {
		return nil
	}
	if known && old.Status == "lost" && !m.Final {
		return nil
	}
	if err := c.t.exec(`insert into clawbacks (bucket, id, customer_id, kind, payment_intent, amount, currency, status, stands, created_at, invoice)
		values ($1, $2, $3, $4, nullif($5, ''), $6, $7, $8, $9, $10, nullif($11, ''))
		on conflict (bucket, id) do update set status = excluded.status, stands = excluded.stands, amount = excluded.amount`,
		c.ref.Bucket, m.ID, c.ref.ID, m.Kind, c.of.PaymentIntent, m.Amount, m.Currency, m.Status, m.Stands, m.Created, c.of.Invoice); err != nil {
		return err
	}
	for i := range c.grants {
		var err error
		if m.Stands {
			err = c.take(m, &c.grants[i])
		} else {
			err = c.giveBack(m, &c.grants[i])
		}
		if err != nil {
			return err
		}
	}
	c.tell(m, known, old.Status)
	return nil
}

// tell emits what a dispute has become, once.
func (c *clawing) tell(m MoneyBack, known bool, before string) {
	if m.Kind != "dispute" {
		return
	}
	closed := func(status string) bool { return status == "won" || status == "lost" }
	wasOpen := known && (before == "needs_response" || before == "under_review")
	seen := &Clawback{MoneyBack: m, Customer: c.ref.ID, PaymentIntent: c.of.PaymentIntent}
	if (m.Open || closed(m.Status)) && !wasOpen && !closed(before) {
		c.t.emitFor(EventDisputeOpened, c.ref, nil, seen)
	}
	if closed(m.Status) && !closed(before) {
		c.t.emitFor(EventDisputeClosed, c.ref, nil, seen)
	}
}

// taking is what a clawback took back for one grant.
type taking struct {
	ID       string `db:"id"`
	Steps    int64  `db:"steps"`
	Entry    string `db:"entry_id"`
	Returned bool   `db:"returned"`
	Amount   int64  `db:"amount"`
}

// takings are those of all clawbacks of the purchase for one grant.
func (c *clawing) takings(g *Grant) (all []taking, err error) {
	err = c.t.SelectContext(c.t.ctx, &all, `select g.id, g.steps, g.entry_id, g.returned, b.amount from clawback_grants g
		join clawbacks b on b.bucket = g.bucket and b.id = g.id where g.bucket = $1 and g.grant_id = $2`, c.ref.Bucket, g.ID)
	return all, err
}

// take takes back the share of a grant that a clawback asks for, unless it has.
func (c *clawing) take(m MoneyBack, g *Grant) error {
	all, err := c.takings(g)
	if err != nil {
		return err
	}
	back, taken := m.Amount, int64(0)
	for _, k := range all {
		if k.Returned {
			continue
		}
		if k.ID == m.ID {
			return nil
		}
		back, taken = back+k.Amount, taken+k.Steps
	}
	steps := share(g.Amount, min(back, c.of.Received), c.of.Received) - taken
	if steps <= 0 {
		return nil
	}
	w, err := c.wallet(g.Wallet)
	if err != nil {
		return err
	}
	entry, err := c.t.takeBack(w, g.ID, steps, Entry{Type: m.entryType(), Reason: m.word() + " of " + c.of.name(), RefersTo: m.ID})
	if err != nil {
		return err
	}
	return c.t.exec(`insert into clawback_grants (bucket, id, grant_id, steps, entry_id) values ($1, $2, $3, $4, $5)
		on conflict (bucket, id, grant_id) do update set steps = excluded.steps, entry_id = excluded.entry_id, returned = false`,
		c.ref.Bucket, m.ID, g.ID, steps, entry)
}

// takeBack takes credit back from a locked wallet: from one grant first, then in burn order, then as debt.
func (t *tx) takeBack(w *Wallet, first string, steps int64, e Entry) (entry string, err error) {
	grants, err := t.liveGrants(w, `true`)
	if err != nil {
		return "", err
	}
	slices.SortStableFunc(grants, func(a, b Grant) int {
		return cmp.Compare(notThis(a.ID, first), notThis(b.ID, first))
	})
	p := newPosting(t.now)
	parts, short := takeFrom(p, grants, steps)
	if short > 0 {
		parts = append(parts, Part{debtPart, -short})
	}
	e.ID, e.Amount, e.Parts = t.l.ids.newID("ent_", w.Bucket, t.now), -steps, parts
	p.enter(w, e)
	if err := t.write(p); err != nil {
		return "", err
	}
	return e.ID, t.rearm(w)
}

// notThis puts one id before all others.
func notThis(id, first string) int {
	if id == first {
		return 0
	}
	return 1
}

// giveBack returns what a clawback took, where the money came back.
func (c *clawing) giveBack(m MoneyBack, g *Grant) error {
	all, err := c.takings(g)
	if err != nil {
		return err
	}
	for _, k := range all {
		if k.ID != m.ID || k.Returned {
			continue
		}
		w, err := c.wallet(g.Wallet)
		if err != nil {
			return err
		}
		taken, err := c.t.entryTaken(c.ref.Bucket, k.Entry)
		if err != nil {
			return err
		}
		parts := make(Parts, len(taken.Parts))
		for i, p := range taken.Parts {
			parts[i] = Part{p.Grant, -p.Amount}
		}
		b := &back{entryType: m.entryType(), id: c.t.l.ids.newID("ent_", w.Bucket, c.t.now), refersTo: m.ID, reason: m.word() + " " + m.Status, covers: g.Covers}
		if err := c.t.giveBack(w, b, parts); err != nil {
			return err
		}
		return c.t.exec(`update clawback_grants set returned = true where bucket = $1 and id = $2 and grant_id = $3`, c.ref.Bucket, m.ID, g.ID)
	}
	return nil
}

// wallet is one of the customer's, locked.
func (c *clawing) wallet(id string) (*Wallet, error) {
	if w := c.wallets[id]; w != nil {
		return w, nil
	}
	w, err := c.t.lockWallet(c.ref.Bucket, id)
	c.wallets[id] = w
	return w, err
}

// SoldTo says to whom a payment's sale was booked; found is false when none was.
func (l *Ledger) SoldTo(ctx context.Context, paymentIntent string) (ref Ref, found bool, err error) {
	found, err = l.getRow(ctx, &ref, `select bucket, customer_id as id from sales where payment_intent = $1`, paymentIntent)
	return ref, found, err
}

const disputedSQL = `select exists (select from clawbacks where bucket = $1 and customer_id = $2 and kind = 'dispute'
	and status in ('needs_response', 'under_review'))`

// pauseOrResume pauses the customer's rules while a dispute is open, and arms those again that were paused for one.
func (c *clawing) pauseOrResume() error {
	var open bool
	if _, err := c.t.get(&open, disputedSQL, c.ref.Bucket, c.ref.ID); err != nil {
		return err
	}
	var ids []string
	if err := c.t.SelectContext(c.t.ctx, &ids, `select w.id from wallets w join topup_rules r on r.bucket = w.bucket and r.wallet_id = w.id
		where w.bucket = $1 and w.customer_id = $2 and r.enabled and ($3 and r.pause_reason is null or not $3 and r.pause_reason = 'dispute')
		order by w.id`, c.ref.Bucket, c.ref.ID, open); err != nil {
		return err
	}
	for _, id := range ids {
		w, err := c.wallet(id)
		if err != nil {
			return err
		}
		r, _, err := c.t.rule(w)
		if err != nil {
			return err
		}
		if !open {
			if err := c.t.unpause(&r); err != nil {
				return err
			}
		}
		if err := c.t.rearm(w); err != nil { // pauses it where a dispute is open
			return err
		}
	}
	return nil
}
