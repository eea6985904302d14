package ledger_test

import (
	"fmt"
	"math/big"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"lockstep/ledger"
	"lockstep/ledger/ledgertest"
)

func revenue(t testing.TB, l *ledger.Ledger, from, to time.Time) []ledger.RevenueRow {
	t.Helper()
	rows, err := l.Revenue(ctx, from, to)
	if err != nil {
		t.Fatal(err)
	}
	return rows
}

func rat(t testing.TB, s string) *big.Rat {
	t.Helper()
	r, ok := new(big.Rat).SetString(s)
	if !ok {
		t.Fatalf("%q is no number", s)
	}
	return r
}

// written is a report as text, a row a line.
func written(rows []ledger.RevenueRow) string {
	var b strings.Builder
	for _, r := range rows {
		fmt.Fprintln(&b, r.Period, r.Currency, r.Kind, r.Opening, r.Sold, r.Earned, r.Breakage, r.Refunded, r.Closing)
	}
	return b.String()
}

// A report of no time, or of too much, is refused.
func TestRevenueRefusals(t *testing.T) {
	t.Parallel()
	l := ledgertest.New(t, ledger.Options{})
	now := time.Now()
	for _, from := range []time.Time{now, now.Add(time.Hour), now.AddDate(-5, 0, -7)} {
		if _, err := l.Revenue(ctx, from, now); !ledger.IsCode(err, ledger.CodeInvalid) {
			t.Errorf("from %v: %v", from, err)
		}
	}
	if rows := revenue(t, l, now.AddDate(-1, 0, 0), now); len(rows) != 0 {
		t.Errorf("of no credit: %v", written(rows))
	}
}

