package ledger_test

import (
	"testing"
	"time"

	"lockstep/ledger"
	"lockstep/ledger/ledgertest"
)

func simulate(t testing.TB, l *ledger.Ledger, customer string, in ledger.SimulationInput) *ledger.Simulation {
	t.Helper()
	s, err := l.Simulate(ctx, wallet(t, l, customer).ID, in)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// A replay of what was, through the rule that was, comes to what was: the same top-ups, the same balance. Without a
// rule the credit that it bought is missing.
func TestReplay(t *testing.T) {
	t.Parallel()
	clock := newStepClock()
	l := ledgertest.New(t, ledger.Options{Now: clock.now})
	newCustomer(t, l, "acme", "10")
	if _, err := l.Simulate(ctx, wallet(t, l, "acme").ID, ledger.SimulationInput{Days: 30}); !ledger.IsCode(err, ledger.CodeMissing) {
		t.Errorf("no rule: %v", err)
	}
	putRule(t, l, "acme", rule(t, 20_000))
	for _, days := range []int{0, -1, 401} {
		if _, err := l.Simulate(ctx, wallet(t, l, "acme").ID, ledger.SimulationInput{Days: days}); !ledger.IsCode(err, ledger.CodeInvalid) {
			t.Errorf("%d days: %v", days, err)
		}
	}
	for n := range 40 {
		d := mustDebit(t, l, "acme", "3")
		clock.step(time.Hour)
		if tops := topups(t, l, "acme"); len(tops) > 0 && tops[0].InFlight() {
			succeed(t, l, "acme")
		}
		switch n {
		case 5:
			if _, _, err := l.Reverse(ctx, d.ID, decp(t, "1"), "", ledger.Once{}); err != nil {
				t.Fatal(err)
			}
		case 10:
			g := grant(t, l, ledger.GrantInput{Customer: "acme", Amount: dec(t, "4"), Kind: "promotional", Priority: 90})
			if _, _, err := l.VoidGrant(ctx, g.ID, "", ledger.Once{}); err != nil {
				t.Fatal(err)
			}
		case 20:
			h := hold(t, l, "acme", "2", time.Hour)
			if _, err := l.CaptureHold(ctx, h.ID, ledger.CaptureInput{Amount: decp(t, "1.5"), Final: true}, ledger.Once{}); err != nil {
				t.Fatal(err)
			}
			clock.step(24 * time.Hour)
		}
	}
	w := wallet(t, l, "acme")
	tops := topups(t, l, "acme")
	whole := simulate(t, l, "acme", ledger.SimulationInput{Days: 30})
	if whole.Topups != len(tops) || whole.Ending != w.Total || whole.DebitsRefused != 0 || whole.Events != 40+1+2+1+1 || !whole.From.Equal(w.CreatedAt) {
		t.Errorf("%d top-ups and %d left after %d events (%d refused) from %v; really %d and %d",
			whole.Topups, whole.Ending, whole.Events, whole.DebitsRefused, whole.From, len(tops), w.Total)
	}
	day := simulate(t, l, "acme", ledger.SimulationInput{Days: 1})
	if day.Ending != w.Total || day.Topups == 0 || day.Topups >= whole.Topups || day.Events != 19 {
		t.Errorf("the last day: %d top-ups and %d left after %d events", day.Topups, day.Ending, day.Events)
	}
	off := rule(t, 0)
	off.Enabled = false
	none := simulate(t, l, "acme", ledger.SimulationInput{Days: 30, Rule: &off})
	if none.Topups != 0 || none.DebitsRefused == 0 || none.Ending >= 3_000_000 || none.DepletedAt == nil {
		t.Errorf("without a rule: %d top-ups, %d refused, %d left", none.Topups, none.DebitsRefused, none.Ending)
	}
	in := rule(t, 2000)
	capped := simulate(t, l, "acme", ledger.SimulationInput{Days: 30, Rule: &in})
	if capped.Topups > 2 || capped.CapRefused == 0 || capped.CapRefusedAt == nil || capped.Charged > 4000 {
		t.Errorf("capped: %d top-ups of %d, cap %d", capped.Topups, capped.Charged, capped.CapRefused)
	}
	if after := wallet(t, l, "acme"); after.Seq != w.Seq || after.Version != w.Version || len(topups(t, l, "acme")) != len(tops) {
		t.Error("a simulation booked something")
	}
}
