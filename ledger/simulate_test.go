package ledger

import (
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var simulatedFrom = time.Date(2026, 1, 30, 12, 0, 0, 0, time.UTC)

// hours is a moment of a simulation.
func hours(n int) time.Time { return simulatedFrom.Add(time.Duration(n) * time.Hour) }

func usd(n int64) *int64 { return ptr(n * 1_000_000) }

func ptr[T any](v T) *T { return &v }

// outcome is what a simulation came to, in whole units.
func outcome(s *Simulation) string {
	u := func(n int64) string { return FormatSteps(n, s.Scale) }
	return fmt.Sprintf("%d events, %d bought %s for %d, cap %d, refused %d short %s, %s to %s, ending %s", s.Events, s.Topups, u(s.Bought), s.Charged,
		s.CapRefused, s.DebitsRefused, u(s.Short), u(s.Lowest), u(s.Highest), u(s.Ending))
}

// A simulation of a few movements comes to what one works out by hand.
func TestSimulation(t *testing.T) {
	use := func(h int, n int64) movement {
		return movement{hours(h), movedUsage, fmt.Sprint("deb_", h), n * 1_000_000}
	}
	back := func(h, of int, n int64) movement {
		return movement{hours(h), movedBack, fmt.Sprint("deb_", of), n * 1_000_000}
	}
	credit := func(h int, n int64) movement { return movement{hours(h), movedCredit, "", n * 1_000_000} }
	loss := func(h int, n int64) movement { return movement{hours(h), movedLoss, "", n * 1_000_000} }
	fixed := Rule{Enabled: true, Threshold: usd(5), Amount: usd(20)}
	capped := fixed
	capped.CapAmount, capped.CapCurrency, capped.CapInterval = ptr(int64(4000)), ptr("usd"), ptr("month")
	daily := capped
	daily.CapInterval = ptr("day")
	target := Rule{Enabled: true, Threshold: usd(5), Target: usd(50)}
	percent := Rule{Enabled: true, ThresholdPercent: ptr(int16(50)), Amount: usd(20)}
	runway := fixed
	runway.RunwayMinutes = ptr(int32(60))
	ten := []movement{use(1, 10), use(2, 10), use(3, 10), use(4, 10), use(5, 10)}
	// From noon on January 30; the month turns in hour 36, and the window ends an hour later.
	for name, tt := range map[string]struct {
		rule      Rule
		start     int64
		overdraft int64
		moves     []movement
		want      string
	}{
		"nothing happens":          {fixed, 10, 0, nil, "0 events, 0 bought 0 for 0, cap 0, refused 0 short 0, 10 to 10, ending 10"},
		"below from the start":     {fixed, 4, 0, nil, "0 events, 1 bought 20 for 2000, cap 0, refused 0 short 0, 4 to 24, ending 24"},
		"far below from the start": {fixed, -36, 0, nil, "0 events, 3 bought 60 for 6000, cap 0, refused 0 short 0, -36 to 24, ending 24"},
		"at the threshold":         {fixed, 15, 0, ten[:1], "1 events, 0 bought 0 for 0, cap 0, refused 0 short 0, 5 to 15, ending 5"},
		"refilled":                 {fixed, 10, 0, ten, "5 events, 3 bought 60 for 6000, cap 0, refused 0 short 0, 0 to 20, ending 20"},
		"no rule":                  {Rule{}, 25, 0, ten, "5 events, 0 bought 0 for 0, cap 0, refused 3 short 30, 5 to 25, ending 5"},
		"overdraft":                {Rule{}, 25, 10, ten, "5 events, 0 bought 0 for 0, cap 0, refused 2 short 20, -5 to 25, ending -5"},
		"the cap stops it":         {capped, 10, 0, ten, "5 events, 3 bought 60 for 6000, cap 1, refused 0 short 0, 0 to 20, ending 20"},
		"and then it is short":     {capped, 12, 0, append(slices.Clone(ten), use(6, 10), use(7, 1)), "7 events, 3 bought 60 for 6000, cap 1, refused 1 short 10, 1 to 22, ending 21"},
		"until the month turns":    {capped, 10, 0, append(slices.Clone(ten), use(36, 16)), "6 events, 4 bought 80 for 8000, cap 1, refused 0 short 0, 0 to 24, ending 24"},
		"a cap a day":              {daily, 10, 0, append(slices.Clone(ten), use(13, 18), use(14, 18)), "7 events, 5 bought 100 for 10000, cap 2, refused 0 short 0, 0 to 24, ending 24"},
		"to a target":              {target, 10, 0, ten[:1], "1 events, 1 bought 50 for 5000, cap 0, refused 0 short 0, 0 to 50, ending 50"},
		"percent of the refill":    {percent, 100, 0, []movement{use(1, 50), use(2, 1), use(3, 34), use(4, 1)}, "4 events, 2 bought 40 for 4000, cap 0, refused 0 short 0, 34 to 100, ending 54"},
		"percent of new credit":    {percent, 10, 0, []movement{credit(1, 90), use(2, 51)}, "2 events, 1 bought 20 for 2000, cap 0, refused 0 short 0, 10 to 100, ending 69"},
		"given back":               {fixed, 30, 0, []movement{use(1, 20), back(2, 1, 15)}, "2 events, 0 bought 0 for 0, cap 0, refused 0 short 0, 10 to 30, ending 25"},
		"refused and given back":   {Rule{}, 10, 0, []movement{use(1, 20), back(2, 1, 15)}, "2 events, 0 bought 0 for 0, cap 0, refused 1 short 20, 10 to 10, ending 10"},
		"no more lost than there":  {Rule{}, 10, 5, []movement{loss(1, 8), loss(2, 8), use(3, 3), loss(4, 1)}, "4 events, 0 bought 0 for 0, cap 0, refused 0 short 0, -3 to 10, ending -3"},
		"a spike":                  {runway, 40, 0, []movement{use(1, 3)}, "1 events, 0 bought 0 for 0, cap 0, refused 0 short 0, 37 to 40, ending 37"},
		"a spike that runs dry":    {runway, 40, 0, []movement{use(1, 4)}, "1 events, 1 bought 20 for 2000, cap 0, refused 0 short 0, 36 to 56, ending 56"},
		"the hour's average":       {runway, 40, 0, []movement{use(1, 3), {hours(1).Add(40 * time.Minute), movedUsage, "", 1_000_000}}, "2 events, 0 bought 0 for 0, cap 0, refused 0 short 0, 36 to 40, ending 36"},
	} {
		s := newSimulation(tt.rule, 6, price{1e12, "usd"}, tt.overdraft*1_000_000, tt.start*1_000_000, simulatedFrom)
		err := s.begin()
		for _, m := range tt.moves {
			if err == nil {
				err = s.move(m)
			}
		}
		if err == nil {
			err = s.end(hours(37))
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if got := outcome(s); got != tt.want {
			t.Errorf("%s:\n got %s\nwant %s", name, got, tt.want)
		}
	}
}

// A wallet that begins in the window with usage instead of credit loses that, and is refilled for the next.
func TestSimulationOfNewWallet(t *testing.T) {
	s := newSimulation(Rule{Enabled: true, Threshold: usd(5), Amount: usd(20)}, 6, price{1e12, "usd"}, 0, 0, simulatedFrom)
	for n := range 2 {
		if err := s.move(movement{hours(n), movedUsage, "", 1_000_000}); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := outcome(s), "2 events, 1 bought 20 for 2000, cap 0, refused 1 short 1, 0 to 20, ending 19"; got != want {
		t.Errorf("\n got %s\nwant %s", got, want)
	}
}

// A rule that would charge without end is refused instead of run.
func TestSimulationEnds(t *testing.T) {
	r := Rule{Enabled: true, Threshold: ptr(int64(math.MaxInt64)), Amount: ptr(int64(1))}
	if err := newSimulation(r, 6, price{1e12, "usd"}, 0, 0, simulatedFrom).begin(); !IsCode(err, CodeInvalid) {
		t.Errorf("%v", err)
	}
	s := newSimulation(Rule{}, 6, price{1e12, "usd"}, 0, 0, simulatedFrom)
	var err error
	for n := 0; err == nil && n < 3; n++ {
		err = s.move(movement{hours(n), movedUsage, "", math.MaxInt64})
	}
	if !IsCode(err, CodeInvalid) {
		t.Errorf("more is short than can be counted: %v", err)
	}
}

// Whatever happens, no period is charged more than its cap, and the balance is what came less what went.
func TestSimulationKeepsTheCap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := price{rapid.Int64Range(1, 3e12).Draw(t, "pico"), rapid.SampledFrom([]string{"usd", "jpy"}).Draw(t, "currency")}
		r := Rule{Enabled: true, CapInterval: ptr(rapid.SampledFrom([]string{"day", "week", "month"}).Draw(t, "interval"))}
		if rapid.Bool().Draw(t, "percent") {
			r.ThresholdPercent = ptr(rapid.Int16Range(1, 99).Draw(t, "of full"))
		} else {
			r.Threshold = ptr(rapid.Int64Range(0, 50).Draw(t, "threshold"))
		}
		if rapid.Bool().Draw(t, "to target") {
			r.Target = ptr(rapid.Int64Range(51, 500).Draw(t, "target"))
		} else {
			r.Amount = ptr(rapid.Int64Range(20, 200).Draw(t, "amount"))
		}
		if rapid.Bool().Draw(t, "ahead") {
			r.RunwayMinutes = ptr(rapid.Int32Range(1, 1000).Draw(t, "minutes"))
		}
		first, ok := p.charge(r.smallest(), 0)
		if !ok {
			t.Skip("more than can be charged")
		}
		r.CapAmount = ptr(first + rapid.Int64Range(0, 5*first).Draw(t, "more cap"))
		start, overdraft := rapid.Int64Range(-50, 300).Draw(t, "start"), rapid.Int64Range(0, 30).Draw(t, "overdraft")
		s := newSimulation(r, 0, p, overdraft, start, simulatedFrom)
		if err := s.begin(); err != nil {
			t.Fatal(err)
		}
		at, moved := simulatedFrom, 0
		for range rapid.IntRange(0, 60).Draw(t, "moves") {
			at = at.Add(time.Duration(rapid.Int64Range(0, int64(40*time.Hour)).Draw(t, "wait")))
			m := movement{at, movementKind(rapid.IntRange(0, 3).Draw(t, "kind")), fmt.Sprint(rapid.IntRange(0, 9).Draw(t, "debit")), rapid.Int64Range(1, 90).Draw(t, "amount")}
			before, bought, refused := s.Ending, s.Bought, s.DebitsRefused
			if err := s.move(m); err != nil {
				t.Fatal(err)
			}
			moved++
			change := s.Ending - before - (s.Bought - bought)
			if m.kind == movedUsage && s.DebitsRefused == refused && change != -m.amount || m.kind == movedCredit && change != m.amount {
				t.Fatalf("%+v changed the balance by %d", m, change)
			}
		}
		if err := s.end(at.Add(rapid.SampledFrom([]time.Duration{0, 900 * time.Hour}).Draw(t, "rest"))); err != nil {
			t.Fatal(err)
		}
		if s.Events != moved || s.Lowest > s.Ending || s.Highest < s.Ending || s.Lowest < min(start, -overdraft) {
			t.Fatalf("%d of %d events, %d to %d, ending %d", s.Events, moved, s.Lowest, s.Highest, s.Ending)
		}
		charged, sum := make(map[time.Time]int64), int64(0)
		for _, c := range s.Charges {
			from, _ := period(*r.CapInterval, c.At)
			if charged[from] += c.Charge; charged[from] > *r.CapAmount {
				t.Fatalf("%d charged in the period from %v, the cap is %d", charged[from], from, *r.CapAmount)
			}
			sum += c.Charge
		}
		if s.Topups == len(s.Charges) && sum != s.Charged || s.Topups < len(s.Charges) {
			t.Fatalf("%d top-ups of %d, %d shown of %d", s.Topups, s.Charged, len(s.Charges), sum)
		}
	})
}
