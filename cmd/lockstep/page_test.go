package main

import (
	"fmt"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"lockstep/stripeutil/stripesim"
)

// needsCustomer is a customer whose rule's charge needs their authentication, with the page that was opened for it.
func (w *world) needsCustomer() (wallet, stripeID string, top answer) {
	w.t.Helper()
	wallet, stripeID = w.armed("acme", "pm_card_authenticationRequired", 2000)
	w.spend("acme", "6")
	return wallet, stripeID, w.paged("")
}

// paged waits for the page of the customer's newest top-up, another one than before.
func (w *world) paged(before string) (top answer) {
	w.t.Helper()
	w.within(30*time.Second, "there is a page", func() bool {
		list := w.must("GET", "/v1/topups?customer=acme", nil).list()
		if len(list) == 0 {
			return false
		}
		top = list[0]
		return top.str("status") == "action_required" && top.str("url") != "" && top.str("url") != before
	})
	return top
}

// oncePaid makes sure that a customer whose rule had 4.00 left has what was charged, and was charged n times.
func (w *world) oncePaid(stripeID string, n int) {
	w.t.Helper()
	w.left("acme", strconv.Itoa(4+20*n))
	w.quietEvents()
	w.left("acme", strconv.Itoa(4+20*n))
	amounts := make([]int64, n)
	for i := range amounts {
		amounts[i] = 2000
	}
	w.invoiced(stripeID, amounts...)
	w.inStep("acme")
}

func (w *world) openPages() (open int) {
	for _, r := range w.must("GET", "/v1/topups?customer=acme&limit=100", nil).list() {
		if id := r.str("stripe.checkout_session"); id != "" && w.sim.Session(id).Status == "open" {
			open++
		}
	}
	return open
}

// A charge that needs the customer is closed at Stripe, and a page opened on which they pay for the same top-up, which
// arms the rule; the event that tells of it carries the page.
func TestPageForAuthentication(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(o *worldOptions) {
		o.config = func(c *config) { c.PublicURL, c.OutboundPrivate = "https://billing.example.com/", true }
	})
	hook := w.receive("topup.action_required", "topup.succeeded", "topup.failed", "auto_topup.paused", "auto_topup.resumed")
	wallet, stripeID, top := w.needsCustomer()
	if top.str("stripe.payment_intent") != "" || top.str("attempt") != "2" || top.str("mode") != "charge" || w.pending() != "20" || top.str("failure.code") != "authentication_required" {
		t.Errorf("%v", top.m)
	}
	if pis := w.sim.PaymentIntents(stripeID); len(pis) != 1 || pis[0].Status != "canceled" {
		t.Errorf("payments beside the page: %+v", pis)
	}
	a := w.must("GET", "/v1/wallets/"+wallet, nil)
	if a.str("auto_topup.pause.reason") != "action_required" || a.str("auto_topup.pause.topup") != top.str("id") || a.str("auto_topup.spent.amount") != "2000" ||
		a.str("auto_topup.pause.clears_when") != "the customer finishes the payment at the url of the top-up, another default card is saved in Stripe, or the rule is resumed" {
		t.Errorf("the rule: %v", a)
	}
	for _, r := range w.sim.Requests() {
		if r.Method != "POST" || r.Path != "/v1/checkout/sessions" {
			continue
		}
		for name, want := range map[string]string{"metadata[lockstep_topup]": top.str("id"), "payment_intent_data[metadata][lockstep_topup]": top.str("id"), "customer": stripeID,
			"success_url": "https://billing.example.com/portal", "line_items[0][price_data][unit_amount]": "2000", "payment_intent_data[setup_future_usage]": "off_session"} {
			if got := r.Form.Get(name); got != want {
				t.Errorf("%s is %q, want %q", name, got, want)
			}
		}
		if r.IdempotencyKey != "topup:"+top.str("id")+":attempt:2" {
			t.Errorf("key %s", r.IdempotencyKey)
		}
	}
	w.refused("a second", w.call("POST", "/v1/topups", map[string]any{"customer": "acme", "amount": "1"}), refusal{409, "conflict", "topup_in_flight", ""})
	w.pay(top, "pm_card_visa")
	w.oncePaid(stripeID, 1)
	now := w.becomes(top, "succeeded")
	if now.str("url") != "" || now.at("failure") != nil || now.str("stripe.payment_intent") == "" {
		t.Errorf("paid: %v", now)
	}
	if s, reason := w.state(wallet); s != "armed" {
		t.Errorf("the rule is %s for %s", s, reason)
	}
	for _, e := range hook.until(4) {
		if e.eventType == "topup.action_required" && (e.event.str("data.url") != top.str("url") || e.event.str("data.id") != top.str("id")) {
			t.Errorf("told: %s", e.body)
		}
	}
	if got := hook.counts(); got["topup.action_required"] != 1 || got["topup.succeeded"] != 1 || got["topup.failed"] != 0 || got["auto_topup.paused"] != 1 || got["auto_topup.resumed"] != 1 {
		t.Errorf("told %v", got)
	}
}

