package main

import (
	"context"
	"fmt"
	"net/http"
	"regexp"
	"testing"
	"time"

	"lockstep/ledger"
	"lockstep/ledger/ledgertest"
)

// Balances are written to Stripe largest and oldest drift first, and in the same order by a process that has just started
// and knows of it from the books alone. (handlers/flush_order_test.go has a hundred thousand of them.)
func TestBalancesAreFlushedLargestAndOldestFirst(t *testing.T) {
	for name, restarted := range map[string]bool{"as they move": false, "after a restart": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			at := time.Now()
			w := newWorld(t, func(o *worldOptions) {
				o.idle, o.noWebhook = true, true // what the workers do is done here, one after the other
				o.config = func(c *config) { c.StripeRate, c.now = 50, func() time.Time { return at } }
			})
			flushedInOrder(t, w, func(d time.Duration) { at = at.Add(d) }, restarted)
			ledgertest.Check(t, w.g.ledger)
			if err := w.sim.Check(); err != nil {
				t.Error(err)
			}
		})
	}
}

func flushedInOrder(t *testing.T, w *world, pass func(time.Duration), restarted bool) {
	const each = 12 // customers of a group
	groups := []struct {
		name, credit string
		wait         time.Duration // after the group before
	}{{"old", "0.50", 0}, {"small", "1.00", 4 * time.Minute}, {"huge", "20000", 0}, {"large", "250", 0}}
	want := []string{"huge", "old", "large", "small"} // 5 minutes ahead, 4 minutes of waiting, 3 and 1 ahead

	g, ctx, group := w.g, t.Context(), map[string]string{}
	for i := range each {
		for _, of := range groups {
			c, _, err := g.ledger.CreateCustomer(ctx, ledger.CustomerInput{ID: fmt.Sprint(of.name, i)}, ledger.Once{})
			if err == nil {
				c, err = g.linkCustomer(ctx, c)
			}
			if err != nil {
				t.Fatal(err)
			}
			group[c.StripeCustomer] = of.name
		}
	}
	for _, of := range groups {
		pass(of.wait)
		amount, _ := ledger.ParseDecimal(of.credit)
		for i := range each {
			if _, _, err := g.ledger.Grant(ctx, ledger.GrantInput{Customer: fmt.Sprint(of.name, i), Amount: amount, Kind: "purchased"}, ledger.Once{}); err != nil {
				t.Fatal(err)
			}
		}
		if restarted {
			g.ledger.TakeDirty()
		} else if err := g.mirrorDirty(ctx); err != nil {
			t.Fatal(err)
		}
	}
	pass(time.Minute)
	if restarted {
		if err := g.mirrorStale(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if s := g.flushes.State(); s.Waiting != each*len(groups) || s.Lag != 5*time.Minute {
		t.Errorf("before: %+v", s)
	}
	run, stop := context.WithCancel(ctx)
	flushed := 0
	g.flushes.Run(run, 1, g.laterTurn, func(ctx context.Context, ref ledger.Ref) ledger.FlushOutcome {
		if flushed++; flushed == len(group) {
			stop()
		}
		return g.flushOne(ctx, ref)
	})
	if s := g.flushes.State(); s.Waiting != 0 || s.Lag != 0 {
		t.Errorf("after: %+v", s)
	}
	post := regexp.MustCompile(`^/v1/customers/(\w+)/balance_transactions$`)
	n := 0
	for _, r := range w.sim.Requests() {
		if m := post.FindStringSubmatch(r.Path); m != nil && r.Method == http.MethodPost {
			if of := group[m[1]]; n >= len(group) || of != want[n/each] {
				t.Fatalf("flush %d is of the %s ones", n, of)
			}
			n++
		}
	}
	if n != len(group) {
		t.Errorf("%d flushes", n)
	}
}
