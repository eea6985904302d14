package ledger_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"lockstep/ledger"
	"lockstep/ledger/ledgertest"
)

// actor is one of many who do at random whatever can be done to the books. Every refusal is in order; any other error
// is not, and neither is a finding at the end, when every invariant of the books is checked.
type actor struct {
	t             testing.TB
	r             *rand.Rand
	on            []*ledger.Ledger
	clock         *stepClock
	customers     []string
	holds, debits []string
	grants        []string
}

func (a *actor) ledger() *ledger.Ledger { return a.on[a.r.IntN(len(a.on))] }
func (a *actor) customer() string       { return a.customers[a.r.IntN(len(a.customers))] }
func (a *actor) asset() string          { return []string{"usd", "usd", "tokens"}[a.r.IntN(3)] }

// amount is small, so that balances often run out; tokens are whole.
func (a *actor) amount(asset string) ledger.Decimal {
	if asset == "tokens" {
		return ledger.Decimal{Digits: 1 + a.r.Int64N(300)}
	}
	return ledger.Decimal{Digits: 1 + a.r.Int64N(4_000_000), Scale: 6}
}

func (a *actor) wallet() (ledger.Wallet, bool) {
	ref, err := a.ledger().Resolve(ctx, a.customer())
	if err != nil {
		a.t.Error(err)
	}
	wallets, err := a.ledger().Wallets(ctx, ref)
	if err != nil || len(wallets) == 0 {
		a.t.Error(err)
		return ledger.Wallet{}, false
	}
	return wallets[a.r.IntN(len(wallets))], true
}

// some is one of what the actor has made before, "" of nothing.
func (a *actor) some(of []string) string {
	if len(of) == 0 {
		return ""
	}
	return of[a.r.IntN(len(of))]
}

// keep adds what was made, unless err says that nothing was.
func keep(list *[]string, id string, err error) error {
	if err == nil {
		*list = append(*list, id)
	}
	return err
}

func (a *actor) once() ledger.Once {
	if a.r.IntN(3) > 0 {
		return ledger.Once{}
	}
	return ledger.Once{Key: fmt.Sprint("key-", a.r.IntN(400)), Request: 1 + a.r.Int64N(2)} // used twice, by this and that
}

