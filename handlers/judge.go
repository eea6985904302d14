package handlers

import (
	"fmt"
	"strings"

	"lockstep/ledger"
	"lockstep/stripeutil"
)

// What Stripe says and what the books say of one thing, and in what they differ: judged here and nowhere else, without
// asking anybody.

// The kinds of difference. The list is closed: the API's document and the README name each.
const (
	kindUnflushed          = "unflushed"
	kindForeign            = "foreign_transaction"
	kindDoubled            = "doubled_transaction"
	kindStripeAhead        = "stripe_ahead"
	kindLedgerAhead        = "ledger_ahead"
	kindCurrency           = "currency_differs"
	kindUnshown            = "credit_not_shown"
	kindDeleted            = "customer_deleted"
	kindMissing            = "customer_missing"
	kindChargeWithoutGrant = "charge_without_grant"
	kindGrantWithoutCharge = "grant_without_charge"
	kindAmount             = "amount_differs"
	kindTopupStuck         = "topup_stuck"
	kindSaleUnbooked       = "sale_unbooked"
	kindRefundUnbooked     = "refund_unbooked"
	kindRefundFailed       = "refund_failed"
	kindRefundDiffers      = "refund_differs"
	kindDisputeUnbooked    = "dispute_unbooked"
	kindDisputeChanged     = "dispute_changed"
	kindEventFailed        = "event_failed"
)

// FindingKinds are all kinds of difference, in the order in which they are documented.
var FindingKinds = []string{kindUnflushed, kindForeign, kindDoubled, kindStripeAhead, kindLedgerAhead, kindCurrency, kindUnshown, kindDeleted, kindMissing,
	kindChargeWithoutGrant, kindGrantWithoutCharge, kindAmount, kindTopupStuck, kindSaleUnbooked, kindRefundUnbooked, kindRefundFailed,
	kindRefundDiffers, kindDisputeUnbooked, kindDisputeChanged, kindEventFailed}

// difference is something in which Stripe and the books do not agree.
type difference struct {
	kind, state    string
	ledger, stripe int64 // minor units
	drift          int64 // of a balance, by how much Stripe shows more than is known; of anything else stripe less ledger
	why            string
	todo           string // what a repair does, or, where none can, what somebody has to do
	ids            []string
	repairable     bool
	passing        bool // goes away by itself, or is no drift: nobody has to hear of it
}

func minor(amount int64, currency string) string { return ledger.FormatMinor(amount, currency) }

// ahead names the state of two sums of money: who has more.
func ahead(inLedger, atStripe int64) string {
	switch {
	case atStripe > inLedger:
		return "stripe_ahead"
	case atStripe < inLedger:
		return "ledger_ahead"
	}
	return "in_step"
}

// topupSides is what both sides say of a top-up.
type topupSides struct {
	topup   string             // whose the payment says to be
	books   *ledger.TopupBooks // nil: the books have no such top-up
	object  string             // Stripe's id of what was paid: a payment or an invoice; "" where there is none
	status  string             // what Stripe says of it, in its own word
	outcome ledger.Outcome     // and what that means
	said    bool               // that it means anything yet
	back    bool               // all of it went back to the customer
	gone    bool               // Stripe has no such thing
}