// What comes instead of the customer closes the page before anything else is charged, also where they pay in that moment.
func TestPageIsClosed(t *testing.T) {
	t.Parallel()
	path := func(wallet string) string { return "/v1/wallets/" + wallet + "/auto_topup" }
	for name, c := range map[string]struct {
		act   func(w *world, wallet, stripeID string, top answer)
		after int // charges, where nobody paid on the page
	}{
		"another card": {func(w *world, _, stripeID string, _ answer) { w.card(stripeID, "pm_card_visa") }, 1},
		"another card of a rule": {func(w *world, wallet, stripeID string, _ answer) {
			w.rule(wallet, with(refill(2000), "payment_method", w.did(w.sim.Operator().AttachCard(stripeID, "pm_card_mastercard"))))
		}, 1},
		"resumed":  {func(w *world, wallet, _ string, _ answer) { w.must("POST", path(wallet)+"/resume", nil) }, 0},
		"canceled": {func(w *world, _, _ string, top answer) { w.call("POST", "/v1/topups/"+top.str("id")+"/cancel", nil) }, 0},
	} {
		for _, paid := range []string{"not paid", "paid before", "paid meanwhile"} {
			t.Run(name+", "+paid, func(t *testing.T) {
				t.Parallel()
				w := newWorld(t)
				wallet, stripeID, top := w.needsCustomer()
				session := top.str("stripe.checkout_session")
				var wg sync.WaitGroup
				switch paid {
				case "paid before": // and nobody has heard of it
					w.sim.InjectDelivery(stripesim.DeliveryFault{Type: "checkout.session.completed", Kind: stripesim.Hold, Times: -1})
					w.sim.InjectDelivery(stripesim.DeliveryFault{Type: "payment_intent.succeeded", Kind: stripesim.Hold, Times: -1})
					w.pay(top, "pm_card_mastercard")
				case "paid meanwhile":
					wg.Go(func() { _, _ = w.sim.Operator().CompleteCheckout(session, "pm_card_mastercard") })
				}
				c.act(w, wallet, stripeID, top)
				wg.Wait()
				onPage := w.sim.Session(session).Status == "complete"
				if onPage == (paid == "not paid") && paid != "paid meanwhile" {
					t.Fatalf("the page is %s", w.sim.Session(session).Status)
				}
				charges := c.after
				if onPage {
					charges = 1
				} else {
					w.becomes(top, "canceled")
				}
				w.left("acme", strconv.Itoa(4+20*charges))
				w.sim.ClearFaults()
				w.sim.Release()
				w.oncePaid(stripeID, charges)
				if s := w.sim.Session(session).Status; s == "open" || charges == 1 && w.openPages() > 0 {
					t.Errorf("the page is %s, %d are open", s, w.openPages())
				}
			})
		}
	}
}

// A page that the customer lets expire is followed by another, for a week; then the top-up has failed. An old page can't be
// paid any more, and its events, however late, change nothing.
func TestPageExpires(t *testing.T) {
	t.Parallel()
	for _, by := range []string{"webhook", "look"} {
		t.Run(by, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, tell(by))
			w.sim.InjectDelivery(stripesim.DeliveryFault{Kind: stripesim.Twin, Times: -1})
			wallet, stripeID, top := w.needsCustomer()
			url := top.str("url")
			for n := 3; n <= 4; n++ {
				w.advance(24*time.Hour + 2*time.Minute)
				next := w.paged(url)
				if next.str("id") != top.str("id") || next.str("attempt") != strconv.Itoa(n) || w.openPages() != 1 {
					t.Errorf("the next page: %v", next.m)
				}
				if _, err := w.sim.Operator().CompleteCheckout(top.str("stripe.checkout_session"), "pm_card_visa"); err == nil {
					t.Fatal("the old page took money")
				}
				top, url = next, next.str("url")
			}
			if by == "webhook" {
				w.pay(top, "pm_card_visa")
				w.oncePaid(stripeID, 1)
				return
			}
			for n := 5; n <= 8; n++ {
				w.advance(24*time.Hour + 2*time.Minute)
				url = w.paged(url).str("url")
			}
			w.advance(24*time.Hour + 2*time.Minute)
			if now := w.becomes(top, "failed"); now.str("failure.code") != "authentication_required" || now.str("url") != "" {
				t.Errorf("%v", now)
			}
			if _, reason := w.state(wallet); reason != "payment_failed" {
				t.Errorf("paused for %s", reason)
			}
			w.advance(48 * time.Hour)
			w.oncePaid(stripeID, 0)
			if n := w.openPages(); n != 0 {
				t.Errorf("%d pages are open", n)
			}
			w.card(stripeID, "pm_card_visa")
			w.must("POST", "/v1/wallets/"+wallet+"/auto_topup/resume", nil)
			w.oncePaid(stripeID, 1)
		})
	}
}