// verbs are all that can be done to the books, each with how often.
var verbs = []struct {
	often int
	do    func(*actor) error
}{
	{40, func(a *actor) error {
		asset := a.asset()
		d, _, err := a.ledger().Debit(ctx, ledger.DebitInput{Customer: a.customer(), Asset: asset, Amount: a.amount(asset), Once: a.once()})
		return keep(&a.debits, d.ID, err)
	}},
	{10, func(a *actor) error {
		r, err := a.ledger().Rate(ctx, []string{"plain", "tiers"}[a.r.IntN(2)], ledger.Decimal{Digits: 1 + a.r.Int64N(3000)}, "")
		if err != nil {
			return err
		}
		d, _, err := a.ledger().Debit(ctx, ledger.DebitInput{Customer: a.customer(), Asset: r.Asset, Amount: r.Amount, Rated: &r})
		return keep(&a.debits, d.ID, err)
	}},
	{5, func(a *actor) error {
		ins := make([]ledger.DebitInput, 20)
		for i := range ins {
			ins[i] = ledger.DebitInput{Customer: a.customer(), Asset: "usd", Amount: a.amount("usd"), Once: a.once()}
		}
		for _, r := range a.ledger().Debits(ctx, ins) {
			if !refusal(r.Err) {
				return r.Err
			}
		}
		return nil
	}},
	{12, func(a *actor) error {
		asset := a.asset()
		in := ledger.GrantInput{Customer: a.customer(), Asset: asset, Amount: a.amount(asset), Priority: int16(a.r.IntN(100)),
			Kind: []string{"plan", "promotional", "adjustment", "purchased"}[a.r.IntN(4)]}
		if a.r.IntN(2) == 0 {
			at := a.clock.now().Add(time.Duration(a.r.IntN(40)) * time.Minute)
			in.ExpiresAt = &at
		}
		if a.r.IntN(4) == 0 {
			at := a.clock.now().Add(time.Duration(a.r.IntN(20)) * time.Minute)
			in.EffectiveAt = &at
		}
		g, _, err := a.ledger().Grant(ctx, in, a.once())
		return keep(&a.grants, g.ID, err)
	}},
	{2, func(a *actor) error {
		_, _, err := a.ledger().VoidGrant(ctx, a.some(a.grants), "", ledger.Once{})
		return err
	}},
	{8, func(a *actor) error {
		asset := a.asset()
		h, _, err := a.ledger().CreateHold(ctx, ledger.HoldInput{Customer: a.customer(), Asset: asset, Amount: a.amount(asset),
			ExpiresIn: time.Duration(1+a.r.IntN(30)) * time.Minute}, a.once())
		return keep(&a.holds, h.ID, err)
	}},
	{6, func(a *actor) error {
		amount := a.amount("tokens")
		_, err := a.ledger().CaptureHold(ctx, a.some(a.holds), ledger.CaptureInput{Amount: &amount, Final: a.r.IntN(2) == 0,
			OnExcess: []string{"", "wallet", "debt"}[a.r.IntN(3)]}, ledger.Once{})
		return err
	}},
	{3, func(a *actor) error {
		_, err := a.ledger().ReleaseHold(ctx, a.some(a.holds), ledger.Once{})
		return err
	}},
	{2, func(a *actor) error {
		_, err := a.ledger().ExtendHold(ctx, a.some(a.holds), 10*time.Minute, ledger.Once{})
		return err
	}},
	{5, func(a *actor) error {
		var part *ledger.Decimal
		if a.r.IntN(2) == 0 {
			part = &ledger.Decimal{Digits: 1 + a.r.Int64N(3)}
		}
		_, _, err := a.ledger().Reverse(ctx, a.some(a.debits), part, "", ledger.Once{})
		return err
	}},
	{3, func(a *actor) error {
		w, _ := a.wallet()
		overdraft := ledger.Decimal{Digits: a.r.Int64N(5)}
		status := []string{"active", "active", "active", "frozen"}[a.r.IntN(4)]
		_, err := a.ledger().ChangeWallet(ctx, w.ID, ledger.WalletChange{Overdraft: &overdraft, Status: &status})
		return err
	}},
	{2, func(a *actor) error {
		w, _ := a.wallet()
		_, err := a.ledger().ChangeWallet(ctx, w.ID, ledger.WalletChange{Alerts: &[]ledger.AlertInput{
			{Level: "info", BelowPercent: percent(int16(1 + a.r.IntN(90)))}, {Level: "critical", Below: &ledger.Decimal{Digits: a.r.Int64N(5)}},
			{Level: "warning", Above: &ledger.Decimal{Digits: 1 + a.r.Int64N(30)}}}})
		return err
	}},
	{2, func(a *actor) error {
		ref, err := a.ledger().Resolve(ctx, a.customer())
		if err != nil {
			return err
		}
		status := []string{"active", "active", "frozen"}[a.r.IntN(3)]
		_, err = a.ledger().ChangeCustomer(ctx, ref, ledger.CustomerChange{Status: &status})
		return err
	}},
	{1, func(a *actor) error {
		_, _, err := a.ledger().CreateWallet(ctx, ledger.WalletInput{Customer: a.customer(), Asset: a.asset(), Scope: []string{"all", "usage", "invoices"}[a.r.IntN(3)]}, ledger.Once{})
		return err
	}},
	{2, func(a *actor) error {
		w, _ := a.wallet()
		in := rule(a.t, 1000+a.r.Int64N(100_000))
		in.Settlement = []string{"on_payment", "immediate"}[a.r.IntN(2)]
		_, err := a.ledger().PutRule(ctx, w.ID, in)
		return err
	}},
	{2, func(a *actor) error {
		_, _, err := a.ledger().CreateTopup(ctx, ledger.TopupInput{Customer: a.customer(), Asset: a.asset(), Amount: ledger.Decimal{Digits: 1 + a.r.Int64N(500)},
			MinimumCharge: func(string) int64 { return 50 }}, a.once())
		return err
	}},
	{8, func(a *actor) error {
		ref, err := a.ledger().Resolve(ctx, a.customer())
		if err != nil {
			return err
		}
		tops, err := a.ledger().Topups(ctx, ref, "", 3)
		for _, top := range tops {
			status := []string{"succeeded", "succeeded", "failed", "processing", "action_required", "canceled"}[a.r.IntN(6)]
			if _, err := a.ledger().SettleTopup(ctx, ledger.Outcome{Topup: top.ID, Status: status, PaymentIntent: "pi_" + top.ID}); err != nil {
				return err
			}
		}
		return err
	}},
	{3, func(a *actor) error {
		w, _ := a.wallet()
		if a.r.IntN(2) == 0 {
			_, err := a.ledger().PauseRule(ctx, w.ID)
			return err
		}
		_, err := a.ledger().ResumeRule(ctx, w.ID)
		return err
	}},
	{4, (*actor).stranger},
	{1, func(a *actor) error {
		a.clock.step(20 * 24 * time.Hour)
		_, err := a.ledger().Archive(ctx, ledger.ArchiveInput{Before: a.clock.now().Add(-time.Duration(35*24+a.r.IntN(24)) * time.Hour)}, func(int64, int64) {})
		return err
	}},
	{4, func(a *actor) error {
		a.clock.step(time.Duration(a.r.IntN(120)) * time.Second)
		_, err := a.ledger().Sweep(ctx)
		return err
	}},
}

