package main

import (
	"strings"
	"testing"
	"time"
)

// A card that was declined for a passing reason is tried again days apart, as often as the rule allows, each time as a
// top-up of its own; the pause says when.
func TestDeclinesAreRetried(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(o *worldOptions) { o.backfill = time.Second })
	wallet, stripeID := w.customer("acme", "10", "pm_card_stripesim_insufficient_funds")
	if a := w.rule(wallet, with(refill(10000), "decline_retries", 5)); a.status != 400 || a.str("error.param") != "decline_retries" {
		t.Errorf("too many retries: %v", a)
	}
	w.rule(wallet, with(refill(10000), "decline_retries", 2))
	tried := func(n int) {
		t.Helper()
		w.eventually("the card was tried", func() bool {
			_, reason := w.state(wallet)
			return reason == "payment_failed" && len(w.sim.Charges(stripeID)) == n
		})
	}
	w.spend("acme", "6")
	tried(1)
	if a := w.must("GET", "/v1/wallets/"+wallet, nil); !strings.HasPrefix(a.str("auto_topup.pause.clears_when"), "the card is tried again at ") {
		t.Errorf("the pause: %v", a)
	}
	w.advance(23 * time.Hour)
	w.spend("acme", "0.5")
	time.Sleep(300 * time.Millisecond)
	tried(1) // not yet
	w.advance(time.Hour)
	w.within(30*time.Second, "a second try", func() bool { return len(w.sim.Charges(stripeID)) == 2 })
	tried(2)
	w.advance(3 * 24 * time.Hour)
	w.within(30*time.Second, "a third try", func() bool { return len(w.sim.Charges(stripeID)) == 3 })
	tried(3)
	if a := w.must("GET", "/v1/wallets/"+wallet, nil); strings.Contains(a.str("auto_topup.pause.clears_when"), "tried again") {
		t.Errorf("after the last try: %v", a)
	}
	w.advance(30 * 24 * time.Hour)
	w.must("POST", "/v1/reconcile", nil)
	tried(3)
	// Another card pays, and from there on the count begins anew.
	w.card(stripeID, "pm_card_visa")
	w.within(30*time.Second, "the refill", func() bool { return w.available("acme") == "23.5" })
	w.card(stripeID, "pm_card_stripesim_insufficient_funds")
	w.spend("acme", "19")
	w.eventually("paused again", func() bool { _, reason := w.state(wallet); return reason == "payment_failed" })
	if a := w.must("GET", "/v1/wallets/"+wallet, nil); !strings.HasPrefix(a.str("auto_topup.pause.clears_when"), "the card is tried again at ") {
		t.Errorf("the pause after a payment: %v", a)
	}
}

// What no other day will change is never tried again, and a pause whose time is up does not keep a frozen wallet busy.
func TestHardDeclinesAreNotRetried(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	wallet, stripeID := w.customer("acme", "10", "pm_card_stripesim_stolen_card")
	w.rule(wallet, with(refill(0), "decline_retries", 4))
	w.spend("acme", "6")
	w.eventually("paused", func() bool { _, reason := w.state(wallet); return reason == "payment_failed" })
	w.advance(40 * 24 * time.Hour)
	if n, err := w.g.ledger.Sweep(t.Context()); err != nil || n != 0 {
		t.Errorf("swept %d, %v", n, err)
	}
	if n := len(w.sim.Charges(stripeID)); n != 1 {
		t.Errorf("%d tries", n)
	}
	// A soft one of a wallet that is frozen meanwhile.
	other, _ := w.customer("other", "10", "pm_card_stripesim_insufficient_funds")
	w.rule(other, with(refill(0), "decline_retries", 1))
	w.spend("other", "6")
	w.eventually("paused", func() bool { _, reason := w.state(other); return reason == "payment_failed" })
	w.must("PATCH", "/v1/wallets/"+other, `{"status":"frozen"}`)
	w.advance(25 * time.Hour)
	w.eventually("nothing is left to sweep", func() bool {
		n, err := w.g.ledger.Sweep(t.Context())
		return err == nil && n == 0
	})
}

// A card that the network replaces arms the rule that it had paused; the same card told of again for another customer
// does nothing.
func TestRenewedCardClearsThePause(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	wallet, stripeID := w.customer("acme", "10", "")
	pm := w.card(stripeID, "pm_card_stripesim_expired_card")
	w.rule(wallet, refill(0))
	w.spend("acme", "6")
	w.eventually("paused", func() bool { _, reason := w.state(wallet); return reason == "payment_failed" })
	_, other := w.customer("other", "", "")
	w.did(w.sim.Operator().RenewCard(w.card(other, "pm_card_visa"), "pm_card_mastercard"))
	w.quietEvents()
	if _, reason := w.state(wallet); reason != "payment_failed" {
		t.Errorf("another customer's card cleared it: %s", reason)
	}
	w.did(w.sim.Operator().RenewCard(pm, "pm_card_visa"))
	w.paid("acme", stripeID, "24", 1)
}
