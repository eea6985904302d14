package ledger

import (
	"math"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func planLine(metadata map[string]string) SaleLine {
	unit := int64(1000)
	return SaleLine{ID: "il_1", Price: "price_1", PriceMetadata: metadata, Currency: "usd", Quantity: 1, Amount: 1000, Net: 1000, UnitAmount: &unit,
		Subscription: "sub_1", SubscriptionItem: "si_1", Start: time.Unix(0, 0), End: time.Unix(30*86400, 0)}
}

// What a line is worth follows from its amount, its price and what kind of line it is.
func TestLineWorth(t *testing.T) {
	t.Parallel()
	change := func(f func(*SaleLine)) SaleLine {
		ln := planLine(map[string]string{"credits": "100"})
		f(&ln)
		return ln
	}
	money := func(n int64) *int64 { return &n }
	for name, c := range map[string]struct {
		ln    SaleLine
		steps int64
		why   string
	}{
		"a plan":              {change(func(*SaleLine) {}), 100, ""},
		"three of it":         {change(func(l *SaleLine) { l.Quantity, l.Amount = 3, 3000 }), 300, ""},
		"none of it":          {change(func(l *SaleLine) { l.Quantity, l.Amount = 0, 0 }), 0, "quantity"},
		"a trial":             {change(func(l *SaleLine) { l.Amount = 0 }), 0, "trial"},
		"a tiered trial":      {change(func(l *SaleLine) { l.Amount, l.UnitAmount = 0, nil }), 0, "trial"},
		"for nothing":         {change(func(l *SaleLine) { l.Amount, l.UnitAmount = 0, money(0) }), 100, ""},
		"all discounted":      {change(func(l *SaleLine) { l.Net, l.Discounted = 0, true }), 100, ""},
		"nothing, discounted": {change(func(l *SaleLine) { l.Amount, l.Discounted = 0, true }), 100, ""},
		"a pack for nothing":  {change(func(l *SaleLine) { l.Amount, l.SubscriptionItem = 0, "" }), 100, ""},
		"money back":          {change(func(l *SaleLine) { l.Amount = -1000 }), 0, "money back"},
		"a third is given":    {change(func(l *SaleLine) { l.Proration, l.Amount = true, 333 }), 33, ""},
		"a third is taken":    {change(func(l *SaleLine) { l.Proration, l.Amount = true, -339 }), -33, ""},
		"two, a third taken":  {change(func(l *SaleLine) { l.Proration, l.Amount, l.Quantity = true, -666, 2 }), -66, ""},
		"never more taken":    {change(func(l *SaleLine) { l.Proration, l.Amount = true, -5000 }), -100, ""},
		"a cent's share":      {change(func(l *SaleLine) { l.Proration, l.Amount = true, 9 }), 0, "smallest step"},
		"tiers":               {change(func(l *SaleLine) { l.Proration, l.Amount, l.UnitAmount = true, 333, nil }), 0, "unit amount"},
		"a share of nothing":  {change(func(l *SaleLine) { l.Proration, l.Amount, l.UnitAmount = true, 0, money(0) }), 0, "unit amount"},
	} {
		terms, sells, err := c.ln.terms("tokens")
		if err != nil || !sells {
			t.Fatalf("%s: %v", name, err)
		}
		steps, why, err := c.ln.worth(terms, 0)
		if err != nil || steps != c.steps || !strings.Contains(why, c.why) || (why == "") != (c.why == "") {
			t.Errorf("%s is worth %d (%s), %v; want %d", name, steps, why, err, c.steps)
		}
	}
	huge := planLine(map[string]string{"credits": "9223372036854775807"})
	terms, _, err := huge.terms("tokens")
	if err != nil {
		t.Fatal(err)
	}
	if steps, _, err := huge.worth(terms, 0); err != nil || steps != math.MaxInt64 {
		t.Errorf("all that fits: %d, %v", steps, err)
	}
	huge.Proration, huge.Amount = true, 2000
	if _, _, err := huge.worth(terms, 0); !IsCode(err, CodeInvalid) {
		t.Errorf("twice that: %v", err)
	}
}

// Every key has its default, its place of last resort, and its own refusal.
func TestLineTerms(t *testing.T) {
	t.Parallel()
	pack := func(price, product map[string]string) SaleLine {
		return SaleLine{ID: "li_1", Price: "price_1", PriceMetadata: price, ProductMetadata: product, Quantity: 1, Amount: 1, Net: 1, Currency: "usd"}
	}
	for name, ln := range map[string]SaleLine{
		"no metadata": pack(nil, nil), "other metadata": pack(map[string]string{"credits_kind": "plan"}, nil), "only space": pack(map[string]string{"credits": " "}, nil),
	} {
		if _, sells, err := ln.terms("usd"); sells || err != nil {
			t.Errorf("%s sells: %v", name, err)
		}
	}
	credit := map[string]string{"credits": "5"}
	for name, c := range map[string]struct {
		ln   SaleLine
		want saleTerms
	}{
		"a pack": {pack(credit, nil), saleTerms{asset: "usd", kind: "purchased", expires: "never", priority: 50, rollsOver: "none"}},
		"a plan": {planLine(credit), saleTerms{asset: "usd", kind: "plan", expires: "period_end", priority: 50, rollsOver: "none"}},
		"of the product": {pack(nil, map[string]string{"credits": " 5 ", "credits_asset": "tokens", "credits_kind": "promotional", "credits_expire": "36500d", "credits_priority": "0"}),
			saleTerms{asset: "tokens", kind: "promotional", expires: "days", days: 36500, rollsOver: "none"}},
		"the price first": {pack(map[string]string{"credits": "5", "credits_priority": "1"}, map[string]string{"credits": "x", "credits_priority": "x", "credits_kind": "adjustment"}),
			saleTerms{asset: "usd", kind: "adjustment", expires: "never", priority: 1, rollsOver: "none"}},
		"rolls over": {planLine(map[string]string{"credits": "5", "credits_rollover": "all", "credits_expire": "never"}), saleTerms{asset: "usd", kind: "plan", expires: "never", priority: 50, rollsOver: "all"}},
	} {
		c.want.credits = Decimal{Digits: 5}
		got, sells, err := c.ln.terms("usd")
		if err != nil || !sells || got != c.want {
			t.Errorf("%s: %+v, %v; want %+v", name, got, err, c.want)
		}
	}
	for key, values := range map[string][]string{
		"credits": {"0", "-1", "1e3", "+1", "1,000", "ten", "0.0000000000000000001"}, "credits_kind": {"gift", "Plan"}, "credits_priority": {"-1", "101", "1.5", "x"},
		"credits_expire": {"period_end", "0d", "36501d", "30", "d", "-1d", "1.5d", "99999999999999999999d"}, "credits_rollover": {"0", "-1", "some", "ALL"},
	} {
		for _, v := range values {
			_, _, err := func() (saleTerms, bool, error) {
				ln := pack(map[string]string{"credits": "5", key: v}, nil)
				return ln.terms("usd")
			}()
			if !IsCode(err, CodeInvalid) || !strings.Contains(err.Error(), "price price_1: "+key) {
				t.Errorf("%s=%s: %v", key, v, err)
			}
		}
	}
}

// What is carried over is never more than was left, nor than the terms allow, and costs no more than it did.
func TestCarry(t *testing.T) {
	t.Parallel()
	cents := func(n int64) *int64 { return &n }
	usd, eur := "usd", "eur"
	old := func(amount, left, most, cost int64) ended {
		return ended{Amount: amount, Left: left, Most: most, CostAmount: cents(cost), CostCurrency: &usd}
	}
	foreign := old(10, 5, math.MaxInt64, 100)
	foreign.CostCurrency = &eur
	free := old(10, 5, math.MaxInt64, 0)
	free.CostAmount, free.CostCurrency = nil, nil
	for name, c := range map[string]struct {
		of    []ended
		steps int64
		cost  int64 // -1: none
	}{
		"nothing":             {nil, 0, -1},
		"nothing left":        {[]ended{old(10, 0, 100, 1000)}, 0, -1},
		"all":                 {[]ended{old(10, 6, math.MaxInt64, 1000)}, 6, 600},
		"floored":             {[]ended{old(3, 1, math.MaxInt64, 100)}, 1, 33},
		"at most":             {[]ended{old(10, 6, 4, 1000)}, 4, 400},
		"at most of two":      {[]ended{old(10, 3, 4, 1000), old(10, 3, 4, 500)}, 4, 350},
		"two, all":            {[]ended{old(10, 3, math.MaxInt64, 1000), old(10, 3, math.MaxInt64, 500)}, 6, 450},
		"two with other most": {[]ended{old(10, 9, 2, 1000), old(10, 9, 5, 1000)}, 5, 500},
		"in two currencies":   {[]ended{old(10, 5, math.MaxInt64, 100), foreign}, 10, -1},
		"one that cost none":  {[]ended{old(10, 5, math.MaxInt64, 100), free}, 10, 50},
	} {
		steps, cost := carry(c.of)
		if steps != c.steps || (cost == nil) != (c.cost < 0) || cost != nil && cost.Amount != c.cost {
			t.Errorf("%s: %d for %v; want %d for %d", name, steps, cost, c.steps, c.cost)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		var left, most, cost int64
		of := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) ended {
			g := old(rapid.Int64Range(1, 1<<40).Draw(t, "amount"), 0, rapid.Int64Range(1, 1<<41).Draw(t, "most"), rapid.Int64Range(0, 1<<40).Draw(t, "cost"))
			g.Left = rapid.Int64Range(0, g.Amount).Draw(t, "left")
			return g
		}), 0, 5).Draw(t, "grants")
		for _, g := range of {
			left, most, cost = left+g.Left, max(most, g.Most), cost+*g.CostAmount
		}
		steps, paid := carry(of)
		if steps < 0 || steps > left || steps > most || paid != nil && paid.Amount > cost {
			t.Fatalf("%d carried over of %d, at most %d, for %v of %d", steps, left, most, paid, cost)
		}
	})
}

// When what a line gives ends follows from its payment.
func TestLineEnds(t *testing.T) {
	t.Parallel()
	ln := planLine(nil)
	day := func(n int) time.Time { return time.Unix(int64(n)*86400, 0) }
	for name, c := range map[string]struct {
		terms saleTerms
		paid  time.Time
		want  time.Time
	}{
		"never":                 {saleTerms{expires: "never"}, day(1), time.Time{}},
		"with its period":       {saleTerms{expires: "period_end"}, day(29), day(30)},
		"paid as it ends":       {saleTerms{expires: "period_end"}, day(30), day(60)},
		"paid after it ended":   {saleTerms{expires: "period_end"}, day(45), day(75)},
		"days from its payment": {saleTerms{expires: "days", days: 3}, day(45), day(48)},
	} {
		got := ln.ends(c.terms, c.paid)
		if (got == nil) != c.want.IsZero() || got != nil && !got.Equal(c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}
