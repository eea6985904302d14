package main

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"lockstep/stripeutil/stripesim"
)

// soldBy has a pack of 40.00 of credit sold by an invoice, paid by card or, out of band, elsewhere.
func (w *world) soldBy(stripeID string, cents int64, outOfBand bool) (invoice string) {
	w.t.Helper()
	price := w.pack(cents, "credits", "40")
	op := w.sim.Operator()
	if !outOfBand {
		return w.did(op.InvoicePrice(stripeID, price, 1, nil))
	}
	invoice, err := op.InvoicePrice(stripeID, price, 1, nil)
	if err == nil {
		w.t.Fatal("a customer without a card paid")
	}
	return w.did(op.PayInvoice(invoice, true))
}

// What a credit note gives on the balance is credit, named by the note, and what the invoice bought is kept beside it; its
// void takes that credit back from the grant that it gave, and nothing is left of either.
func TestCreditNoteOnTheBalance(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	wallet, stripeID := w.customer("acme", "", "pm_card_visa")
	w.granted(map[string]any{"customer": "acme", "amount": "1", "kind": "purchased", "priority": 1})
	in := w.soldBy(stripeID, 2000, false)
	w.left("acme", "41")
	w.inStep("acme")
	op := w.sim.Operator()
	note := w.did(op.CreditNote(in, stripesim.CreditParts{Credit: 500}))
	w.left("acme", "46")
	w.inStep("acme")
	e := w.entriesOf(wallet, "stripe_balance")
	if len(e) != 1 || e[0].str("amount") != "5" || e[0].str("stripe.credit_note") != note || e[0].str("stripe.invoice") != in {
		t.Fatalf("%v", e)
	}
	gave := w.grants("acme")[0]
	if gave.str("kind") != "adjustment" || gave.str("source.type") != "stripe_balance" {
		t.Errorf("%v", gave)
	}
	w.did(op.NoteMemo(note, "for the trouble"))
	w.quietEvents()
	w.did(op.VoidCreditNote(note))
	w.left("acme", "41")
	w.inStep("acme")
	if e := w.entriesOf(wallet, "stripe_balance"); len(e) != 2 || e[0].parts() != gave.str("id")+":-5" || e[0].str("stripe.credit_note") != note {
		t.Errorf("%v", e)
	}
}

// A credit note in three parts: the balance's is credit, the refund is counted once, and the share of the purchase that
// went back outside Stripe is taken back as a refund's is.
func TestCreditNoteInThreeParts(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	wallet, stripeID := w.customer("acme", "", "pm_card_visa")
	in := w.soldBy(stripeID, 2000, false)
	w.left("acme", "40")
	w.inStep("acme")
	op := w.sim.Operator()
	note := w.did(op.CreditNote(in, stripesim.CreditParts{Credit: 300, Refund: 200, OutOfBand: 101}))
	w.left("acme", "36.98") // 40 + 3 - 4 - 2.02
	w.inStep("acme")
	w.quietEvents()
	if refunds := w.entriesOf(wallet, "refund"); len(refunds) != 2 || w.available("acme") != "36.98" {
		t.Errorf("%v", refunds)
	} else {
		for _, e := range refunds {
			if e.str("refers_to") == note && (e.str("amount") != "-2.02" || e.str("stripe.credit_note") != note || e.str("stripe.invoice") != in || e.str("stripe.balance_transaction") != "") {
				t.Errorf("%v", e)
			}
		}
	}
	if _, err := op.VoidCreditNote(note); err == nil {
		t.Error("a refund was voided")
	}
	// All of the rest, by a plain refund and outside Stripe: what came is what went back, and nothing is left of it.
	for _, ch := range w.sim.Charges(stripeID) {
		w.did(op.Refund(ch.ID, 1000))
	}
	w.did(op.CreditNote(in, stripesim.CreditParts{OutOfBand: 699}))
	w.left("acme", "3")
	w.inStep("acme")
}

// Of an invoice that was paid outside Stripe money goes back outside Stripe: by its share, each note once, and as often as
// a note is voided to the same grant. Also of a top-up's invoice, and where the note is heard of before the sale.
func TestCreditNoteOutsideStripe(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	wallet, stripeID := w.customer("acme", "", "")
	op := w.sim.Operator()
	in := w.soldBy(stripeID, 2000, true)
	w.left("acme", "40")
	bought := w.grants("acme")[0].str("id")
	first := w.did(op.CreditNote(in, stripesim.CreditParts{OutOfBand: 500}))
	w.left("acme", "30")
	second := w.did(op.CreditNote(in, stripesim.CreditParts{OutOfBand: 333}))
	w.left("acme", "23.34")
	w.spend("acme", "20")
	w.did(op.VoidCreditNote(first))
	w.left("acme", "13.34")
	w.did(op.VoidCreditNote(second))
	w.left("acme", "20")
	third := w.did(op.CreditNote(in, stripesim.CreditParts{OutOfBand: 2000}))
	w.left("acme", "-20") // half of it was spent, and is owed now
	w.did(op.VoidCreditNote(third))
	w.left("acme", "20")
	w.inStep("acme")
	if w.remaining(bought) != "20" {
		t.Errorf("%s is left of the grant", w.remaining(bought))
	}
	back := w.entriesOf(wallet, "refund")
	if len(back) != 6 || back[0].str("stripe.credit_note") != third || back[0].str("amount") != "40" {
		t.Errorf("%v", back)
	}

	// The sale is heard of last.
	w.sim.InjectDelivery(stripesim.DeliveryFault{Type: "invoice.paid", Kind: stripesim.Hold})
	late := w.soldBy(stripeID, 5000, true) // of which the balance pays 20
	w.did(op.CreditNote(late, stripesim.CreditParts{OutOfBand: 1000}))
	w.quietEvents()
	w.sim.Release()
	w.left("acme", "32") // a fifth of what came went back
	w.inStep("acme")

	w.card(stripeID, "pm_card_visa")
	top := w.must("POST", "/v1/topups", map[string]any{"customer": "acme", "amount": "10", "mode": "invoice"})
	w.left("acme", "42")
	w.inStep("acme")
	w.did(op.CreditNote(top.str("stripe.invoice"), stripesim.CreditParts{OutOfBand: 400, Credit: 100}))
	w.left("acme", "39")
	w.inStep("acme")
}