// judgeTopup compares a top-up with its payment or its invoice.
func judgeTopup(s topupSides) []difference {
	paid := s.said && s.outcome.Status == "succeeded"
	switch {
	case s.books == nil && paid && !s.back:
		return []difference{{kind: kindChargeWithoutGrant, state: "stripe_ahead", stripe: s.outcome.Received, ids: []string{s.object, s.topup},
			why:  fmt.Sprintf("%s was paid at Stripe for top-up %s, and the books have no such top-up", s.object, s.topup),
			todo: "find out which system made it; refund it in Stripe, or give the credit with POST /v1/grants"}}
	case s.books == nil:
		return nil
	case paid:
		return judgePaidTopup(s)
	}
	b := s.books
	own := b.PaymentIntent == nil || s.outcome.PaymentIntent == "" || *b.PaymentIntent == s.outcome.PaymentIntent
	switch {
	case b.Status == "succeeded" && b.GrantStatus == "voided":
		return nil // somebody has seen to it
	case b.Status == "succeeded" && (s.gone || own):
		what := fmt.Sprintf("Stripe says %q of %s", s.status, s.object)
		if s.gone {
			what = "Stripe has no payment of it"
			if s.object != "" {
				what = "Stripe does not know " + s.object
			}
		}
		return []difference{grantWithoutCharge(b.GrantID, fmt.Sprintf("top-up %s gave grant %s for %s, but %s", b.ID, b.GrantID, minor(b.Charge, b.Currency), what),
			b.Bought(), s.object, b.ID)}
	case b.InFlight() && own && s.said && b.Mode != "checkout" && b.Page == 0 && (s.outcome.Status == "failed" || s.outcome.Status == "canceled"):
		return []difference{{kind: kindTopupStuck, state: "in_step", ids: []string{s.object, b.ID}, repairable: true,
			why:  fmt.Sprintf("top-up %s is %s in the books, but %s has come to its end at Stripe without a payment (%s)", b.ID, b.Status, s.object, s.status),
			todo: "end the top-up, so that the wallet can be topped up again"}}
	case b.InFlight() && s.gone:
		return []difference{{kind: kindTopupStuck, state: "in_step", ids: []string{b.ID},
			why:  fmt.Sprintf("top-up %s is %s in the books, and Stripe has no payment of it", b.ID, b.Status),
			todo: fmt.Sprintf("see the log for why no worker ends it; POST /v1/topups/%s/cancel gives it up", b.ID)}}
	}
	return nil
}

// judgePaidTopup is judgeTopup for what Stripe was paid.
func judgePaidTopup(s topupSides) []difference {
	b, received := s.books, s.outcome.Received
	if received == 0 { // in a currency of the customer's own: all of it
		received = b.Charge
	}
	ids := []string{s.object, b.ID, b.GrantID}
	switch {
	case b.InFlight():
		return []difference{{kind: kindTopupStuck, state: "stripe_ahead", stripe: received, ids: ids, repairable: true,
			why:  fmt.Sprintf("%s paid %s for top-up %s at Stripe, which is still %s in the books: the customer waits for the credit", s.object, minor(received, b.Currency), b.ID, b.Status),
			todo: "book the payment: the credit is granted"}}
	case b.Status != "succeeded" && s.back:
		return nil
	case b.Status != "succeeded":
		return []difference{{kind: kindChargeWithoutGrant, state: "stripe_ahead", stripe: received, ids: ids, repairable: true,
			why:  fmt.Sprintf("%s paid %s for top-up %s at Stripe, which %s in the books: the customer paid and got nothing", s.object, minor(received, b.Currency), b.ID, ended(b.Status)),
			todo: "book the payment: the credit is granted"}}
	case b.PaymentIntent != nil && s.outcome.PaymentIntent != "" && *b.PaymentIntent != s.outcome.PaymentIntent && s.back, b.GrantStatus == "voided":
		return nil // somebody has seen to it
	case b.PaymentIntent != nil && s.outcome.PaymentIntent != "" && *b.PaymentIntent != s.outcome.PaymentIntent:
		return []difference{{kind: kindChargeWithoutGrant, state: "stripe_ahead", ledger: b.Bought(), stripe: b.Bought() + received, ids: append(ids, *b.PaymentIntent),
			why:  fmt.Sprintf("top-up %s was paid twice: %s gave grant %s, and %s took %s more for nothing", b.ID, *b.PaymentIntent, b.GrantID, s.outcome.PaymentIntent, minor(received, b.Currency)),
			todo: "refund " + s.outcome.PaymentIntent + " in Stripe"}}
	case b.GrantAmount != b.Buys(received):
		d := difference{kind: kindAmount, state: ahead(b.Bought(), received), ledger: b.Bought(), stripe: received, ids: ids,
			why: fmt.Sprintf("grant %s of top-up %s is worth %s, and %s paid %s", b.GrantID, b.ID, minor(b.Bought(), b.Currency), s.object, minor(received, b.Currency))}
		d.todo = "refund the rest in Stripe, or give the missing credit with POST /v1/grants"
		if d.state == "ledger_ahead" {
			d.todo = "void the grant and give the right amount: " + voidCall(b.GrantID, "amount differs from its payment")
		}
		return []difference{d}
	}
	return nil
}

