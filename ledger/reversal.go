package ledger

import (
	"context"
	"strings"
	"time"
)

// Reversal is credit of a debit given back. Amounts are steps, above zero.
type Reversal struct {
	ID        string // rev_…
	Debit     string
	Scale     int16
	Amount    int64
	Parts     Parts
	Balance   Balance
	Reason    string
	CreatedAt time.Time
}

// Reverse gives a debit back to the grants that it took, all of it that is left with a nil amount: what was
// taken last goes back first. What belongs to a grant that has ended since is breakage at once. However often
// and from however many sides, never more goes back than was taken.
func (l *Ledger) Reverse(ctx context.Context, debit string, amount *Decimal, reason string, once Once) (r Reversal, replayed bool, err error) {
	d, err := l.DebitByID(ctx, debit)
	if err != nil {
		return Reversal{}, false, err
	}
	bucket, _ := bucketOfID("deb_", debit)
	once.Bucket = bucket
	id := ""
	err = l.inTx(ctx, func(t *tx) error {
		if id, replayed, err = t.claim(once, l.ids.newID("ent_", bucket, t.now)); err != nil || replayed {
			return err
		}
		w, err := t.lockWallet(bucket, d.Wallet)
		if err != nil {
			return err
		}
		return t.reverse(w, &d, id, amount, reason)
	})
	if err != nil {
		return Reversal{}, false, err
	}
	e, _, err := entryByID(l.getter(ctx), bucket, id)
	if err != nil {
		return Reversal{}, false, err
	}
	return Reversal{ID: "rev_" + strings.TrimPrefix(e.ID, "ent_"), Debit: d.ID, Scale: d.Scale, Amount: e.Amount, Parts: e.Parts,
		Balance: e.balance(), Reason: e.Reason, CreatedAt: e.CreatedAt.UTC()}, replayed, nil
}

func (t *tx) reverse(w *Wallet, d *Debit, id string, asked *Decimal, reason string) error {
	returned, left, err := t.returned(w.Bucket, d)
	if err != nil {
		return err
	}
	amount := left
	if asked != nil {
		if amount, err = stepsOf(*asked, w.Scale, "amount", w.Asset); err != nil {
			return err
		}
	}
	switch {
	case left == 0:
		return refuse(CodeState, "id", "debit %s was reversed in full already", d.ID)
	case amount <= 0:
		return refuse(CodeInvalid, "amount", "amount must be above zero")
	case amount > left:
		return refuse(CodeInvalid, "amount", "of debit %s at most %s is left to reverse", d.ID, FormatSteps(left, w.Scale))
	}
	var parts Parts
	for i := len(d.Parts) - 1; i >= 0 && amount > 0; i-- {
		part := d.Parts[i]
		if give := min(amount, part.Amount-returned[part.Grant]); give > 0 {
			parts, amount = append(parts, Part{part.Grant, give}), amount-give
		}
	}
	return t.giveBack(w, &back{entryType: "reversal", id: id, refersTo: d.ID, covers: "usage", reason: reason}, parts)
}

// returned is how much of a debit was given back to each grant that it took from, and how much is left to give back.
func (t *tx) returned(bucket int16, d *Debit) (returned map[string]int64, left int64, err error) {
	if err := t.attached("id", &d.CreatedAt, nil); err != nil { // what was given back before is to be seen
		return nil, 0, err
	}
	var before []Parts
	if err := t.SelectContext(t.ctx, &before, `select parts from all_entries where bucket = $1 and refers_to = $2 and type = 'reversal'`, bucket, d.ID); err != nil {
		return nil, 0, err
	}
	returned = make(map[string]int64, len(d.Parts))
	for _, p := range d.Parts {
		returned[p.Grant] = 0
	}
	left = d.Amount
	for _, parts := range before {
		for _, p := range parts {
			grant := p.Grant
			if _, own := returned[grant]; !own { // made for debt that had been paid down
				grant = debtPart
			}
			returned[grant] += p.Amount
			left -= p.Amount
		}
	}
	return returned, left, nil
}

// LeftToReverse is how much of a debit was not given back yet.
func (l *Ledger) LeftToReverse(ctx context.Context, d *Debit) (left int64, err error) {
	bucket, _ := bucketOfID("deb_", d.ID)
	err = l.inTx(ctx, func(t *tx) error {
		_, left, err = t.returned(bucket, d)
		return err
	})
	return left, err
}

// back says what entry gives credit back, and of what taking.
type back struct {
	entryType, id, refersTo, reason string
	covers                          string // of what comes back as a grant of its own
}

// giveBack books credit that is given back to where it was taken from.
func (t *tx) giveBack(w *Wallet, b *back, parts Parts) error {
	grants, err := t.grantsOf(w.Bucket, parts)
	if err != nil {
		return err
	}
	p, total, booked, ended := newPosting(t.now), int64(0), Parts(nil), Parts(nil)
	for _, part := range parts {
		total += part.Amount
		g := grants[part.Grant]
		if g == nil {
			if booked, err = t.forgive(p, w, b, part, booked); err != nil {
				return err
			}
			continue
		}
		if g.Status == "exhausted" {
			g.Status = "confirmed"
			if g.ExpiresAt != nil && !g.ExpiresAt.After(t.now) { // nothing was left to expire when its time came
				g.Status = "expired"
			}
		}
		if g.Status == "confirmed" {
			g.Remaining += part.Amount
		} else {
			ended = append(ended, part)
		}
		p.set(g.state())
		booked = append(booked, part)
	}
	p.enter(w, Entry{ID: b.id, Type: b.entryType, Amount: total, Parts: booked, Reason: b.reason, RefersTo: b.refersTo})
	for _, part := range ended {
		p.enter(w, Entry{ID: t.l.ids.newID("ent_", w.Bucket, t.now), Type: "expire", Amount: -part.Amount,
			Parts: Parts{{part.Grant, -part.Amount}}, Reason: "given back too late", RefersTo: part.Grant})
	}
	if err := t.write(p); err != nil {
		return err
	}
	if err := t.nextTurn(w); err != nil { // a grant that is live again may expire
		return err
	}
	return t.rearm(w)
}

// forgive gives back what was taken as debt: less is owed, and what a grant has paid down since comes back as a
// grant of its own. What Stripe took as debt may pay down either kind, as credit that Stripe gives does.
func (t *tx) forgive(p *posting, w *Wallet, b *back, part Part, booked Parts) (Parts, error) {
	paid := part.Amount
	if part.Grant == stripeDebtPart {
		if owed := min(paid, w.StripeDebt); owed > 0 {
			booked, paid = append(booked, Part{stripeDebtPart, owed}), paid-owed
		}
	}
	if owed := min(paid, w.Debt-w.StripeDebt); owed > 0 {
		booked, paid = append(booked, Part{debtPart, owed}), paid-owed
	}
	if paid == 0 {
		return booked, nil
	}
	g := Grant{Bucket: w.Bucket, ID: t.l.ids.newID("grt_", w.Bucket, t.now), Wallet: w.ID, Amount: paid, Kind: "adjustment",
		Priority: DefaultPriority, Covers: b.covers, Status: "confirmed", EffectiveAt: t.now, Reason: b.entryType + " of " + b.refersTo, SourceType: "api", SourceID: b.id}
	if err := t.insertGrant(g); err != nil {
		return nil, err
	}
	g.Remaining, g.InForce = paid, true
	p.set(g.state())
	t.emitGrant(EventGrantConfirmed, w, g)
	return append(booked, Part{g.ID, paid}), nil
}
