package ledger

// A rule with settlement immediate gives the credit of a top-up at once: its grant comes in force in the commit of the
// intent, before Stripe has been asked, so that usage never waits for a card.
//
//   - Until the payment has come the credit pays usage alone, whatever it may pay after: Stripe's balance never shows money
//     that is not there, and no invoice is paid with it. Its time to expire runs from the payment, too.
//   - When the payment fails, is canceled, or its invoice is voided or given up, an adjustment takes all of it back as a
//     clawback does: what is left of the grant, then what else the wallet has, then as debt, which the next grant pays
//     down. The rule is paused in the same commit and before it, so that the debt asks for no other top-up. A payment that
//     waits for the customer has not failed, and keeps its credit while it waits.
//   - A payment that comes after it was given up gives back what was taken, to where it was taken from.
//   - After a payment failed, the credit of a rule waits for its payments, until one has gone through: a card that declines
//     again, tried again by the rule or for a resume or another card that is no better, gives nothing.
//
// Each of these is one commit with the change of the top-up's status, which is counted once however many tell of it. So a
// crash leaves either both or neither, and whoever settles next finds the top-up as it is.

// giveUnpaid brings the grant of an intent in force.
func (t *tx) giveUnpaid(w *Wallet, g Grant) error {
	p := newPosting(t.now)
	p.begin(t.l, w, &g, "grant")
	if err := t.write(p); err != nil {
		return err
	}
	t.emitGrant(EventGrantConfirmed, w, g)
	return t.filled(w)
}

// givesAtOnce reports whether a rule's next top-up gives its credit before it is paid: where it says so, and the last of
// the wallet's auto top-ups that came to an end was paid, or there is none yet.
func (t *tx) givesAtOnce(w *Wallet, r *Rule) (bool, error) {
	if r.Settlement != "immediate" {
		return false, nil
	}
	var last string
	_, err := t.get(&last, `select status from topups where bucket = $1 and wallet_id = $2 and trigger = 'auto' and status in ('succeeded', 'failed')
		order by id desc limit 1`, w.Bucket, w.ID)
	return last != "failed", err
}

// takeUnpaid takes the credit of a top-up back that was not paid. The top-up's row says so already.
func (t *tx) takeUnpaid(w *Wallet, top *Topup) error {
	entry, err := t.takeBack(w, top.GrantID, top.Amount, Entry{Type: "adjustment", Reason: "payment_" + top.Status, RefersTo: top.ID})
	if err != nil {
		return err
	}
	return t.exec(`update topups set taken_entry = $3 where bucket = $1 and id = $2`, top.Bucket, top.ID, entry)
}

// unpaidPaid makes the credit of an immediate top-up what it would have been from the start, had it waited for the payment
// that has come now. The entry, which moves nothing, says when; by it the mirror finds that Stripe has to show more.
func (t *tx) unpaidPaid(w *Wallet, top *Topup, o Outcome) error {
	var g Grant
	if _, err := t.get(&g, `select `+grantColumns+grantsFrom+`where g.bucket = $1 and g.id = $2`, top.Bucket, top.GrantID); err != nil {
		return err
	}
	if o.Received > 0 && o.Received != top.Charge { // never seen from Stripe for these charges
		t.l.log.Error("payment differs from charge", "topup", top.ID, "charge", top.Charge, "received", o.Received)
	}
	if w.Scope != "usage" {
		g.Covers = defaultCovers("purchased")
	}
	if top.ExpiresInDays != nil {
		at := t.now.AddDate(0, 0, int(*top.ExpiresInDays))
		g.ExpiresAt = &at
	}
	if err := t.exec(`update grants set covers = $3, expires_at = $4 where bucket = $1 and id = $2`, g.Bucket, g.ID, g.Covers, g.ExpiresAt); err != nil {
		return err
	}
	if top.TakenEntry != nil {
		if err := t.giveTakenBack(w, top, g.Covers); err != nil {
			return err
		}
	} else {
		p := newPosting(t.now)
		p.enter(w, Entry{ID: t.l.ids.newID("ent_", w.Bucket, t.now), Type: "adjustment", Reason: "payment_succeeded", RefersTo: top.ID})
		if err := t.write(p); err != nil {
			return err
		}
	}
	if g.ExpiresAt != nil {
		if err := t.turnsAt(w, *g.ExpiresAt); err != nil {
			return err
		}
	}
	if err := t.paid(w); err != nil {
		return err
	}
	return t.rearm(w)
}

// giveTakenBack returns what was taken when the payment was given up, to where it was taken from.
func (t *tx) giveTakenBack(w *Wallet, top *Topup, covers string) error {
	taken, err := t.entryTaken(top.Bucket, *top.TakenEntry)
	if err != nil {
		return err
	}
	parts := make(Parts, len(taken.Parts))
	for i, p := range taken.Parts {
		parts[i] = Part{p.Grant, -p.Amount}
	}
	return t.giveBack(w, &back{entryType: "adjustment", id: t.l.ids.newID("ent_", w.Bucket, t.now), refersTo: top.ID, reason: "payment_succeeded",
		covers: covers}, parts)
}