func ended(status string) string {
	if status == "canceled" {
		return "was canceled"
	}
	return "has " + status
}

func voidCall(grant, reason string) string {
	return fmt.Sprintf(`POST /v1/grants/%s/void {"reason":"%s"}`, grant, reason)
}

func grantWithoutCharge(grant, why string, worth int64, ids ...string) difference {
	var calls []string
	for id := range strings.SplitSeq(grant, ", ") {
		calls = append(calls, voidCall(id, "was not paid"))
	}
	ids = append(ids, strings.Split(grant, ", ")...)
	return difference{kind: kindGrantWithoutCharge, state: "ledger_ahead", ledger: worth, ids: nonempty(ids), why: why,
		todo: "make sure that nothing was paid, then take the credit back: " + strings.Join(calls, ", ")}
}

func nonempty(ids []string) (out []string) {
	for _, id := range ids {
		if id != "" {
			out = append(out, id)
		}
	}
	return out
}

// saleSides is what both sides say of an invoice or a checkout session that sells credit.
type saleSides struct {
	id, payment, currency string
	status                string // Stripe's word
	paid                  bool
	amount                int64 // that was paid, minor units
	sells                 bool  // its prices name credits; known only where the books have nothing
	gone                  bool  // Stripe has no such thing
	books                 *ledger.SaleBooks
	owner                 string // the customer whose it is; "" for nobody's
	closed                bool   // that customer was deleted
}

// judgeSale compares a sale with what it gave.
func judgeSale(s saleSides) []difference {
	ids := nonempty([]string{s.id, s.payment})
	switch {
	case s.books != nil && !s.paid && s.books.Grants != "":
		what := fmt.Sprintf("Stripe says %q of it", s.status)
		if s.gone {
			what = "Stripe does not know it"
		}
		return []difference{grantWithoutCharge(s.books.Grants, fmt.Sprintf("%s gave %s, but %s", s.id, s.books.Grants, what), s.books.Cost, s.id)}
	case s.books != nil || !s.paid || !s.sells:
		return nil
	case s.owner == "":
		return []difference{{kind: kindSaleUnbooked, state: "stripe_ahead", stripe: s.amount, ids: ids,
			why:  fmt.Sprintf("%s of %s sold credit to a Stripe customer who is none of yours", s.id, minor(s.amount, s.currency)),
			todo: "link the Stripe customer to one of yours (POST /v1/customers with stripe_customer), then lockstep reconcile --repair"}}
	case s.closed:
		return []difference{{kind: kindSaleUnbooked, state: "stripe_ahead", stripe: s.amount, ids: ids,
			why:  fmt.Sprintf("%s of %s sold credit to a customer who was deleted in Stripe: nothing was granted", s.id, minor(s.amount, s.currency)),
			todo: "refund it in Stripe"}}
	}
	return []difference{{kind: kindSaleUnbooked, state: "stripe_ahead", stripe: s.amount, ids: ids, repairable: true,
		why:  fmt.Sprintf("%s of %s was paid at Stripe and sold credit, and nothing of it is in the books", s.id, minor(s.amount, s.currency)),
		todo: "book the sale: the credit is granted"}}
}

// backSides is what both sides say of the refunds and disputes of a payment.
type backSides struct {
	payment, currency string
	received          int64 // what the payment brought, minor units
	stripe            []ledger.MoneyBack
	books             []ledger.MoneyBack
	grants            []ledger.BoughtGrant // that the payment bought
}

