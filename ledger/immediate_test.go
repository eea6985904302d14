package ledger_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"lockstep/ledger"
	"lockstep/ledger/ledgertest"
)

// atOnce is a rule whose credit does not wait for its payment.
func atOnce(t testing.TB, capCents int64) ledger.RuleInput {
	in := rule(t, capCents)
	in.Settlement = "immediate"
	return in
}

// given is a customer with 4.00 left, and with 20.00 that an immediate top-up gave and nobody has paid.
func given(t *testing.T, l *ledger.Ledger, in ledger.RuleInput) (ledger.Customer, ledger.Topup) {
	t.Helper()
	c := newCustomer(t, l, "acme", "10")
	putRule(t, l, "acme", in)
	if d, _, err := debit(t, l, "acme", "6", ""); err != nil || ledger.FormatSteps(d.Balance.Available, 6) != "4" {
		t.Fatalf("%+v, %v", d, err)
	}
	tops := topups(t, l, "acme")
	if len(tops) != 1 || tops[0].Status != "pending" || !tops[0].Immediate {
		t.Fatalf("%+v", tops)
	}
	return c, tops[0]
}

func grantOf(t testing.TB, l *ledger.Ledger, id string) ledger.Grant {
	t.Helper()
	g, err := l.GrantByID(ctx, id)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// shown is what Stripe should show for a customer, in cents.
func shown(t testing.TB, l *ledger.Ledger, ref ledger.Ref) int64 {
	t.Helper()
	v, _, err := l.MirrorOf(ctx, ref)
	if err != nil {
		t.Fatal(err)
	}
	return v.Want
}

// heard are the types of the events so far, oldest first.
func heard(t testing.TB, l *ledger.Ledger) string {
	t.Helper()
	var types string
	if err := l.DB().Get(&types, `select coalesce(string_agg(type, ' ' order by id), '') from events where type like 'topup.%' or type like 'auto_topup.%' or type = 'grant.confirmed'`); err != nil {
		t.Fatal(err)
	}
	return types
}

// The credit is there with the debit that asked for it, for usage alone; once it is paid for it is as any other.
func TestImmediateCreditIsPaid(t *testing.T) {
	t.Parallel()
	clock := newStepClock()
	l := ledgertest.New(t, ledger.Options{Now: clock.now})
	in := atOnce(t, 2000)
	days := int32(30)
	in.GrantExpiresInDays = &days
	c, top := given(t, l, in)
	w := wallet(t, l, "acme")
	g := grantOf(t, l, top.GrantID)
	if ledger.FormatSteps(w.Available(), 6) != "24" || w.Pending != 0 || g.Status != "confirmed" || g.Covers != "usage" || g.ExpiresAt != nil || shown(t, l, c.Ref) != 400 {
		t.Errorf("given: %+v, %+v, Stripe shows %d", w, g, shown(t, l, c.Ref))
	}
	if v := ruleOf(t, l, "acme"); v.State != "topping_up" || v.Spent != 2000 {
		t.Errorf("%s, spent %d", v.State, v.Spent)
	}
	if _, _, err := l.VoidGrant(ctx, g.ID, "", ledger.Once{}); !ledger.IsCode(err, ledger.CodeState) {
		t.Errorf("void before it is paid: %v", err)
	}
	if _, _, err := debit(t, l, "acme", "10", ""); err != nil { // 4 of what was there, 6 of what is not paid
		t.Fatal(err)
	}
	clock.step(time.Hour)
	settle(t, l, ledger.Outcome{Topup: top.ID, Status: "processing", PaymentIntent: "pi_1"})
	if got := available(t, l, "acme"); got != "14" {
		t.Errorf("processing: %s", got)
	}
	l.TakeDirty() // as a crash does
	flushed(t, l, c.Ref)
	for range 3 {
		settle(t, l, ledger.Outcome{Topup: top.ID, Status: "succeeded", PaymentIntent: "pi_1", Received: 2000})
	}
	l.TakeDirty()
	g = grantOf(t, l, top.GrantID)
	if g.Covers != "all" || g.ExpiresAt == nil || !g.ExpiresAt.Equal(clock.now().UTC().Truncate(time.Microsecond).AddDate(0, 0, 30)) && g.ExpiresAt.Before(clock.now().AddDate(0, 0, 29)) ||
		available(t, l, "acme") != "14" || shown(t, l, c.Ref) != 1400 {
		t.Errorf("paid: %+v, Stripe shows %d", g, shown(t, l, c.Ref))
	}
	if stale, err := l.StaleMirrors(ctx, ledger.Ref{Bucket: -1}, 10); err != nil || len(stale) != 1 {
		t.Errorf("nobody would find after a crash that Stripe has to show it: %v, %v", stale, err)
	}
	if got := heard(t, l); got != "grant.confirmed grant.confirmed topup.succeeded" {
		t.Errorf("told %s", got)
	}
	if v := ruleOf(t, l, "acme"); v.State != "armed" {
		t.Errorf("the rule is %s", v.State)
	}
}

// What was not paid is taken back, once, however many tell: of the grant, of what else there is, and then as debt; the rule
// is paused, and nothing is charged for the debt. A payment that comes after all gives it back.
func TestImmediateCreditIsTakenBack(t *testing.T) {
	t.Parallel()
	for status, reason := range map[string]string{"failed": "payment_failed", "canceled": "payment_canceled"} {
		t.Run(status, func(t *testing.T) {
			t.Parallel()
			l := ledgertest.New(t, ledger.Options{})
			c, top := given(t, l, atOnce(t, 0))
			if _, _, err := debit(t, l, "acme", "17", ""); err != nil { // 7 of the 20 are left
				t.Fatal(err)
			}
			if _, _, err := l.Grant(ctx, ledger.GrantInput{Customer: "acme", Amount: dec(t, "3"), Kind: "purchased"}, ledger.Once{}); err != nil {
				t.Fatal(err)
			}
			if status == "canceled" { // or the rule would ask for another
				if _, err := l.PauseRule(ctx, wallet(t, l, "acme").ID); err != nil {
					t.Fatal(err)
				}
			}
			o := ledger.Outcome{Topup: top.ID, Status: status, PaymentIntent: "pi_1", Code: "account_closed", DeclineCode: "account_closed"}
			for range 3 {
				settle(t, l, o)
			}
			w := wallet(t, l, "acme")
			if ledger.FormatSteps(w.Available(), 6) != "-10" || ledger.FormatSteps(w.Debt, 6) != "10" || w.Pending != 0 || shown(t, l, c.Ref) != 0 {
				t.Errorf("taken back: %+v", w)
			}
			var e ledger.Entry
			if err := l.DB().Get(&e, `select type, amount, reason, parts, refers_to from entries where wallet_id = $1 and seq = $2`, w.ID, w.Seq); err != nil {
				t.Fatal(err)
			}
			if e.Type != "adjustment" || e.Reason != reason || e.Amount != -20_000_000 || e.RefersTo != top.ID || len(e.Parts) != 3 || e.Parts[0].Grant != top.GrantID {
				t.Errorf("%+v", e)
			}
			if status == "failed" {
				if v := ruleOf(t, l, "acme"); v.State != "paused" || *v.PauseReason != "payment_failed" || v.Spent != 0 {
					t.Errorf("the rule: %+v", v)
				}
			}
			if n := len(topups(t, l, "acme")); n != 1 {
				t.Errorf("%d top-ups", n)
			}
			if _, _, err := l.Grant(ctx, ledger.GrantInput{Customer: "acme", Amount: dec(t, "6"), Kind: "promotional"}, ledger.Once{}); err != nil {
				t.Fatal(err)
			}
			if got := available(t, l, "acme"); got != "-4" {
				t.Errorf("with a gift: %s", got)
			}
			for range 2 {
				settle(t, l, ledger.Outcome{Topup: top.ID, Status: "succeeded", PaymentIntent: "pi_1", Received: 2000})
			}
			if got := available(t, l, "acme"); got != "16" {
				t.Errorf("the money came: %s", got)
			}
			if got := heard(t, l); strings.Count(got, "topup.succeeded") != 1 || strings.Count(got, "topup.failed") > 1 {
				t.Errorf("told %s", got)
			}
			if got := shown(t, l, c.Ref); got != 1600 { // the promotional credit went into the debt, and what it paid came back as bought
				t.Errorf("Stripe shows %d", got)
			}
		})
	}
}

// A rule whose last payment failed gives no credit before the next has come, whatever armed it again; then it does.
func TestImmediateWaitsAfterAFailure(t *testing.T) {
	t.Parallel()
	clock := newStepClock()
	l := ledgertest.New(t, ledger.Options{Now: clock.now})
	in := atOnce(t, 0)
	in.DeclineRetries = 1
	_, top := given(t, l, in)
	settle(t, l, ledger.Outcome{Topup: top.ID, Status: "failed", Code: "insufficient_funds", DeclineCode: "insufficient_funds", Soft: true})
	if got := available(t, l, "acme"); got != "4" {
		t.Fatalf("%s available", got)
	}
	clock.step(25 * time.Hour)
	if _, err := l.Sweep(ctx); err != nil {
		t.Fatal(err)
	}
	next := topups(t, l, "acme")[0]
	if next.ID == top.ID || next.Immediate || available(t, l, "acme") != "4" {
		t.Fatalf("tried again: %+v, %s", next, available(t, l, "acme"))
	}
	settle(t, l, ledger.Outcome{Topup: next.ID, Status: "failed", Code: "account_closed", DeclineCode: "account_closed"})
	if _, err := l.ResumeRule(ctx, wallet(t, l, "acme").ID); err != nil {
		t.Fatal(err)
	}
	next = topups(t, l, "acme")[0]
	if next.Immediate {
		t.Errorf("resumed: %+v", next)
	}
	settle(t, l, ledger.Outcome{Topup: next.ID, Status: "succeeded", Received: 2000})
	if got := available(t, l, "acme"); got != "24" {
		t.Errorf("%s available", got)
	}
	if _, _, err := debit(t, l, "acme", "20", ""); err != nil {
		t.Fatal(err)
	}
	if next = topups(t, l, "acme")[0]; !next.Immediate || available(t, l, "acme") != "24" {
		t.Errorf("after a payment: %+v, %s", next, available(t, l, "acme"))
	}
}

// A wallet whose credit may still be taken back can't be closed; a hold on such credit stays, and what it releases pays the debt.
func TestImmediateHeldAndClosed(t *testing.T) {
	t.Parallel()
	l := ledgertest.New(t, ledger.Options{})
	_, top := given(t, l, atOnce(t, 0))
	w := wallet(t, l, "acme")
	h, _, err := l.CreateHold(ctx, ledger.HoldInput{Customer: "acme", Amount: dec(t, "24"), ExpiresIn: time.Hour}, ledger.Once{})
	if err != nil {
		t.Fatal(err)
	}
	settle(t, l, ledger.Outcome{Topup: top.ID, Status: "failed", Code: "card_declined", DeclineCode: "lost_card"})
	if w = wallet(t, l, "acme"); ledger.FormatSteps(w.Available(), 6) != "-20" || ledger.FormatSteps(w.Held, 6) != "24" {
		t.Errorf("held: %+v", w)
	}
	if _, err := l.ReleaseHold(ctx, h.ID, ledger.Once{}); err != nil {
		t.Fatal(err)
	}
	if got := available(t, l, "acme"); got != "4" {
		t.Errorf("released: %s", got)
	}

	newCustomer(t, l, "other", "6")
	putRule(t, l, "other", atOnce(t, 0))
	if _, _, err := debit(t, l, "other", "6", ""); err != nil {
		t.Fatal(err)
	}
	if _, _, err := debit(t, l, "other", "20", ""); err != nil {
		t.Fatal(err)
	}
	closed := "closed"
	if _, err := l.ChangeWallet(ctx, wallet(t, l, "other").ID, ledger.WalletChange{Status: &closed}); !ledger.IsCode(err, ledger.CodeState) {
		t.Errorf("closed while its payment is under way: %v", err)
	}
}

// However many spend, and however payments end, from two processes: the cap holds, and what was not paid is not there.
func TestImmediateUnderLoad(t *testing.T) {
	t.Parallel()
	url := ledgertest.URL(t)
	on := []*ledger.Ledger{ledgertest.New(t, ledger.Options{URL: url}), ledgertest.New(t, ledger.Options{URL: url})}
	newCustomer(t, on[0], "acme", "10")
	putRule(t, on[0], "acme", atOnce(t, 10_000)) // five of 20.00
	var wg sync.WaitGroup
	var mu sync.Mutex
	booked, n := 0, 0
	said := make(map[string]string) // Stripe says one thing of a payment, whoever asks
	for caller := range 16 {
		wg.Go(func() {
			for i := range 40 {
				_, _, err := debit(t, on[(caller+i)%2], "acme", "1", fmt.Sprint(caller, "-", i))
				if err != nil && !ledger.IsCode(err, ledger.CodeInsufficient) {
					t.Error(err)
				}
				mu.Lock()
				if err == nil {
					booked++
				}
				n++
				end := n%5 == 0
				paid := n%3 != 0
				mu.Unlock()
				if !end {
					continue
				}
				for _, top := range topups(t, on[i%2], "acme") {
					if !top.InFlight() {
						continue
					}
					mu.Lock()
					status := said[top.ID]
					if status == "" {
						if status = "succeeded"; !paid {
							status = "failed"
						}
						said[top.ID] = status
					}
					mu.Unlock()
					for range 2 {
						settle(t, on[caller%2], ledger.Outcome{Topup: top.ID, Status: status, PaymentIntent: "pi_" + top.ID, Code: "card_declined", DeclineCode: "lost_card"})
					}
				}
				if _, err := on[0].ResumeRule(ctx, wallet(t, on[0], "acme").ID); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if _, err := on[0].PauseRule(ctx, wallet(t, on[0], "acme").ID); err != nil { // what is canceled now is not followed by another
		t.Fatal(err)
	}
	var paid, inFlight int
	for _, top := range topups(t, on[0], "acme") {
		if top.Status == "succeeded" {
			paid++
		}
		if top.InFlight() {
			inFlight++
			settle(t, on[0], ledger.Outcome{Topup: top.ID, Status: "canceled"})
		}
	}
	w := wallet(t, on[1], "acme")
	if want := int64(10 + 20*paid - booked); w.Total != want*1_000_000 {
		t.Errorf("total %d, want %d: %d top-ups paid, %d debits", w.Total, want, paid, booked)
	}
	if paid+inFlight > 5 || inFlight > 1 {
		t.Errorf("%d paid and %d in flight under a cap of five", paid, inFlight)
	}
}
