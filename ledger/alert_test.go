package ledger_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"lockstep/ledger"
	"lockstep/ledger/ledgertest"
)

func percent(n int16) *int16 { return &n }

func setAlerts(t testing.TB, l *ledger.Ledger, customer string, alerts ...ledger.AlertInput) ledger.Wallet {
	t.Helper()
	w, err := l.ChangeWallet(ctx, wallet(t, l, customer).ID, ledger.WalletChange{Alerts: &alerts})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// told are the alerts and depletions that were told, in order.
func told(t testing.TB, l *ledger.Ledger) string {
	t.Helper()
	var types []string
	if err := l.DB().Select(&types, `select case type when 'wallet.depleted' then 'depleted' else data::json->'Alert'->>'Level' end
		from events where type like 'wallet.%' order by id`); err != nil {
		t.Fatal(err)
	}
	return strings.Join(types, " ")
}

func TestAlertRefusals(t *testing.T) {
	t.Parallel()
	l := ledgertest.New(t, ledger.Options{})
	newCustomer(t, l, "acme", "10")
	w := wallet(t, l, "acme")
	for param, in := range map[string][]ledger.AlertInput{
		"alerts":                  make([]ledger.AlertInput, 11),
		"alerts[0].level":         {{Level: "loud", Below: decp(t, "5")}},
		"alerts[0]":               {{Level: "info"}},
		"alerts[1]":               {{Level: "info", Below: decp(t, "5")}, {Level: "info", Below: decp(t, "5"), Above: decp(t, "5")}},
		"alerts[0].below":         {{Level: "info", Below: decp(t, "0.0000001")}},
		"alerts[0].below_percent": {{Level: "info", BelowPercent: percent(0)}},
		"alerts[0].above_percent": {{Level: "info", AbovePercent: percent(1001)}},
	} {
		_, err := l.ChangeWallet(ctx, w.ID, ledger.WalletChange{Alerts: &in})
		if r, ok := err.(*ledger.Refusal); !ok || r.Param != param {
			t.Errorf("%s: %v", param, err)
		}
	}
	if alerts, err := l.AlertsOf(ctx, &w); err != nil || len(alerts) != 0 {
		t.Errorf("a refused change left %v %v", alerts, err)
	}
}

// An alert is told once when the balance crosses its threshold, and again only after it has been off.
func TestAlertsFireOncePerCrossing(t *testing.T) {
	t.Parallel()
	l := ledgertest.New(t, ledger.Options{})
	newCustomer(t, l, "acme", "100")
	w := setAlerts(t, l, "acme", ledger.AlertInput{Level: "info", BelowPercent: percent(50)}, ledger.AlertInput{Level: "warning", Below: decp(t, "20")},
		ledger.AlertInput{Level: "critical", Below: decp(t, "5")}, ledger.AlertInput{Level: "info", Above: decp(t, "150")})
	step := func(amount, state, all string) {
		t.Helper()
		if amount[0] == '+' {
			grant(t, l, ledger.GrantInput{Customer: "acme", Amount: dec(t, amount[1:])})
		} else if _, _, err := debit(t, l, "acme", amount, ""); err != nil {
			t.Fatal(err)
		}
		if w = wallet(t, l, "acme"); w.AlertState != state || told(t, l) != all {
			t.Errorf("after %s: %s with %s available, told %q; want %s, %q", amount, w.AlertState, available(t, l, "acme"), told(t, l), state, all)
		}
	}
	step("50", "ok", "")                  // 50 is not below 50
	step("0.000001", "info", "info")      //
	step("10", "info", "info")            // 39.999999
	step("20", "warning", "info warning") // 19.999999
	step("1", "warning", "info warning")
	step("14", "critical", "info warning critical") // 4.999999
	step("4.999999", "depleted", "info warning critical depleted")
	step("+10", "warning", "info warning critical depleted")                     // half of 10 is 5: only the warning is left, and is on already
	step("5.5", "critical", "info warning critical depleted info critical")      // 4.5
	step("+195.5", "info", "info warning critical depleted info critical info")  // 200: above 150
	step("50", "ok", "info warning critical depleted info critical info")        // 150 is not above 150
	step("+1", "info", "info warning critical depleted info critical info info") // 151
	step("1", "ok", "info warning critical depleted info critical info info")
	step("149.9", "critical", "info warning critical depleted info critical info info info warning critical") // one debit, three thresholds
}

// Whatever moves the balance is heard: an expiry, a hold, an overdraft, and alerts that are on when they are set are not told.
func TestAlertsOfEveryMovement(t *testing.T) {
	t.Parallel()
	clock := newStepClock()
	l := ledgertest.New(t, ledger.Options{Now: clock.now})
	newCustomer(t, l, "acme", "")
	setAlerts(t, l, "acme", ledger.AlertInput{Level: "warning", Below: decp(t, "5")})
	if told(t, l) != "" {
		t.Errorf("an empty wallet's new alert was told: %q", told(t, l))
	}
	ends := clock.now().Add(time.Hour)
	grant(t, l, ledger.GrantInput{Customer: "acme", Amount: dec(t, "10"), ExpiresAt: &ends})
	clock.step(time.Hour)
	if w := wallet(t, l, "acme"); w.AlertState != "depleted" || told(t, l) != "warning depleted" {
		t.Errorf("after the expiry: %s, told %q", w.AlertState, told(t, l))
	}
	// An overdraft that is taken away leaves nothing to spend, also where alerts are set with it.
	kept := []ledger.AlertInput{{Level: "warning", Below: decp(t, "5")}}
	for _, limit := range []string{"20", "0"} {
		if _, err := l.ChangeWallet(ctx, wallet(t, l, "acme").ID, ledger.WalletChange{Overdraft: decp(t, limit), Alerts: &kept}); err != nil {
			t.Fatal(err)
		}
	}
	if told(t, l) != "warning depleted depleted" {
		t.Errorf("after the overdraft was taken away: told %q", told(t, l))
	}
	w, err := l.ChangeWallet(ctx, wallet(t, l, "acme").ID, ledger.WalletChange{Overdraft: decp(t, "20")})
	if err != nil || w.AlertState != "warning" {
		t.Errorf("with an overdraft: %s %v", w.AlertState, err)
	}
	grant(t, l, ledger.GrantInput{Customer: "acme", Amount: dec(t, "10")})
	hold(t, l, "acme", "6", time.Minute)
	if w := wallet(t, l, "acme"); w.AlertState != "warning" || told(t, l) != "warning depleted depleted warning" {
		t.Errorf("after a hold: %s, told %q", w.AlertState, told(t, l))
	}
	clock.step(2 * time.Minute)
	if w := wallet(t, l, "acme"); w.AlertState != "ok" {
		t.Errorf("after the hold ran out: %s", w.AlertState)
	}
}

// However many debits cross at once, by however many processes, a crossing is told once.
func TestAlertsUnderConcurrency(t *testing.T) {
	t.Parallel()
	url := ledgertest.URL(t)
	l, peer := ledgertest.New(t, ledger.Options{URL: url}), ledgertest.New(t, ledger.Options{URL: url})
	newCustomer(t, l, "acme", "100")
	setAlerts(t, l, "acme", ledger.AlertInput{Level: "warning", Below: decp(t, "50")}, ledger.AlertInput{Level: "critical", Below: decp(t, "10")})
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			at := []*ledger.Ledger{l, peer}[i%2]
			for n := range 25 {
				if _, _, err := debit(t, at, "acme", "0.25", fmt.Sprint(i, "-", n)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if got := told(t, l); got != "warning critical depleted" {
		t.Errorf("400 debits of 0.25 from 100: told %q", got)
	}
}

// A frozen customer spends nothing from any wallet, one's own freeze outlives it, and credit may still come.
func TestFrozenCustomer(t *testing.T) {
	t.Parallel()
	l := ledgertest.New(t, ledger.Options{})
	c := newCustomer(t, l, "acme", "10")
	if _, _, err := l.CreateWallet(ctx, ledger.WalletInput{Customer: "acme", Asset: "usd", Scope: "usage"}, ledger.Once{}); err != nil {
		t.Fatal(err)
	}
	putRule(t, l, "acme", rule(t, 10_000))
	for i := range 3 { // from memory too
		if _, _, err := debit(t, l, "acme", "1", fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
	}
	set := func(status string) error {
		_, err := l.ChangeCustomer(ctx, c.Ref, ledger.CustomerChange{Status: &status})
		return err
	}
	if err := set("closed"); !ledger.IsCode(err, ledger.CodeInvalid) {
		t.Errorf("an unknown status: %v", err)
	}
	if err := set("frozen"); err != nil {
		t.Fatal(err)
	}
	if _, _, err := debit(t, l, "acme", "1", ""); !ledger.IsCode(err, ledger.CodeFrozen) {
		t.Errorf("a debit of a frozen customer: %v", err)
	}
	if _, _, err := l.CreateHold(ctx, ledger.HoldInput{Customer: "acme", Asset: "usd", Amount: dec(t, "1"), ExpiresIn: time.Minute}, ledger.Once{}); !ledger.IsCode(err, ledger.CodeFrozen) {
		t.Errorf("a hold of a frozen customer: %v", err)
	}
	if _, _, err := l.CreateTopup(ctx, ledger.TopupInput{Customer: "acme", Amount: dec(t, "10"), MinimumCharge: func(string) int64 { return 50 }}, ledger.Once{}); !ledger.IsCode(err, ledger.CodeFrozen) {
		t.Errorf("a top-up of a frozen customer: %v", err)
	}
	grant(t, l, ledger.GrantInput{Customer: "acme", Amount: dec(t, "5")})
	if _, _, err := l.CreateWallet(ctx, ledger.WalletInput{Customer: "acme", Asset: "eur", Scope: "usage"}, ledger.Once{}); !ledger.IsCode(err, ledger.CodeCurrency) {
		t.Errorf("another currency: %v", err)
	}
	if err := set("active"); err != nil {
		t.Fatal(err)
	}
	if _, _, err := debit(t, l, "acme", "12", ""); err != nil {
		t.Errorf("after the freeze: %v", err)
	}
}

// A random walk of balances: the state is always what the thresholds say, and each crossing was told.
func TestAlertsFollowARandomWalk(t *testing.T) {
	t.Parallel()
	l := ledgertest.New(t, ledger.Options{})
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 1))
	newCustomer(t, l, "acme", "50")
	setAlerts(t, l, "acme", ledger.AlertInput{Level: "critical", Below: decp(t, "10")}, ledger.AlertInput{Level: "info", Above: decp(t, "90")})
	have, crossings, low, high := int64(50), 0, false, false
	for range 300 {
		n := 1 + rng.Int64N(30)
		if rng.IntN(2) == 0 {
			grant(t, l, ledger.GrantInput{Customer: "acme", Amount: ledger.Decimal{Digits: n}})
			have += n
		} else if n <= have {
			if _, _, err := debit(t, l, "acme", fmt.Sprint(n), ""); err != nil {
				t.Fatal(err)
			}
			have -= n
		}
		if have < 10 && !low {
			crossings++
		}
		if have > 90 && !high {
			crossings++
		}
		low, high = have < 10, have > 90
		want := "ok"
		switch {
		case have == 0:
			want = "depleted"
		case low:
			want = "critical"
		case high:
			want = "info"
		}
		if w := wallet(t, l, "acme"); w.AlertState != want {
			t.Fatalf("seed %d: %d available: %s, want %s", seed, have, w.AlertState, want)
		}
	}
	if got := len(strings.Fields(strings.ReplaceAll(told(t, l), "depleted", ""))); got != crossings {
		t.Errorf("seed %d: %d told, %d crossings", seed, got, crossings)
	}
}