// Of an invoice that the balance paid in part, the share is of all that was paid, not of the card's part alone.
func TestCreditNoteOfWhatTheBalancePaid(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, stripeID := w.customer("acme", "5", "pm_card_visa")
	w.inStep("acme")
	in := w.soldBy(stripeID, 2000, false) // 5 from the balance, 15 by card
	w.left("acme", "40")
	w.inStep("acme")
	w.did(w.sim.Operator().CreditNote(in, stripesim.CreditParts{OutOfBand: 500}))
	w.left("acme", "30")
	w.did(w.sim.Operator().CreditNote(in, stripesim.CreditParts{Refund: 1500}))
	w.left("acme", "0")
	w.inStep("acme")
}

// A credit note on an open invoice lowers what is due, and nothing comes back.
func TestCreditNoteBeforePayment(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, stripeID := w.customer("acme", "5", "")
	w.inStep("acme")
	in := w.did(w.sim.Operator().FinalInvoice(stripeID, 2000, "usd"))
	w.left("acme", "0")
	w.did(w.sim.Operator().CreditNote(in, stripesim.CreditParts{OutOfBand: 200}))
	w.quietEvents()
	w.inStep("acme")
	if w.available("acme") != "0" {
		t.Errorf("%s available", w.available("acme"))
	}
}

// Whatever becomes of the events, the books of random credit notes and voids end the same.
func TestCreditNotesUnderScrambledEvents(t *testing.T) {
	t.Parallel()
	for name, kind := range map[string]stripesim.DeliveryFaultKind{"lost": stripesim.Lose, "twice": stripesim.Duplicate, "twins": stripesim.Twin, "late": stripesim.LoseOnce, "held": stripesim.Hold} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, func(o *worldOptions) { o.backfill = time.Second })
			seed := rand.Uint64()
			rng := rand.New(rand.NewPCG(seed, 5))
			w.sim.InjectDelivery(stripesim.DeliveryFault{Kind: kind, Times: 1000})
			_, stripeID := w.customer("acme", "", "pm_card_visa")
			op := w.sim.Operator()
			in := w.soldBy(stripeID, 2000, false)
			gone, credit := int64(0), int64(0)
			for range 8 {
				p := stripesim.CreditParts{Credit: rng.Int64N(50), OutOfBand: 1 + rng.Int64N(90)}
				if rng.IntN(3) == 0 {
					p.Refund = 1 + rng.Int64N(50)
				}
				note := w.did(op.CreditNote(in, p))
				if p.Refund == 0 && rng.IntN(2) == 0 {
					w.did(op.VoidCreditNote(note))
					continue
				}
				gone, credit = gone+p.Refund+p.OutOfBand, credit+p.Credit
			}
			w.sim.Release()
			cents := 4000 - 2*gone + credit
			want := fmt.Sprintf("%d.%02d", cents/100, cents%100)
			w.within(40*time.Second, fmt.Sprintf("seed %d: %s are left", seed, want), func() bool {
				w.sim.Release()
				var have int64
				if err := w.g.ledger.DB().Get(&have, `select total from wallets where customer_id = 'acme'`); err != nil {
					t.Fatal(err)
				}
				return have == cents*10_000
			})
			w.inStepWithin(40*time.Second, "acme")
			w.quietEvents()
		})
	}
}

// Killed after a credit note took credit back and before its event was done, the service takes nothing twice.
func TestKilledWhileFollowingACreditNote(t *testing.T) {
	t.Parallel()
	w := detached(t)
	first := w.spawn("")
	w.base = first.base
	_, stripeID := w.customer("acme", "", "pm_card_visa")
	in := w.soldBy(stripeID, 2000, false)
	w.must("POST", "/v1/reconcile", map[string]any{"customer": "acme", "repair": true})
	w.within(30*time.Second, "the sale is booked and done", func() bool {
		var pending int
		err := w.g.ledger.DB().Get(&pending, `select count(*) from stripe_events where status = 'pending'`)
		return err == nil && pending == 0 && w.available("acme") == "40"
	})
	_ = first.cmd.Process.Kill()
	<-first.done

	w.did(w.sim.Operator().CreditNote(in, stripesim.CreditParts{Credit: 100, OutOfBand: 500}))
	w.spawn("event.applied").killed(t)
	w.base = w.spawn("").base
	w.within(60*time.Second, "the note is booked", func() bool { return w.available("acme") == "31" })
	w.within(60*time.Second, "every event is done", func() bool {
		var pending int
		err := w.g.ledger.DB().Get(&pending, `select count(*) from stripe_events where status = 'pending'`)
		return err == nil && pending == 0
	})
	if w.available("acme") != "31" {
		t.Errorf("%s available", w.available("acme"))
	}
	w.inStepWithin(60*time.Second, "acme")
}