// judgeBacks compares a payment's refunds and disputes with what was taken back for them.
func judgeBacks(s backSides) (found []difference) {
	for _, m := range s.stripe {
		booked, known := bookedBack(s.books, m.ID)
		if d, differs := judgeBack(s, m, booked, known); differs {
			d.ids, d.repairable = []string{m.ID, s.payment}, true
			d.ledger, d.stripe = s.received, s.received
			if known && booked.Stands {
				d.ledger -= booked.Amount
			}
			if m.Stands {
				d.stripe -= m.Amount
			}
			d.state = ahead(d.ledger, d.stripe)
			found = append(found, d)
		}
	}
	if len(found) > 0 {
		return found
	}
	return judgeTakings(s)
}

func bookedBack(books []ledger.MoneyBack, id string) (ledger.MoneyBack, bool) {
	for _, b := range books {
		if b.ID == id {
			return b, true
		}
	}
	return ledger.MoneyBack{}, false
}

// judgeBack is judgeBacks for one refund or dispute.
func judgeBack(s backSides, m, booked ledger.MoneyBack, known bool) (d difference, differs bool) {
	what, amount := strings.ReplaceAll(m.Kind, "_", " ")+" "+m.ID, minor(m.Amount, m.Currency)
	switch {
	case !known && !m.Stands && !m.Open, known && booked.Status == m.Status && booked.Amount == m.Amount && booked.Stands == m.Stands:
		return d, false
	case !known && m.Kind == "dispute", known && !booked.Stands && m.Stands && m.Kind == "dispute":
		return difference{kind: kindDisputeUnbooked, why: fmt.Sprintf("%s took %s of %s back at Stripe (%s), and its credit is still the customer's", what, amount, s.payment, m.Status),
			todo: "take the credit of it back; while it is open nothing is charged"}, true
	case !known, !booked.Stands && m.Stands:
		return difference{kind: kindRefundUnbooked, why: fmt.Sprintf("%s gave %s of %s back to the customer at Stripe, who still has the credit", what, amount, s.payment),
			todo: "take the credit of it back"}, true
	case booked.Stands && !m.Stands && m.Kind == "dispute":
		return difference{kind: kindDisputeChanged, why: fmt.Sprintf("%s of %s has ended (%s) and Stripe has given %s back, but the customer's credit was not", what, s.payment, m.Status, amount),
			todo: "give the credit back to the same grants"}, true
	case booked.Stands && !m.Stands:
		return difference{kind: kindRefundFailed, why: fmt.Sprintf("%s of %s %s at Stripe: the customer never got the %s, and the credit was taken", what, s.payment, ended(m.Status), amount),
			todo: "give the credit back to the same grants"}, true
	case booked.Amount != m.Amount:
		return difference{kind: kindRefundDiffers, why: fmt.Sprintf("%s of %s is of %s at Stripe and of %s in the books", what, s.payment, amount, minor(booked.Amount, m.Currency)),
			todo: "bring the books in line; where that is not enough, give or take the rest by hand"}, true
	case m.Kind == "dispute" && m.Final != (booked.Status == "won" || booked.Status == "lost"):
		return difference{kind: kindDisputeChanged, why: fmt.Sprintf("%s of %s is %s at Stripe and %s in the books", what, s.payment, m.Status, booked.Status),
			todo: "end the dispute in the books, which lets the customer's rules charge again"}, true
	}
	return d, false
}

