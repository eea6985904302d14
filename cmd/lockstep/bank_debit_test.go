package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"lockstep/stripeutil/stripesim"
)

// tell has one of those who hear of an outcome be the only one that hears: the webhooks, the backfill, or a look.
func tell(by string) func(*worldOptions) {
	return func(o *worldOptions) {
		switch by {
		case "backfill":
			o.noWebhook, o.backfill = true, time.Second
		case "look":
			o.noWebhook = true
		}
	}
}

// waitsForBank is a customer whose rule has a bank account debited, which takes days.
func (w *world) waitsForBank(account, mode string) (wallet, stripeID string, top answer) {
	w.t.Helper()
	wallet, stripeID = w.customer("acme", "10", account)
	w.inStep("acme")
	if a := w.rule(wallet, with(with(refill(2000), "mode", mode), "decline_retries", 1)); a.str("state") != "armed" {
		w.t.Fatal(a)
	}
	w.spend("acme", "6")
	w.eventually("there is a top-up", func() bool {
		list := w.must("GET", "/v1/topups?customer=acme", nil).list()
		if len(list) == 1 {
			top = list[0]
		}
		return len(list) == 1
	})
	return wallet, stripeID, w.becomes(top, "processing")
}

// A saved bank account is debited by its own type, off-session; for the days that its bank takes nothing is credited and
// nothing charged beside it, and whoever hears of the end first books it, once.
func TestBankDebit(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"charge", "invoice"} {
		for account, end := range map[string]struct{ status, code, pause, clears string }{
			"pm_usBankAccount_success":            {"succeeded", "", "", ""},
			"pm_usBankAccount_insufficientFunds":  {"failed", "insufficient_funds", "payment_failed", "the card is tried again at "},
			"pm_usBankAccount_accountClosed":      {"failed", "account_closed", "payment_failed", "another default card"},
			"pm_usBankAccount_debitNotAuthorized": {"failed", "debit_not_authorized", "payment_failed", "another default card"},
		} {
			for _, by := range []string{"webhook", "backfill", "look"} {
				t.Run(mode+" "+account+" by "+by, func(t *testing.T) {
					t.Parallel()
					w := newWorld(t, tell(by))
					wallet, stripeID, top := w.waitsForBank(account, mode)
					w.quietEvents()
					if s, _ := w.state(wallet); s != "topping_up" || w.available("acme") != "4" || w.pending() != "20" {
						t.Errorf("while it is processing: %s, %v", s, w.must("GET", "/v1/customers/acme", nil))
					}
					if a := w.must("GET", "/v1/wallets/"+wallet, nil); a.str("auto_topup.spent.amount") != "2000" {
						t.Errorf("its part of the cap: %v", a)
					}
					w.refused("a second", w.call("POST", "/v1/topups", map[string]any{"customer": "acme", "amount": "1"}), refusal{409, "conflict", "topup_in_flight", ""})
					for _, r := range w.sim.Requests() {
						if r.Path == "/v1/payment_intents" && r.Method == "POST" && r.Form.Get("payment_method_types[0]") != "us_bank_account" {
							t.Errorf("charged as %v", r.Form)
						}
					}
					w.inStep("acme")
					w.advance(3 * 24 * time.Hour)
					now := w.becomes(top, end.status)
					w.quietEvents()
					s, reason := w.state(wallet)
					if end.status == "succeeded" {
						w.left("acme", "24")
						w.invoiced(stripeID, 2000)
						if s != "armed" {
							t.Errorf("the rule is %s", s)
						}
					} else {
						a := w.must("GET", "/v1/wallets/"+wallet, nil)
						if now.str("failure.code") != end.code || reason != end.pause || w.pending() != "0" || w.available("acme") != "4" ||
							!strings.HasPrefix(a.str("auto_topup.pause.clears_when"), end.clears) || a.str("auto_topup.spent.amount") != "0" {
							t.Errorf("failed: %v, %v", now, a)
						}
						w.invoiced(stripeID)
						w.card(stripeID, "pm_card_visa")
						if by == "webhook" { // customer.updated arms it
							w.left("acme", "24")
							w.invoiced(stripeID, 2000)
						}
					}
					w.noOpenInvoice(stripeID)
					w.inStep("acme")
				})
			}
		}
	}
}

// Every kind of bank debit is charged as what it is, in its own currency, by hand too: the answer is that it is on its way.
func TestBankDebitKinds(t *testing.T) {
	t.Parallel()
	for account, c := range map[string][2]string{"pm_sepaDebit_success": {"eur", "sepa_debit"}, "pm_acssDebit_success": {"cad", "acss_debit"},
		"pm_auBecsDebit_success": {"aud", "au_becs_debit"}, "pm_bacsDebit_success": {"gbp", "bacs_debit"}} {
		t.Run(c[1], func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, func(o *worldOptions) { o.config = func(cfg *config) { cfg.DefaultAsset = c[0] } })
			_, stripeID := w.customer("acme", "", "pm_card_visa")
			bank := w.did(w.sim.Operator().AttachCard(stripeID, account)) // asked for, and not the default
			for _, mode := range []string{"charge", "invoice"} {
				top := w.must("POST", "/v1/topups", map[string]any{"customer": "acme", "amount": "20", "mode": mode, "payment_method": bank})
				if top.str("status") != "processing" {
					t.Fatalf("%v", top)
				}
				w.advance(time.Hour)
				w.becomes(top, "succeeded")
			}
			w.left("acme", "40")
			for _, pi := range w.sim.PaymentIntents(stripeID) {
				if pi.PaymentMethod != bank {
					t.Errorf("charged to %+v", pi)
				}
			}
			w.invoiced(stripeID, 2000, 2000)
			w.inStep("acme")
		})
	}
}