// The story of two months, worked out by hand.
func TestRevenue(t *testing.T) {
	t.Parallel()
	clock := &stepClock{at: time.Date(2026, 1, 20, 0, 0, 0, 0, time.UTC)}
	l := ledgertest.New(t, ledger.Options{Now: clock.now})
	day := func(month time.Month, day int) time.Time { return time.Date(2026, month, day, 0, 0, 0, 0, time.UTC) }
	newCustomer(t, l, "acme", "")
	price := ledger.Decimal{Digits: 1, Scale: 2}
	for _, a := range []ledger.AssetInput{{Code: "credits", Scale: 1, Price: &price, Currency: "usd"}, {Code: "gold", Scale: 0}} {
		if _, err := l.PutAsset(ctx, a); err != nil {
			t.Fatal(err)
		}
	}
	give := func(asset, amount, kind string, cost *ledger.Money, expires *time.Time) ledger.Grant {
		t.Helper()
		return grant(t, l, ledger.GrantInput{Customer: "acme", Asset: asset, Amount: dec(t, amount), Kind: kind, Cost: cost, ExpiresAt: expires, Priority: 50})
	}
	spend := func(asset, amount string) ledger.Debit {
		t.Helper()
		d, _, err := l.Debit(ctx, ledger.DebitInput{Customer: "acme", Asset: asset, Amount: dec(t, amount)})
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	expires := day(2, 10)
	give("usd", "30", "purchased", nil, nil)
	give("usd", "10", "promotional", nil, &expires)
	give("gold", "1000", "purchased", nil, nil)                                         // no price, no cost: not in it
	give("credits", "300", "plan", &ledger.Money{Amount: 100, Currency: "usd"}, nil)    // a third of a cent each
	give("gold", "7", "adjustment", &ledger.Money{Amount: 100, Currency: "jpy"}, nil)   // 14.285714 yen each
	voided := give("credits", "50", "purchased", nil, nil)                              // a cent each
	spend("usd", "4")                                                                   // promotional
	spend("credits", "1")                                                               // plan
	spend("gold", "1")                                                                  // adjustment burns first
	clock.step(12 * 24 * time.Hour)                                                     // February 1
	d := spend("usd", "8")                                                              // 6 promotional, 2 purchased
	spend("credits", "1")                                                               // plan again
	clock.step(12 * 24 * time.Hour)                                                     // 13
	if _, _, err := l.Reverse(ctx, d.ID, decp(t, "5"), "", ledger.Once{}); err != nil { // 2 purchased, 3 promotional too late
		t.Fatal(err)
	}
	if _, _, err := l.VoidGrant(ctx, voided.ID, "", ledger.Once{}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := l.CreateHold(ctx, ledger.HoldInput{Customer: "acme", Asset: "usd", Amount: dec(t, "10"), ExpiresIn: time.Hour}, ledger.Once{}); err != nil { // deferred as before
		t.Fatal(err)
	}
	w := wallet(t, l, "acme")
	if _, err := l.ChangeWallet(ctx, w.ID, ledger.WalletChange{Overdraft: decp(t, "10")}); err != nil {
		t.Fatal(err)
	}
	spend("usd", "20")
	spend("usd", "3")                       // debt: nothing yet
	give("usd", "5", "purchased", nil, nil) // 3 earned in the instant
	const january = `2026-01 jpy adjustment 0 100 14.285715 0 0 85.714285
2026-01 usd plan 0 1 0.003334 0 0 0.996666
2026-01 usd promotional 0 10 4 0 0 6
2026-01 usd purchased 0 30.5 0 0 0 30.5
`
	const february = `2026-02 jpy adjustment 85.714285 0 0 0 0 85.714285
2026-02 usd plan 0.996666 0 0.003333 0 0 0.993333
2026-02 usd promotional 6 0 3 3 0 0
2026-02 usd purchased 30.5 5 23 0 0.5 12
`
	for _, tt := range []struct {
		from, to time.Time
		want     string
	}{
		{day(1, 1), day(3, 1), january + february},
		{day(1, 1), day(2, 1), january},
		{day(2, 1), day(12, 1), february},
		{day(1, 25), day(1, 26), "2026-01 jpy adjustment 85.714285 0 0 0 0 85.714285\n2026-01 usd plan 0.996666 0 0 0 0 0.996666\n" +
			"2026-01 usd promotional 6 0 0 0 0 6\n2026-01 usd purchased 30.5 0 0 0 0 30.5\n"},
		{day(1, 1), day(1, 20), ""},
		{day(12, 1), day(12, 2), ""},
	} {
		if got := written(revenue(t, l, tt.from, tt.to)); got != tt.want {
			t.Errorf("%v to %v:\n%swant\n%s", tt.from, tt.to, got, tt.want)
		}
	}
}

// deferred is the value of what is left of all grants, by currency and kind, from the grants alone; sold the value of
// those in force by the month in which their entries say that they began.
func deferredAndSold(t testing.TB, l *ledger.Ledger) (deferred, sold map[string]*big.Rat) {
	t.Helper()
	var grants []struct {
		Asset    string  `db:"asset"`
		Scale    int     `db:"scale"`
		Kind     string  `db:"kind"`
		Amount   int64   `db:"amount"`
		Left     int64   `db:"left"`
		Cost     *int64  `db:"cost_amount"`
		Currency *string `db:"cost_currency"`
		Began    *string `db:"began"`
	}
	if err := l.DB().Select(&grants, `select w.asset, w.scale, g.kind, g.amount, case when g.in_force then g.remaining else 0 end as left, g.cost_amount, g.cost_currency,
		(select to_char(e.created_at at time zone 'UTC', 'YYYY-MM') from entries e where e.bucket = g.bucket and e.refers_to = g.source_id and e.type = 'grant') as began
		from grants g join wallets w on w.bucket = g.bucket and w.id = g.wallet_id`); err != nil {
		t.Fatal(err)
	}
	deferred, sold = make(map[string]*big.Rat), make(map[string]*big.Rat)
	sum := func(m map[string]*big.Rat, key string, v *big.Rat) {
		v = new(big.Rat).Mul(v, big.NewRat(1_000_000, 1))
		v = new(big.Rat).SetFrac(new(big.Int).Quo(v.Num(), v.Denom()), big.NewInt(1_000_000))
		if m[key] == nil {
			m[key] = new(big.Rat)
		}
		m[key].Add(m[key], v)
	}
	for _, g := range grants {
		a, err := l.Asset(ctx, g.Asset)
		if err != nil {
			t.Fatal(err)
		}
		var value *big.Rat // of all of it
		currency := a.Currency
		switch {
		case g.Cost != nil:
			value, currency = big.NewRat(*g.Cost, map[string]int64{"usd": 100, "jpy": 1, "kwd": 1000}[*g.Currency]), *g.Currency
		case a.Price != nil:
			value = rat(t, ledger.FormatSteps(g.Amount, int16(g.Scale)))
			value.Mul(value, rat(t, a.Price.String()))
		default:
			continue
		}
		sum(deferred, currency+" "+g.Kind, new(big.Rat).Mul(value, big.NewRat(g.Left, g.Amount)))
		if g.Began != nil {
			sum(sold, *g.Began+" "+currency+" "+g.Kind, value)
		}
	}
	return deferred, sold
}

// Whatever happens, every row adds up, opens with what the one before closed with, and closes with what the grants then
// had left; sold is what began; and parts of the time add up to the whole.
func TestRevenueAddsUp(t *testing.T) {
	t.Parallel()
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			r := rand.New(rand.NewPCG(seed, 7))
			clock := &stepClock{at: time.Date(2026, 1, 25, 0, 0, 0, 0, time.UTC)}
			l := ledgertest.New(t, ledger.Options{Now: clock.now})
			start := clock.now()
			looks := randomTrade(t, l, r, clock, 160)
			end := clock.now().Add(time.Microsecond)
			whole := revenue(t, l, start, end)
			checkRows(t, whole)
			deferred, sold := deferredAndSold(t, l)
			checkClosing(t, whole, deferred)
			for _, row := range whole {
				want := sold[row.Period+" "+row.Currency+" "+row.Kind]
				if want == nil {
					want = new(big.Rat)
				}
				if rat(t, row.Sold.String()).Cmp(want) != 0 {
					t.Errorf("%s %s %s: sold %s, grants that began %s", row.Period, row.Currency, row.Kind, row.Sold, want.FloatString(6))
				}
			}
			for _, look := range looks {
				before, after := revenue(t, l, start, look.at), revenue(t, l, look.at, end)
				checkRows(t, before)
				checkRows(t, after)
				checkClosing(t, before, look.deferred)
				checkSplit(t, whole, before, after)
			}
		})
	}
}