// A page of which nobody knows whether it was opened is looked for as the attempt that it is: the one before it, which has
// expired, is not taken for it.
func TestPageOfAnotherAttempt(t *testing.T) {
	t.Parallel()
	w := newWorld(t, quiet)
	_, _, top := w.needsCustomer()
	w.sim.Inject(stripesim.Fault{Method: "POST", Path: "/v1/checkout/sessions", Kind: stripesim.Error500Before})
	w.advance(24*time.Hour + 2*time.Minute)
	w.eventually("the next page is looked for twice", func() bool {
		asked, looked := false, 0
		for _, r := range w.sim.Requests() {
			asked = asked || r.Method == "POST" && r.IdempotencyKey == "topup:"+top.str("id")+":attempt:3"
			if asked && r.Method == "GET" && r.Path == "/v1/checkout/sessions" {
				looked++
			}
		}
		return looked >= 2
	})
	if now := w.must("GET", "/v1/topups/"+top.str("id"), nil); now.str("stripe.checkout_session") != "" || now.str("attempt") != "3" || now.str("url") != "" {
		t.Errorf("%v", now)
	}
}

// However the events come, and whatever happens to the calls, there is one page, one payment and one grant.
func TestPageUnderFaults(t *testing.T) {
	t.Parallel()
	const sessions, cancel = "/v1/checkout/sessions", "/v1/payment_intents/*"
	calls := map[string]stripesim.Fault{
		"the page's answer is lost":         {Path: sessions, Kind: stripesim.DropAfter, Times: 5},
		"the page's call is lost":           {Path: sessions, Kind: stripesim.DropBefore, Times: 5},
		"a saved 500 after the page":        {Path: sessions, Kind: stripesim.Error500After},
		"the cancel's answer is lost":       {Path: cancel, Kind: stripesim.DropAfter, Times: 5},
		"a saved 500 after the cancel":      {Path: cancel, Kind: stripesim.Error500After},
		"a saved 500 instead of the cancel": {Path: cancel, Kind: stripesim.Error500Before},
		"events before answers":             {Path: "*", Kind: stripesim.Slow, Delay: time.Millisecond, EventFirst: true, Times: -1},
	}
	for name, f := range calls {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			f.Method = "POST"
			w.sim.Inject(f)
			_, stripeID, top := w.needsCustomer()
			w.pay(top, "pm_card_visa")
			w.oncePaid(stripeID, 1)
			if n := w.openPages(); n != 0 {
				t.Errorf("%d pages are open", n)
			}
		})
	}
	for name, kind := range map[string]stripesim.FaultKind{"the answer is lost": stripesim.DropAfter, "the call is lost": stripesim.DropBefore,
		"a saved 500 after it": stripesim.Error500After, "a saved 500 instead of it": stripesim.Error500Before, "Stripe is away": stripesim.Unavailable} {
		t.Run("closing it, "+name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			_, stripeID, _ := w.needsCustomer()
			w.sim.Inject(stripesim.Fault{Method: "POST", Path: "/v1/checkout/sessions/*", Kind: kind})
			w.card(stripeID, "pm_card_visa")
			w.oncePaid(stripeID, 1)
			if n := w.openPages(); n != 0 {
				t.Errorf("%d pages are open", n)
			}
		})
	}
	for name, kind := range map[string]stripesim.DeliveryFaultKind{"lost": stripesim.Lose, "lost once": stripesim.LoseOnce, "doubled": stripesim.Duplicate,
		"twins": stripesim.Twin, "held": stripesim.Hold, "of another API": stripesim.WrongAPIVersion} {
		t.Run("events "+name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, func(o *worldOptions) { o.backfill = time.Second })
			w.sim.InjectDelivery(stripesim.DeliveryFault{Kind: kind, Times: -1})
			_, stripeID, top := w.needsCustomer()
			w.pay(top, "pm_card_visa")
			w.left("acme", "24")
			w.sim.ClearFaults()
			w.sim.Release()
			w.oncePaid(stripeID, 1)
		})
	}
}