// A bank debit whose answer is lost is the same one when it is asked for again, though the default has become a card.
func TestBankDebitAnswerLost(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"charge", "invoice"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, quiet)
			wallet, stripeID := w.customer("acme", "10", "pm_usBankAccount_success")
			w.inStep("acme")
			for _, path := range []string{"/v1/payment_intents", "/v1/invoices", "/v1/invoices/*"} {
				w.sim.Inject(stripesim.Fault{Method: "POST", Path: path, Kind: stripesim.DropAfter, Times: 5})
			}
			w.rule(wallet, with(refill(2000), "mode", mode))
			w.spend("acme", "6")
			w.eventually("it was called", func() bool {
				return len(w.sim.PaymentIntents(stripeID))+len(w.sim.Invoices(stripeID)) > 0
			})
			w.card(stripeID, "pm_card_visa")
			w.within(40*time.Second, "it is processing", func() bool {
				return w.must("GET", "/v1/topups?customer=acme", nil).str("data.0.status") == "processing"
			})
			w.advance(24 * time.Hour)
			w.left("acme", "24")
			if n := len(w.sim.PaymentIntents(stripeID)); n != 1 {
				t.Errorf("%d payments", n)
			}
			w.invoiced(stripeID, 2000)
			w.inStep("acme")
		})
	}
}

// A debit that a bank is working on can't be called off: the cancel waits, and what the bank says holds.
func TestBankDebitCanceled(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"charge", "invoice"} {
		for _, paid := range []bool{true, false} {
			t.Run(fmt.Sprint(mode, paid), func(t *testing.T) {
				t.Parallel()
				w := newWorld(t)
				wallet, stripeID, top := w.waitsForBank("pm_usBankAccount_processing", mode)
				w.must("POST", "/v1/wallets/"+wallet+"/auto_topup/pause", nil) // or a failed one is followed by another
				if a := w.must("POST", "/v1/topups/"+top.str("id")+"/cancel", nil); a.str("status") != "processing" {
					t.Errorf("canceled while it is processing: %v", a)
				}
				w.did(w.sim.Operator().FinishProcessing(w.sim.PaymentIntents(stripeID)[0].ID, paid))
				if paid {
					w.left("acme", "24")
				} else {
					w.eventually("it has ended", func() bool {
						s := w.must("GET", "/v1/topups/"+top.str("id"), nil).str("status")
						return s == "failed" || s == "canceled"
					})
					w.left("acme", "4")
				}
				w.quietEvents()
				w.noOpenInvoice(stripeID)
				w.inStep("acme")
			})
		}
	}
}

// Killed around the late failure of a debit, the service comes back to a top-up that has failed once, and an invoice that
// nobody can pay.
func TestKilledAroundBankDebit(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ mode, point string }{{"charge", "event.applied"}, {"invoice", "invoice.failed"}, {"invoice", "invoice.closed"},
		{"invoice", "topup.settling"}, {"invoice", "topup.settled"}} {
		t.Run(c.mode+" "+c.point, func(t *testing.T) {
			t.Parallel()
			w := detached(t)
			first := w.spawn("")
			w.base = first.base
			wallet, stripeID := w.customer("acme", "10", "pm_usBankAccount_processing")
			w.must("PUT", "/v1/wallets/"+wallet+"/auto_topup", with(with(refill(2000), "mode", c.mode), "decline_retries", 1))
			w.spend("acme", "6")
			w.within(30*time.Second, "it is processing", func() bool {
				return w.must("GET", "/v1/topups?customer=acme", nil).str("data.0.status") == "processing"
			})
			_ = first.cmd.Process.Kill()
			<-first.done
			w.did(w.sim.Operator().FinishProcessing(w.sim.PaymentIntents(stripeID)[0].ID, false))
			doomed := w.spawn(c.point)
			w.base = doomed.base
			doomed.killed(t)
			w.base = w.spawn("").base
			w.within(60*time.Second, "it has failed", func() bool {
				return w.must("GET", "/v1/topups?customer=acme", nil).str("data.0.status") == "failed"
			})
			if a := w.must("GET", "/v1/topups?customer=acme", nil); len(a.list()) != 1 || a.str("data.0.failure.code") != "generic_could_not_process" {
				t.Errorf("%v", a)
			}
			a := w.must("GET", "/v1/wallets/"+wallet, nil)
			if a.str("auto_topup.pause.reason") != "payment_failed" || !strings.HasPrefix(a.str("auto_topup.pause.clears_when"), "the card is tried again at ") {
				t.Errorf("the rule: %v", a)
			}
			w.left("acme", "4")
			w.noOpenInvoice(stripeID)
			w.inStepWithin(60*time.Second, "acme")
		})
	}
}