type look struct {
	at       time.Time
	deferred map[string]*big.Rat
}

// randomTrade does this and that over some months, and looks at the grants now and then.
func randomTrade(t *testing.T, l *ledger.Ledger, r *rand.Rand, clock *stepClock, steps int) (looks []look) {
	third := ledger.Decimal{Digits: 3_333_333, Scale: 9}
	for _, a := range []ledger.AssetInput{{Code: "credits", Scale: 2, Price: &third, Currency: "usd"}, {Code: "gold", Scale: 0}} {
		if _, err := l.PutAsset(ctx, a); err != nil {
			t.Fatal(err)
		}
	}
	assets := []string{"usd", "credits", "gold"}
	newCustomer(t, l, "acme", "")
	putRule(t, l, "acme", atOnce(t, 0))
	for _, asset := range assets[1:] {
		if _, _, err := l.CreateWallet(ctx, ledger.WalletInput{Customer: "acme", Asset: asset, Overdraft: dec(t, "5")}, ledger.Once{}); err != nil {
			t.Fatal(err)
		}
	}
	var debits []string
	var grants []ledger.Grant
	var holds []ledger.Hold
	accept := func(err error) {
		t.Helper()
		if err != nil && !ledger.IsCode(err, ledger.CodeState) && !ledger.IsCode(err, ledger.CodeInsufficient) && !ledger.IsCode(err, ledger.CodeInvalid) {
			t.Fatal(err)
		}
	}
	for range steps {
		clock.step(time.Duration(r.Int64N(int64(40 * time.Hour))))
		asset := assets[r.IntN(3)]
		amount := dec(t, fmt.Sprint(1+r.IntN(7)))
		switch r.IntN(11) {
		case 10:
			for _, top := range topups(t, l, "acme")[:1] { // the same again, too, and what comes after it was given up
				status := []string{"succeeded", "failed", "failed", "canceled", "processing"}[r.IntN(5)]
				settle(t, l, ledger.Outcome{Topup: top.ID, Status: status, PaymentIntent: "pi_" + top.ID, Code: "account_closed", DeclineCode: "account_closed"})
			}
			if _, err := l.ResumeRule(ctx, wallet(t, l, "acme").ID); err != nil {
				t.Fatal(err)
			}
		case 0, 1, 2:
			in := ledger.GrantInput{Customer: "acme", Asset: asset, Amount: amount, Kind: []string{"purchased", "promotional", "plan", "adjustment"}[r.IntN(4)], Priority: 50}
			if r.IntN(3) == 0 {
				in.Cost = &ledger.Money{Amount: r.Int64N(1000), Currency: []string{"usd", "jpy", "kwd"}[r.IntN(3)]}
			}
			if r.IntN(2) == 0 {
				at := clock.now().Add(time.Duration(r.Int64N(int64(900*time.Hour))) + time.Second)
				in.ExpiresAt = &at
			}
			if r.IntN(4) == 0 {
				at := clock.now().Add(time.Duration(r.Int64N(int64(300 * time.Hour))))
				if in.EffectiveAt = &at; in.ExpiresAt != nil && !in.ExpiresAt.After(at) {
					in.ExpiresAt = nil
				}
			}
			grants = append(grants, grant(t, l, in))
		case 3, 4, 5:
			d, _, err := l.Debit(ctx, ledger.DebitInput{Customer: "acme", Asset: asset, Amount: amount})
			accept(err)
			if err == nil {
				debits = append(debits, d.ID)
			}
		case 6:
			if len(debits) > 0 {
				_, _, err := l.Reverse(ctx, debits[r.IntN(len(debits))], decp(t, "1"), "", ledger.Once{})
				accept(err)
			}
		case 7:
			if len(grants) > 0 {
				_, _, err := l.VoidGrant(ctx, grants[r.IntN(len(grants))].ID, "", ledger.Once{})
				accept(err)
			}
		case 8:
			h, _, err := l.CreateHold(ctx, ledger.HoldInput{Customer: "acme", Asset: asset, Amount: amount, ExpiresIn: 300 * time.Hour}, ledger.Once{})
			accept(err)
			if err == nil {
				holds = append(holds, h)
			}
		case 9:
			if len(holds) > 0 {
				_, err := l.CaptureHold(ctx, holds[r.IntN(len(holds))].ID, ledger.CaptureInput{Amount: decp(t, "1"), Final: r.IntN(2) == 0, OnExcess: "debt"}, ledger.Once{})
				accept(err)
			}
		}
		if r.IntN(25) == 0 {
			if _, err := l.Sweep(ctx); err != nil { // nothing is booked later for what is earlier
				t.Fatal(err)
			}
			clock.step(time.Microsecond)
			deferred, _ := deferredAndSold(t, l)
			looks = append(looks, look{clock.now(), deferred})
		}
	}
	return looks
}