// judgeTakings compares what was taken back of each grant with the share of the payment that went back. Several refunds
// are rounded one by one where some of them were returned, so a step of each is no difference.
func judgeTakings(s backSides) (found []difference) {
	var back, times int64
	var ids []string
	for _, m := range s.stripe {
		if m.Stands {
			back += m.Amount
			ids = append(ids, m.ID)
		}
		times++
	}
	if s.received <= 0 {
		return nil
	}
	for _, g := range s.grants {
		want := ledger.Share(g.Amount, min(back, s.received), s.received)
		if off := g.Taken - want; off <= times && off >= -times {
			continue
		}
		took := ledger.Share(s.received, g.Taken, g.Amount)
		found = append(found, difference{kind: kindRefundDiffers, state: ahead(s.received-took, s.received-back), ledger: s.received - took, stripe: s.received - back,
			ids: append(append(ids, s.payment), g.ID), repairable: g.Times < int64(len(ids)),
			why: fmt.Sprintf("%s of %s went back at Stripe (%s), and credit for %s of it was taken from grant %s", minor(back, s.currency), s.payment,
				standing(ids), minor(took, s.currency), g.ID),
			todo: "take what is missing; what was taken beyond it, give back by hand with POST /v1/grants"})
	}
	return found
}

func standing(ids []string) string {
	if len(ids) == 0 {
		return "no refund or dispute of it stands"
	}
	return strings.Join(ids, ", ")
}

// balanceSides is what both sides say of a customer's balance.
type balanceSides struct {
	customer, stripeCustomer string
	deletedHere              bool // the books are closed
	missing                  bool // Stripe has no such customer
	stripe                   stripeutil.Customer
	mirror                   ledger.MirrorView
	unknown                  []ledger.StripeTransaction // at Stripe and not booked, newest first
}

// judgeBalance compares a customer's balance in Stripe with the books.
func judgeBalance(s balanceSides) (v lockstepJSON, found []difference) {
	m := &s.mirror
	v = lockstepJSON{Object: "lockstep", State: "in_step", Currency: m.Currency, Ledger: m.Want, Unflushed: m.Want - m.Credit}
	closed := func(d difference) (lockstepJSON, []difference) {
		v.State, d.state, d.ledger, d.ids = "unknown", "unknown", m.Want, []string{s.stripeCustomer}
		return v, []difference{d}
	}
	switch {
	case s.deletedHere && m.Want == 0:
		v.State = "unknown"
		return v, nil
	case s.deletedHere:
		v.Stripe = m.Credit // what it showed last
		return closed(difference{kind: kindDeleted, passing: true, stripe: m.Credit, why: fmt.Sprintf("the customer was deleted in Stripe, where no balance is written any more, and still has credit of %s in the books", minor(m.Want, m.Currency)),
			todo: "refund what was paid for it in Stripe, or void the grants: GET /v1/grants?customer=" + s.customer + ", POST /v1/grants/{id}/void"})
	case s.missing:
		return closed(difference{kind: kindMissing, why: "Stripe does not know " + s.stripeCustomer,
			todo: "see that the key is of the right account and mode (lockstep doctor)"})
	case s.stripe.Deleted:
		return closed(difference{kind: kindDeleted, repairable: true, why: s.stripeCustomer + " was deleted in Stripe, and the customer still spends",
			todo: "close the customer's books: nothing is charged or spent any more"})
	case s.stripe.Currency != "" && s.stripe.Currency != m.Currency:
		return closed(difference{kind: kindCurrency, why: fmt.Sprintf("Stripe keeps the balance of %s in %s and the books in %s", s.stripeCustomer, strings.ToUpper(s.stripe.Currency), strings.ToUpper(m.Currency)),
			todo: "a customer has one currency: make a new Stripe customer in " + strings.ToUpper(m.Currency)})
	}
	v.Stripe = -s.stripe.Balance
	v.Drift = v.Stripe - m.Credit
	if v.Drift == 0 {
		if v.Unflushed != 0 || m.Open {
			v.State = "flushing"
			found = append(found, unflushed(m, v))
		}
		if len(m.Unshown) > 0 {
			found = append(found, difference{kind: kindUnshown, state: v.State, ledger: v.Ledger, stripe: v.Stripe, passing: true, ids: []string{s.stripeCustomer},
				why: fmt.Sprintf("Stripe keeps the customer's balance in %s, for good, so it can't show credit of %s, which is priced in another currency and pays usage alone",
					m.Currency, strings.Join(m.Unshown, ", ")),
				todo: "nothing has to be done; credit that invoices are to be paid with must be priced in " + m.Currency})
		}
		return v, found
	}
	return judgeDrift(s, v)
}