// Somebody who pays the first payment in the moment that it is to be closed has paid: there is no page beside it.
func TestPaidInPlaceOfPage(t *testing.T) {
	t.Parallel()
	for card, status := range map[string]string{"pm_card_visa": "succeeded", "pm_usBankAccount_success": "processing"} {
		t.Run(status, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, quiet)
			w.sim.Inject(stripesim.Fault{Method: "POST", Path: "/v1/payment_intents/*", Kind: stripesim.DropBefore, Times: 7})
			_, stripeID := w.armed("acme", "pm_card_authenticationRequired", 2000)
			w.spend("acme", "6")
			w.eventually("it needs the customer", func() bool {
				return w.must("GET", "/v1/topups?customer=acme", nil).str("data.0.status") == "action_required"
			})
			pi := w.sim.PaymentIntents(stripeID)[0].ID
			w.did(w.sim.Operator().ConfirmPaymentIntent(pi, w.did(w.sim.Operator().AttachCard(stripeID, card))))
			w.within(30*time.Second, "it is "+status, func() bool {
				return w.must("GET", "/v1/topups?customer=acme", nil).str("data.0.status") == status
			})
			w.advance(time.Hour)
			w.oncePaid(stripeID, 1)
			if n := len(w.must("GET", "/v1/events?type=topup.succeeded", nil).list()); n != 1 {
				t.Errorf("told %d times that it was paid", n)
			}
			for _, r := range w.sim.Requests() {
				if r.Path == "/v1/checkout/sessions" && r.Method == "POST" {
					t.Error("a page was opened beside it")
				}
			}
		})
	}
}

// Where there is no page to come back to, in live mode without PUBLIC_URL, there is none; of a test key it is this machine.
func TestPageReturn(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		public, listen string
		live           bool
		want           string
	}{
		{"https://app.example.com", ":8080", true, "https://app.example.com"}, {"", ":8080", true, ""},
		{"", ":8080", false, "http://127.0.0.1:8080"}, {"", "0.0.0.0:80", false, "http://127.0.0.1:80"}, {"", "10.0.0.1:81", false, "http://10.0.0.1:81"},
	} {
		if got := pageReturn(config{PublicURL: c.public, ListenAddr: c.listen}, c.live); got != c.want {
			t.Errorf("%+v: %q", c, got)
		}
	}
}

// Killed at any arrow on the way to the page, and while it is closed, the service comes back to one page and one payment.
func TestKilledAroundPage(t *testing.T) {
	t.Parallel()
	opening := []string{"topup.settled", "page.canceled", "page.closed", "page.fixed", "page.called", "page.opened"}
	for _, point := range slices.Concat(opening, []string{"page.expired", "topup.settling", "topup.settled, closed", "page.expired, paid", "page.called, again"}) {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			w := detached(t)
			first := w.spawn("")
			w.base = first.base
			wallet, stripeID := w.customer("acme", "10", "pm_card_authenticationRequired")
			rule := fmt.Sprintf("/v1/wallets/%s/auto_topup", wallet)
			if slices.Contains(opening, point) {
				w.must("PUT", rule, refill(2000))
				_ = first.cmd.Process.Kill()
				<-first.done
				doomed := w.spawn(point)
				w.base = doomed.base
				go w.quietly("POST", "/v1/usage", `{"customer":"acme","amount":"6","idempotency_key":"one"}`)
				doomed.killed(t)
				w.base = w.spawn("").base
				w.must("POST", "/v1/usage", map[string]any{"customer": "acme", "amount": "6", "idempotency_key": "one"})
				w.pay(w.paged(""), "pm_card_visa")
			} else {
				w.must("PUT", rule, refill(2000))
				w.spend("acme", "6")
				top := w.paged("")
				_ = first.cmd.Process.Kill()
				<-first.done
				w.sim.Inject(stripesim.Fault{Method: "GET", Path: "/v1/events", Kind: stripesim.Unavailable, Times: 1000}) // they would tell
				var doomed *process
				switch point {
				case "page.expired, paid":
					doomed = w.spawn("page.expired")
					w.base = doomed.base
					w.pay(top, "pm_card_visa")
					go w.quietly("POST", rule+"/resume", "")
				case "topup.settled, closed":
					doomed = w.spawn("topup.settled")
					w.base = doomed.base
					go w.quietly("POST", rule+"/resume", "")
				case "page.called, again": // of the top-up that follows the one that was closed
					doomed = w.spawn("page.called")
					w.base = doomed.base
					go w.quietly("POST", rule+"/resume", "")
				default:
					doomed = w.spawn(point)
					w.base = doomed.base
					go w.quietly("POST", rule+"/resume", "")
				}
				doomed.killed(t)
				w.sim.ClearFaults()
				w.base = w.spawn("").base
				if point != "page.expired, paid" {
					w.pay(w.paged(top.str("url")), "pm_card_visa") // of the next top-up
				}
			}
			w.within(60*time.Second, "it is paid", func() bool { return w.available("acme") == "24" })
			w.paid("acme", stripeID, "24", 1)
			w.inStepWithin(60*time.Second, "acme")
			if n := w.openPages(); n != 0 {
				t.Errorf("%d pages are open", n)
			}
		})
	}
}
