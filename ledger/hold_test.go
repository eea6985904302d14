package ledger_test

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"lockstep/ledger"
	"lockstep/ledger/ledgertest"
)

// stepClock is a clock that a test moves.
type stepClock struct {
	mu sync.Mutex
	at time.Time
}

func newStepClock() *stepClock { return &stepClock{at: time.Now()} }

func (c *stepClock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *stepClock) step(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

func hold(t testing.TB, l *ledger.Ledger, customer, amount string, for_ time.Duration) ledger.Hold {
	t.Helper()
	h, _, err := l.CreateHold(ctx, ledger.HoldInput{Customer: customer, Amount: dec(t, amount), ExpiresIn: for_}, ledger.Once{})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// balance is available/held/total.
func balance(t testing.TB, l *ledger.Ledger, customer string) string {
	t.Helper()
	w := wallet(t, l, customer)
	b := w.Balance()
	return ledger.FormatSteps(b.Available, w.Scale) + "/" + ledger.FormatSteps(b.Held, w.Scale) + "/" + ledger.FormatSteps(b.Total, w.Scale)
}

func wantBalance(t testing.TB, l *ledger.Ledger, customer, want string) {
	t.Helper()
	if got := balance(t, l, customer); got != want {
		t.Errorf("balance %s, want %s", got, want)
	}
}

// A hold that can't be, and a capture of more than it has left, change nothing.
func TestHoldRefusals(t *testing.T) {
	t.Parallel()
	l := ledgertest.New(t, ledger.Options{})
	newCustomer(t, l, "acme", "10")
	for _, tt := range []struct {
		amount string
		want   ledger.Code
	}{{"10.01", ledger.CodeInsufficient}, {"0", ledger.CodeInvalid}, {"-1", ledger.CodeInvalid}, {"0.0000001", ledger.CodeInvalid}} {
		if _, _, err := l.CreateHold(ctx, ledger.HoldInput{Customer: "acme", Amount: dec(t, tt.amount), ExpiresIn: time.Hour}, ledger.Once{}); !ledger.IsCode(err, tt.want) {
			t.Errorf("hold of %s: %v", tt.amount, err)
		}
	}
	h := hold(t, l, "acme", "4", time.Hour)
	for name, in := range map[string]ledger.CaptureInput{
		"more than is left":                    {Amount: decp(t, "4.01")},
		"more than hold and wallet":            {Amount: decp(t, "10.01"), OnExcess: "wallet"},
		"nothing":                              {Amount: decp(t, "0")},
		"an excess to be taken from elsewhere": {Amount: decp(t, "5"), OnExcess: "elsewhere"},
	} {
		if _, err := l.CaptureHold(ctx, h.ID, in, ledger.Once{}); err == nil {
			t.Errorf("captured %s", name)
		}
	}
	if _, _, err := debit(t, l, "acme", "6.01", ""); !ledger.IsCode(err, ledger.CodeInsufficient) {
		t.Errorf("usage of held credit: %v", err)
	}
	wantBalance(t, l, "acme", "6/4/10")
	if _, err := l.ReleaseHold(ctx, h.ID, ledger.Once{}); err != nil {
		t.Fatal(err)
	}
	wantBalance(t, l, "acme", "10/0/10")
	if _, err := l.CaptureHold(ctx, h.ID, ledger.CaptureInput{}, ledger.Once{}); !ledger.IsCode(err, ledger.CodeState) {
		t.Errorf("capture of a released hold: %v", err)
	}
}

// Several partial captures and a final one take what they say, and the rest goes back to where it came from.
func TestHoldCaptures(t *testing.T) {
	t.Parallel()
	l := ledgertest.New(t, ledger.Options{})
	newCustomer(t, l, "acme", "")
	first := grant(t, l, ledger.GrantInput{Customer: "acme", Amount: dec(t, "3"), Priority: 1})
	second := grant(t, l, ledger.GrantInput{Customer: "acme", Amount: dec(t, "7"), Priority: 2})
	h := hold(t, l, "acme", "5", time.Hour)
	wantBalance(t, l, "acme", "5/5/10")
	for _, amount := range []string{"1", "2.5"} {
		if _, err := l.CaptureHold(ctx, h.ID, ledger.CaptureInput{Amount: decp(t, amount)}, ledger.Once{}); err != nil {
			t.Fatal(err)
		}
	}
	wantBalance(t, l, "acme", "5/1.5/6.5")
	h, err := l.CaptureHold(ctx, h.ID, ledger.CaptureInput{Amount: decp(t, "0.5"), Final: true}, ledger.Once{})
	if err != nil || h.Status != "captured" || h.Captured != 4_000_000 || h.Remaining() != 0 {
		t.Fatalf("%+v %v", h, err)
	}
	wantBalance(t, l, "acme", "6/0/6")
	for id, left := range map[string]int64{first.ID: 0, second.ID: 6_000_000} {
		if g, err := l.GrantByID(ctx, id); err != nil || g.Remaining != left || g.Held != 0 {
			t.Errorf("grant has %d, %d held, want %d: %v", g.Remaining, g.Held, left, err)
		}
	}
}

// What a capture asks for beyond the hold comes from the wallet, or then becomes debt, when its caller says so.
func TestHoldExcess(t *testing.T) {
	t.Parallel()
	l := ledgertest.New(t, ledger.Options{})
	newCustomer(t, l, "acme", "10")
	h := hold(t, l, "acme", "4", time.Hour)
	if _, err := l.CaptureHold(ctx, h.ID, ledger.CaptureInput{Amount: decp(t, "5"), OnExcess: "wallet"}, ledger.Once{}); err != nil {
		t.Fatal(err)
	}
	wantBalance(t, l, "acme", "5/0/5")
	h = hold(t, l, "acme", "1", time.Hour)
	if _, err := l.CaptureHold(ctx, h.ID, ledger.CaptureInput{Amount: decp(t, "7"), OnExcess: "debt"}, ledger.Once{}); err != nil {
		t.Fatal(err)
	}
	wantBalance(t, l, "acme", "-2/0/-2")
	grant(t, l, ledger.GrantInput{Customer: "acme", Amount: dec(t, "5")})
	wantBalance(t, l, "acme", "3/0/3")
}

// A hold pins its grants past their expiry; what it gives back of an expired grant is breakage. A hold whose
// time runs out ends in that instant, and one that was extended in time does not.
func TestHoldAndExpiry(t *testing.T) {
	t.Parallel()
	clock := newStepClock()
	l := ledgertest.New(t, ledger.Options{Now: clock.now})
	newCustomer(t, l, "acme", "")
	ends := clock.now().Add(time.Hour)
	grant(t, l, ledger.GrantInput{Customer: "acme", Amount: dec(t, "10"), ExpiresAt: &ends})
	h := hold(t, l, "acme", "6", 30*time.Minute)
	clock.step(29 * time.Minute)
	h, err := l.ExtendHold(ctx, h.ID, 2*time.Hour, ledger.Once{})
	if err != nil {
		t.Fatal(err)
	}
	clock.step(31 * time.Minute) // past the first end of the hold, and the grant's
	if _, err := l.Sweep(ctx); err != nil {
		t.Fatal(err)
	}
	wantBalance(t, l, "acme", "0/6/6")
	if _, err := l.CaptureHold(ctx, h.ID, ledger.CaptureInput{Amount: decp(t, "4")}, ledger.Once{}); err != nil {
		t.Fatal(err)
	}
	wantBalance(t, l, "acme", "0/2/2")
	clock.step(2 * time.Hour)
	if _, err := l.CaptureHold(ctx, h.ID, ledger.CaptureInput{}, ledger.Once{}); !ledger.IsCode(err, ledger.CodeState) {
		t.Errorf("capture after the end: %v", err)
	}
	if h, err = l.HoldByID(ctx, h.ID); err != nil || h.Status != "expired" {
		t.Errorf("%+v %v", h, err)
	}
	wantBalance(t, l, "acme", "0/0/0")
}

// A debit goes back to its grants, whole or in part, and never more than was taken, also from many sides.
func TestReversal(t *testing.T) {
	t.Parallel()
	l := ledgertest.New(t, ledger.Options{})
	newCustomer(t, l, "acme", "")
	first := grant(t, l, ledger.GrantInput{Customer: "acme", Amount: dec(t, "3"), Priority: 1})
	grant(t, l, ledger.GrantInput{Customer: "acme", Amount: dec(t, "7"), Priority: 2})
	d, _, err := debit(t, l, "acme", "5", "")
	if err != nil {
		t.Fatal(err)
	}
	for _, amount := range []string{"5.01", "0", "-1", "0.0000001"} {
		if _, _, err := l.Reverse(ctx, d.ID, decp(t, amount), "", ledger.Once{}); !ledger.IsCode(err, ledger.CodeInvalid) {
			t.Errorf("reversal of %s: %v", amount, err)
		}
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	reversed := 0
	for range 20 {
		wg.Go(func() {
			if _, _, err := l.Reverse(ctx, d.ID, decp(t, "0.7"), "", ledger.Once{}); err == nil {
				mu.Lock()
				reversed++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if reversed != 7 {
		t.Errorf("%d reversals of 0.7 on a debit of 5", reversed)
	}
	r, _, err := l.Reverse(ctx, d.ID, nil, "the rest", ledger.Once{})
	if err != nil || r.Amount != 100_000 || len(r.Parts) != 1 || r.Parts[0].Grant != first.ID {
		t.Errorf("%+v %v", r, err)
	}
	if _, _, err := l.Reverse(ctx, d.ID, nil, "", ledger.Once{}); !ledger.IsCode(err, ledger.CodeState) {
		t.Errorf("once more: %v", err)
	}
	wantBalance(t, l, "acme", "10/0/10")
}

// What goes back to a grant that has ended meanwhile is breakage; what was taken as debt lessens the debt, and
// comes back as credit where a grant has paid it down since.
func TestReversalTooLate(t *testing.T) {
	t.Parallel()
	clock := newStepClock()
	l := ledgertest.New(t, ledger.Options{Now: clock.now})
	c := newCustomer(t, l, "acme", "")
	if _, _, err := l.CreateWallet(ctx, ledger.WalletInput{Customer: "acme", Asset: "usd", Scope: "usage", Overdraft: dec(t, "10")}, ledger.Once{}); err != nil {
		t.Fatal(err)
	}
	if _, err := l.DB().Exec(`update wallets set status = 'closed', version = version + 1 where customer_id = $1 and scope = 'all'`, c.ID); err != nil {
		t.Fatal(err)
	}
	ends := clock.now().Add(time.Hour)
	grant(t, l, ledger.GrantInput{Customer: "acme", Amount: dec(t, "2"), ExpiresAt: &ends})
	d, _, err := debit(t, l, "acme", "8", "")
	if err != nil {
		t.Fatal(err)
	}
	total := func() string {
		var n int64
		if err := l.DB().Get(&n, `select total from wallets where customer_id = 'acme' and scope = 'usage'`); err != nil {
			t.Fatal(err)
		}
		return ledger.FormatSteps(n, 6)
	}
	grant(t, l, ledger.GrantInput{Customer: "acme", Amount: dec(t, "4")}) // of 6 owed, 2 are left
	clock.step(2 * time.Hour)
	if _, _, err := l.Reverse(ctx, d.ID, decp(t, "3"), "", ledger.Once{}); err != nil || total() != "1" {
		t.Fatalf("3 of the debt: %s, %v", total(), err)
	}
	if _, _, err := l.Reverse(ctx, d.ID, nil, "", ledger.Once{}); err != nil || total() != "4" {
		t.Errorf("the rest, 2 of it of an expired grant: %s, %v", total(), err)
	}
}

// Holds, captures, releases, reversals and usage at random, from many callers of two processes, leave right books.
func TestRandomHoldsKeepTheBooks(t *testing.T) {
	t.Parallel()
	url := ledgertest.URL(t)
	replicas := []*ledger.Ledger{ledgertest.New(t, ledger.Options{URL: url}), ledgertest.New(t, ledger.Options{URL: url})}
	for i := range 3 {
		newCustomer(t, replicas[0], fmt.Sprint("c", i), "30")
	}
	expected := func(err error) bool {
		return err == nil || ledger.IsCode(err, ledger.CodeInsufficient) || ledger.IsCode(err, ledger.CodeState) || ledger.IsCode(err, ledger.CodeInvalid)
	}
	var wg sync.WaitGroup
	for caller := range 16 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(caller), 7))
			var holds []string
			var debits []string
			for range 40 {
				l, id := replicas[r.IntN(2)], fmt.Sprint("c", r.IntN(3))
				amount := fmt.Sprintf("%d.%02d", r.IntN(3), 1+r.IntN(99))
				var err error
				switch verb := r.IntN(7); {
				case verb == 0:
					var h ledger.Hold
					if h, _, err = l.CreateHold(ctx, ledger.HoldInput{Customer: id, Amount: dec(t, amount), ExpiresIn: time.Duration(1+r.IntN(400)) * time.Millisecond}, ledger.Once{}); err == nil {
						holds = append(holds, h.ID)
					}
				case verb == 1 && len(holds) > 0:
					_, err = l.CaptureHold(ctx, holds[r.IntN(len(holds))], ledger.CaptureInput{Amount: decp(t, amount), Final: r.IntN(2) == 0,
						OnExcess: []string{"", "wallet", "debt"}[r.IntN(3)]}, ledger.Once{})
				case verb == 2 && len(holds) > 0:
					_, err = l.ReleaseHold(ctx, holds[r.IntN(len(holds))], ledger.Once{})
				case verb == 3 && len(holds) > 0:
					_, err = l.ExtendHold(ctx, holds[r.IntN(len(holds))], time.Second, ledger.Once{})
				case verb == 4 && len(debits) > 0:
					_, _, err = l.Reverse(ctx, debits[r.IntN(len(debits))], decp(t, amount), "", ledger.Once{})
				case verb == 5:
					_, _, err = l.Grant(ctx, ledger.GrantInput{Customer: id, Amount: dec(t, amount), Priority: int16(r.IntN(100))}, ledger.Once{})
				default:
					var d ledger.Debit
					if d, _, err = debit(t, l, id, amount, ""); err == nil {
						debits = append(debits, d.ID)
					}
				}
				if !expected(err) {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}