func checkRows(t *testing.T, rows []ledger.RevenueRow) {
	t.Helper()
	last := make(map[string]string)
	for _, r := range rows {
		sum := rat(t, r.Opening.String())
		sum.Add(sum, rat(t, r.Sold.String())).Sub(sum, rat(t, r.Earned.String())).Sub(sum, rat(t, r.Breakage.String())).Sub(sum, rat(t, r.Refunded.String()))
		if sum.Cmp(rat(t, r.Closing.String())) != 0 {
			t.Errorf("does not add up: %s", written([]ledger.RevenueRow{r}))
		}
		key := r.Currency + " " + r.Kind
		if before, ok := last[key]; ok && before != r.Opening.String() {
			t.Errorf("%s %s opens with %s after %s", r.Period, key, r.Opening, before)
		}
		last[key] = r.Closing.String()
	}
}

func checkClosing(t *testing.T, rows []ledger.RevenueRow, want map[string]*big.Rat) {
	t.Helper()
	closing := make(map[string]string)
	for _, r := range rows {
		closing[r.Currency+" "+r.Kind] = r.Closing.String()
	}
	for key, value := range want {
		got := closing[key]
		if got == "" {
			got = "0"
		}
		if rat(t, got).Cmp(value) != 0 {
			t.Errorf("%s: closing %s, the grants say %s", key, got, value.FloatString(6))
		}
	}
}

// checkSplit compares a report with those of the two parts of its time. What came in and went out is the same to the
// last digit; between the ways out a grant may round otherwise.
func checkSplit(t *testing.T, whole, before, after []ledger.RevenueRow) {
	t.Helper()
	type sums struct{ sold, out, earned, breakage, refunded *big.Rat }
	add := func(rows ...[]ledger.RevenueRow) map[string]sums {
		m := make(map[string]sums)
		for _, rows := range rows {
			for _, r := range rows {
				key := r.Currency + " " + r.Kind
				s, ok := m[key]
				if !ok {
					s = sums{new(big.Rat), new(big.Rat), new(big.Rat), new(big.Rat), new(big.Rat)}
					m[key] = s
				}
				s.sold.Add(s.sold, rat(t, r.Sold.String()))
				for _, x := range []struct {
					to   *big.Rat
					from ledger.Micros
				}{{s.earned, r.Earned}, {s.breakage, r.Breakage}, {s.refunded, r.Refunded}} {
					x.to.Add(x.to, rat(t, x.from.String()))
					s.out.Add(s.out, rat(t, x.from.String()))
				}
			}
		}
		return m
	}
	one, two := add(whole), add(before, after)
	for key, a := range one {
		b, ok := two[key]
		if !ok {
			t.Errorf("%s is in no part", key)
			continue
		}
		if a.sold.Cmp(b.sold) != 0 || a.out.Cmp(b.out) != 0 {
			t.Errorf("%s: sold %s and out %s, in parts %s and %s", key, a.sold.FloatString(6), a.out.FloatString(6), b.sold.FloatString(6), b.out.FloatString(6))
		}
		for _, x := range [][2]*big.Rat{{a.earned, b.earned}, {a.breakage, b.breakage}, {a.refunded, b.refunded}} {
			if d := new(big.Rat).Sub(x[0], x[1]); d.Abs(d).Cmp(big.NewRat(100, 1_000_000)) > 0 {
				t.Errorf("%s: %s, in parts %s", key, x[0].FloatString(6), x[1].FloatString(6))
			}
		}
	}
}

