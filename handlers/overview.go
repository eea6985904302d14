package handlers

import (
	"context"
	"math/big"
	"net/http"
	"sync"
	"time"

	"lockstep/handlers/pages"
	"lockstep/ledger"
)

// The overview's figures. No page waits for them: they are counted beside, at most once in a while in each process, and
// shown with their age.

// kept is something that takes long to find out, kept for a while.
type kept[T any] struct {
	mu    sync.Mutex
	value *T
	at    time.Time // when it was begun to be found out
	due   time.Time // when somebody who asks may have it found out again
	busy  bool
}

const (
	pulseEvery = 3 * time.Second
	sumsEvery  = 30 * time.Second
	sumsShare  = 20 // and no more than a twentieth of the time is spent on it
	sumsLimit  = 10 * time.Minute
)

// get is what is known; where that is old, it is found out anew meanwhile. nil: nothing is known yet.
func (k *kept[T]) get(every time.Duration, find func(context.Context) (T, error), failed func(error)) (*T, time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if now := time.Now(); !k.busy && !now.Before(k.due) {
		k.busy = true
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), sumsLimit)
			defer cancel()
			value, err := find(ctx)
			k.mu.Lock()
			defer k.mu.Unlock()
			k.busy, k.due = false, time.Now().Add(max(every, sumsShare*time.Since(now)))
			if err == nil {
				k.value, k.at = &value, now
			} else {
				failed(err)
			}
		}()
	}
	return k.value, k.at
}

// sums are the dear figures.
type sums struct {
	Credit  []creditRow
	Revenue []revenueRow
	Tops    []ledger.TopupCount
}

type creditRow struct {
	Asset, Total, Held, Debt, Pending string // decimals
	Wallets                           int64
}

// revenueRow is what this month has come to in one currency.
type revenueRow struct {
	Currency, Sold, Earned, Breakage, Refunded string
}

type overviewPage struct {
	Pulse   *ledger.Pulse
	Oldest  time.Duration // for how long the oldest event of Stripe's has waited
	Waiting int           // customers whose balance in Stripe is behind
	Lag     time.Duration // of the oldest of them
	Sums    *sums
	SumsAt  time.Time
	Month   time.Time
}

func (s *Server) overviewPage() overviewPage {
	failed := func(err error) {
		if !s.stopping.Load() {
			s.complain("overview failed", "error", err)
		}
	}
	now := s.Ledger.Now()
	p := overviewPage{Month: now}
	p.Pulse, _ = s.pulse.get(pulseEvery, s.Ledger.Pulse, failed)
	p.Sums, p.SumsAt = s.sums.get(sumsEvery, s.addUp, failed)
	if p.Pulse != nil && p.Pulse.EventsOldest != nil {
		p.Oldest = now.Sub(*p.Pulse.EventsOldest).Truncate(time.Second)
	}
	if s.Flushes != nil {
		q := s.Flushes.State()
		p.Waiting, p.Lag = q.Waiting, q.Lag.Truncate(time.Second)
	}
	return p
}

// showOverview is the console's first page. It shows what is known at that moment.
func (s *Server) showOverview(v *visit) error {
	return s.show(v, http.StatusOK, "overview", pages.Frame{Title: "Overview", Data: s.overviewPage()})
}

// showLive is the part of it that changes.
func (s *Server) showLive(v *visit) error {
	return s.show(v, http.StatusOK, "overview#live", pages.Frame{Data: s.overviewPage()})
}

// addUp finds out the dear figures.
func (s *Server) addUp(ctx context.Context) (all sums, err error) {
	credit, err := s.Ledger.Outstanding(ctx)
	if err != nil {
		return all, err
	}
	for _, c := range credit {
		all.Credit = append(all.Credit, creditRow{c.Asset, unsteps(c.Total, c.Scale), unsteps(c.Held, c.Scale), unsteps(c.Debt, c.Scale), unsteps(c.Pending, c.Scale), c.Wallets})
	}
	from, to := ledger.MonthOf(s.Ledger.Now())
	if all.Tops, err = s.Ledger.TopupsSince(ctx, from); err != nil {
		return all, err
	}
	rows, err := s.Ledger.Revenue(ctx, from, to)
	if err != nil {
		return all, err
	}
	all.Revenue = byCurrency(rows)
	return all, nil
}

// byCurrency adds up the kinds of a month's revenue.
func byCurrency(rows []ledger.RevenueRow) (all []revenueRow) {
	type figures [4]*big.Rat
	of, order := map[string]*figures{}, []string(nil)
	for _, r := range rows {
		if of[r.Currency] == nil {
			of[r.Currency] = &figures{new(big.Rat), new(big.Rat), new(big.Rat), new(big.Rat)}
			order = append(order, r.Currency)
		}
		for i, m := range []ledger.Micros{r.Sold, r.Earned, r.Breakage, r.Refunded} {
			if n, ok := new(big.Rat).SetString(m.String()); ok {
				of[r.Currency][i].Add(of[r.Currency][i], n)
			}
		}
	}
	for _, currency := range order {
		f := of[currency]
		all = append(all, revenueRow{currency, decimal(f[0]), decimal(f[1]), decimal(f[2]), decimal(f[3])})
	}
	return all
}

func decimal(r *big.Rat) string { return r.FloatString(6) }

// unsteps is a sum of steps, which may be more than 64 bits hold, as a decimal.
func unsteps(steps string, scale int16) string {
	n, ok := new(big.Int).SetString(steps, 10)
	if !ok {
		return steps
	}
	per := new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(scale)), nil)
	return new(big.Rat).SetFrac(n, per).FloatString(int(scale))
}