// refusedTries is how often a flush may fail before somebody should hear of it.
const refusedTries = 3

func unflushed(m *ledger.MirrorView, v lockstepJSON) difference {
	d := difference{kind: kindUnflushed, state: "flushing", ledger: v.Ledger, stripe: v.Stripe, repairable: true, passing: m.Tries < refusedTries,
		why: "the ledger has moved and Stripe follows with the next flush", todo: "flush now"}
	if !d.passing {
		d.why = fmt.Sprintf("the ledger has moved, and Stripe could not be told %d times in a row: see the log", m.Tries)
	}
	return d
}

// judgeDrift says whose transactions make a balance another than all known transactions add up to.
func judgeDrift(s balanceSides, v lockstepJSON) (lockstepJSON, []difference) {
	var foreign, doubled, own int64
	var foreignIDs, doubledIDs []string
	first := map[string]string{} // by flush
	for i := len(s.unknown) - 1; i >= 0; i-- {
		switch t := s.unknown[i]; {
		case t.Flush == "":
			foreign, foreignIDs = foreign-t.Amount, append(foreignIDs, t.ID)
		case t.Doubles != "" || first[t.Flush] != "":
			doubled, doubledIDs = doubled-t.Amount, append(doubledIDs, t.ID, t.Doubles+first[t.Flush])
		default:
			own, first[t.Flush] = own-t.Amount, t.ID
		}
	}
	currency := s.mirror.Currency
	base := difference{ledger: v.Ledger, stripe: v.Stripe, drift: v.Drift}
	if own+foreign+doubled != v.Drift || len(s.unknown) == 0 {
		d := base
		d.kind, d.state, d.repairable, d.ids = kindStripeAhead, "stripe_ahead", true, []string{s.stripeCustomer}
		d.why = fmt.Sprintf("Stripe shows %s more credit of %s than all known transactions add up to", minor(v.Drift, currency), s.stripeCustomer)
		if v.Drift < 0 {
			d.kind, d.state = kindLedgerAhead, "ledger_ahead"
			d.why = fmt.Sprintf("Stripe shows %s less credit of %s than all known transactions add up to", minor(-v.Drift, currency), s.stripeCustomer)
		}
		d.todo = "bring Stripe's balance to what the ledger says, by a balance transaction"
		v.State = d.state
		return v, []difference{d}
	}
	var found []difference
	if len(doubledIDs) > 0 {
		d := base
		d.kind, d.state, d.repairable, d.ids = kindDoubled, "foreign", true, doubledIDs
		d.why = fmt.Sprintf("%s carries the metadata of a flush that another balance transaction has made: Stripe shows %s twice", strings.Join(doubledIDs, ", a copy of "), minor(doubled, currency))
		d.todo = "bring Stripe's balance back to what the ledger says; the customer's credit in the ledger stays as it is"
		found = append(found, d)
	}
	if len(foreignIDs) > 0 {
		d := base
		d.kind, d.state, d.repairable, d.ids = kindForeign, "foreign", true, foreignIDs
		d.why = fmt.Sprintf("somebody else wrote balance transactions of together %s that are not booked here yet: %s", minor(foreign, currency), strings.Join(foreignIDs, ", "))
		d.todo = "import them: the credit in the ledger follows what Stripe gave or spent"
		found = append(found, d)
	}
	if len(found) == 0 { // our own, whose answer is on its way
		v.State, v.Drift, v.Unflushed = "flushing", 0, v.Unflushed-own
		return v, []difference{unflushed(&s.mirror, v)}
	}
	v.State = "foreign"
	return v, found
}