// What a plan's renewal carries over is not sold again: its start takes back breakage.
func TestRevenueOfRollover(t *testing.T) {
	t.Parallel()
	clock := &stepClock{at: time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)}
	l, err := ledger.Open(ctx, ledger.Options{URL: ledgertest.URL(t), Now: clock.now}) // not New: these books are made up
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	newCustomer(t, l, "acme", "")
	expires := clock.now().AddDate(0, 1, 0)
	grant(t, l, ledger.GrantInput{Customer: "acme", Amount: dec(t, "10"), Kind: "plan", ExpiresAt: &expires})
	mustDebit(t, l, "acme", "3")
	clock.step(31 * 24 * time.Hour)
	if _, err := l.Sweep(ctx); err != nil { // 7 expire
		t.Fatal(err)
	}
	g := grant(t, l, ledger.GrantInput{Customer: "acme", Amount: dec(t, "7"), Kind: "plan"})
	for _, table := range []string{`update grants set source_type = 'stripe_invoice', source_id = 'in_1:il_1/rollover' where id = $1`,
		`update entries set refers_to = 'in_1:il_1/rollover' where refers_to = $1`} {
		if _, err := l.DB().Exec(table, g.ID); err != nil {
			t.Fatal(err)
		}
	}
	mustDebit(t, l, "acme", "2")
	const want = "2026-03 usd plan 0 10 3 0 0 7\n2026-04 usd plan 7 0 2 0 0 5\n"
	if got := written(revenue(t, l, time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC), clock.now().AddDate(1, 0, 0))); got != want {
		t.Errorf("\n%swant\n%s", got, want)
	}
}

// What Stripe sold is sold: every line of it at what it cost, also where debt took all of a line, and carried over once.
func TestRevenueOfSales(t *testing.T) {
	t.Parallel()
	clock := &stepClock{at: time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)}
	l := ledgertest.New(t, ledger.Options{Now: clock.now})
	c := newCustomer(t, l, "acme", "")
	limit := dec(t, "30")
	if _, err := l.ChangeWallet(ctx, wallet(t, l, "acme").ID, ledger.WalletChange{Overdraft: &limit}); err != nil {
		t.Fatal(err)
	}
	mustDebit(t, l, "acme", "25")
	start := clock.now()
	month := func(id string, n int, cost int64, terms ...string) ledger.SaleLine {
		ln := soldLine(id, start.AddDate(0, n, 0), start.AddDate(0, n+1, 0), append(terms, "credits", "10", "credits_rollover", "all")...)
		ln.Net, ln.SubscriptionItem = cost, "si_"+id[3:4]
		return ln
	}
	// Two lines that debt takes whole, one that it takes half of, one that is left; of other prices and kinds.
	if err := sell(t, l, c, "in_1", month("il_a1", 0, 700), month("il_b1", 0, 1100, "credits_kind", "promotional"), month("il_c1", 0, 900), month("il_d1", 0, 300)); err != nil {
		t.Fatal(err)
	}
	if err := sell(t, l, c, "in_10", soldLine("il_x", start, start, "credits", "5", "credits_expire", "1d")); err != nil { // not of in_1
		t.Fatal(err)
	}
	const march = "2026-03 usd plan 0 29 11.5 10 0 7.5\n2026-03 usd promotional 0 11 11 0 0 0\n"
	clock.step(2 * 24 * time.Hour)
	if _, err := l.Sweep(ctx); err != nil {
		t.Fatal(err)
	}
	if got := written(revenue(t, l, start, clock.now().Add(time.Hour))); got != march {
		t.Errorf("\n%swant\n%s", got, march)
	}
	clock.step(30 * 24 * time.Hour)
	if err := sell(t, l, c, "in_2", month("il_c2", 1, 900)); err != nil { // what was left of the third is there again
		t.Fatal(err)
	}
	got, want := written(revenue(t, l, start, clock.now().Add(time.Hour))), march+"2026-04 usd plan 7.5 9 0 3 0 13.5\n"
	if got != want {
		t.Errorf("\n%swant\n%s", got, want)
	}
	if got := written(revenue(t, l, start.AddDate(0, 1, 0), clock.now().Add(time.Hour))); got != want[len(march):] {
		t.Errorf("April alone\n%swant\n%s", got, want[len(march):])
	}
}