// stranger gives or takes some of a customer's balance in Stripe, pays one of a few invoices with it, gives back some of
// what it paid, or issues a credit note and voids one.
func (a *actor) stranger() error {
	l := a.ledger()
	ref, err := l.Resolve(ctx, a.customer())
	if err != nil {
		return err
	}
	m, found, err := l.MirrorOf(ctx, ref)
	if err != nil || !found {
		return err
	}
	s := ledger.StripeTransaction{ID: fmt.Sprint("cbtxn_", a.r.Uint64()), Amount: a.r.Int64N(2001) - 1000,
		Type: "adjustment", Reason: "adjustment", Created: a.clock.now()}
	switch about := fmt.Sprint(ref.ID, a.r.IntN(3)); a.r.IntN(4) {
	case 0:
		s.Type, s.Invoice, s.Amount = "applied_to_invoice", "in_"+about, max(s.Amount, -s.Amount)
	case 1:
		s.Type, s.Invoice, s.Amount = "unapplied_from_invoice", "in_"+about, min(s.Amount, -s.Amount)
	case 2:
		s.Type, s.CreditNote = "credit_note", "cn_"+about
	}
	_, err = l.Import(ctx, m.Mirror, []ledger.StripeTransaction{s})
	return err
}

// refusal reports whether err is none, or one that says what was wrong.
func refusal(err error) bool {
	if err == nil {
		return true
	}
	_, ok := err.(*ledger.Refusal)
	return ok
}

// Whatever is done to the books, in whatever order, from two processes at once, every invariant holds at the end.
func TestAllVerbsKeepTheBooks(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	clock := newStepClock()
	url := ledgertest.URL(t)
	on := []*ledger.Ledger{ledgertest.New(t, ledger.Options{URL: url, Now: clock.now}), ledgertest.New(t, ledger.Options{URL: url, Now: clock.now})}
	if _, err := on[0].PutAsset(ctx, ledger.AssetInput{Code: "tokens", Scale: 0, Price: decp(t, "0.003"), Currency: "usd"}); err != nil {
		t.Fatal(err)
	}
	putFeature(t, on[0], ledger.FeatureInput{Key: "plain", Asset: "tokens", UnitCost: decp(t, "0.01")})
	putFeature(t, on[0], ledger.FeatureInput{Key: "tiers", Asset: "usd", TierMode: "graduated", Tiers: []ledger.Tier{
		{UpTo: decp(t, "100"), UnitCost: dec(t, "0.001")}, {UnitCost: dec(t, "0.0000333")}}})
	customers := []string{"c0", "c1", "c2", "c3"}
	for i, id := range customers {
		newCustomer(t, on[0], id, "20")
		if _, _, err := on[0].CreateWallet(ctx, ledger.WalletInput{Customer: id, Asset: "tokens"}, ledger.Once{}); err != nil {
			t.Fatal(err)
		}
		if i%2 == 0 {
			if _, _, err := on[0].CreateWallet(ctx, ledger.WalletInput{Customer: id, Asset: "usd", Scope: "usage"}, ledger.Once{}); err != nil {
				t.Fatal(err)
			}
		}
	}
	var lots []int // verbs, each as often as it is to be done
	for i, v := range verbs {
		lots = append(lots, slices.Repeat([]int{i}, v.often)...)
	}
	var wg sync.WaitGroup
	for i := range uint64(12) {
		wg.Go(func() {
			a := &actor{t: t, r: rand.New(rand.NewPCG(seed, i)), on: on, clock: clock, customers: customers}
			for range 80 {
				v := lots[a.r.IntN(len(lots))]
				if err := verbs[v].do(a); !refusal(err) {
					t.Errorf("verb %d: %v", v, err)
				}
			}
		})
	}
	wg.Wait()
}
