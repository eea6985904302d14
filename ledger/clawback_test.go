package ledger_test

import (
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"lockstep/ledger"
	"lockstep/ledger/ledgertest"
)

// topped is a customer who has bought 20.00 by a top-up, which pi_topped paid for.
func topped(t *testing.T, l *ledger.Ledger) (c ledger.Customer, topup string) {
	t.Helper()
	c = newCustomer(t, l, "acme", "")
	top, _, err := l.CreateTopup(ctx, ledger.TopupInput{Customer: "acme", Amount: dec(t, "20"), MinimumCharge: func(string) int64 { return 50 }}, ledger.Once{})
	if err != nil {
		t.Fatal(err)
	}
	return c, top.ID
}

func refund(id string, cents int64, status string) ledger.MoneyBack {
	return ledger.MoneyBack{ID: id, Kind: "refund", Amount: cents, Currency: "usd", Status: status, Stands: status == "succeeded", Final: status != "succeeded", Created: time.Unix(1, 0)}
}

// A refund that is heard of before its payment was booked has to be heard of again; one of a stranger's payment does nothing.
func TestClawbackBeforeItsPayment(t *testing.T) {
	t.Parallel()
	l := ledgertest.New(t, ledger.Options{})
	c, topup := topped(t, l)
	claw := func(topup string) error {
		return l.ClawBack(ctx, c.Ref, ledger.Purchase{PaymentIntent: "pi_topped", Topup: topup, Received: 2000}, []ledger.MoneyBack{refund("re_1", 500, "succeeded")})
	}
	if err := claw(topup); err == nil || !strings.Contains(err.Error(), "not booked yet") {
		t.Errorf("before the payment: %v", err)
	}
	settle(t, l, ledger.Outcome{Topup: topup, Status: "succeeded", PaymentIntent: "pi_topped", Received: 2000})
	if err := claw(""); err != nil || available(t, l, "acme") != "20" {
		t.Errorf("of another payment: %v, %s", err, available(t, l, "acme"))
	}
}

// Looks at a payment may overtake each other: what has ended is not begun again by an older look, and nothing is counted
// twice, from however many sides it comes.
func TestClawbackLooksOvertake(t *testing.T) {
	t.Parallel()
	url := ledgertest.URL(t)
	on := []*ledger.Ledger{ledgertest.New(t, ledger.Options{URL: url}), ledgertest.New(t, ledger.Options{URL: url})}
	c, topup := topped(t, on[0])
	settle(t, on[0], ledger.Outcome{Topup: topup, Status: "succeeded", PaymentIntent: "pi_topped", Received: 2000})
	putRule(t, on[0], "acme", rule(t, 100_000))
	dispute := func(status string) ledger.MoneyBack {
		open := status == "needs_response"
		return ledger.MoneyBack{ID: "dp_1", Kind: "dispute", Amount: 900, Currency: "usd", Status: status, Stands: open || status == "lost", Open: open,
			Final: !open, Created: time.Unix(2, 0)}
	}
	looks := [][]ledger.MoneyBack{
		{refund("re_1", 300, "succeeded")},
		{refund("re_1", 300, "succeeded"), dispute("needs_response")},
		{refund("re_2", 501, "succeeded"), refund("re_1", 300, "failed"), dispute("needs_response")},
		{refund("re_2", 501, "succeeded"), refund("re_1", 300, "failed"), dispute("won")},
	}
	var wg sync.WaitGroup
	for i := range uint64(8) {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(i, rand.Uint64()))
			for range 10 {
				if err := on[r.IntN(2)].ClawBack(ctx, c.Ref, ledger.Purchase{PaymentIntent: "pi_topped", Topup: topup, Received: 2000}, looks[r.IntN(len(looks))]); err != nil {
					t.Error(err)
				}
				if _, _, err := debit(t, on[r.IntN(2)], "acme", "0.01", ""); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if err := on[0].ClawBack(ctx, c.Ref, ledger.Purchase{PaymentIntent: "pi_topped", Topup: topup, Received: 2000}, looks[3]); err != nil {
		t.Fatal(err)
	}
	if got := available(t, on[1], "acme"); got != "14.19" { // 20 - 5.01 - 80 × 0.01
		t.Errorf("%s available", got)
	}
	if v := ruleOf(t, on[0], "acme"); v.State != "armed" {
		t.Errorf("the rule is %s", v.State)
	}
}
