package main

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"lockstep/handlers"
	"lockstep/stripeutil/stripesim"
)

// At night one of the processes walks, once, and tells of each difference once until it is gone.
func TestNightlyReconciliation(t *testing.T) {
	t.Parallel()
	var log lockedBuffer
	at := time.Now().UTC().Add(-time.Hour).Format("15:04")
	w := newWorld(t, func(o *worldOptions) {
		o.log, o.noWebhook = io.MultiWriter(&log), true
		o.config = func(c *config) { c.ReconcileAt = at }
	})
	peer := w.peer()
	_, stripeID := w.customer("acme", "10", "")
	w.customer("other", "10", "")
	w.inStep("acme")
	w.inStep("other")
	walks := func() int { return strings.Count(log.String(), "compared all customers with Stripe") }
	night := func() {
		t.Helper()
		var wg sync.WaitGroup
		for _, g := range []*gateway{w.g, peer.g, w.g, peer.g} {
			wg.Go(func() {
				if err := g.reconcileAtNight(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
	}
	told := func() (n int) {
		t.Helper()
		if err := w.g.ledger.DB().Get(&n, `select count(*) from events where type = 'lockstep.drift' and customer_id = 'acme'`); err != nil {
			t.Fatal(err)
		}
		return n
	}
	night()
	if walks() != 0 {
		t.Fatal("the first start has nothing to catch up with")
	}
	w.unheard()
	ref, err := w.g.ledger.Resolve(t.Context(), "acme")
	if err != nil {
		t.Fatal(err)
	}
	for day, want := range []struct {
		adjust int64
		told   int
	}{{-300, 1}, {0, 1}, {-200, 2}, {500, 2}, {-500, 3}} {
		if want.adjust != 0 {
			w.did(w.sim.Operator().AdjustBalance(stripeID, want.adjust, "usd", "goodwill"))
		}
		w.advance(24 * time.Hour)
		// Nobody imports meanwhile: the mirror is the test's.
		w.eventually("the mirror is the test's", func() bool {
			_, leased, err := w.g.ledger.LeaseMirror(t.Context(), ref)
			return leased && err == nil
		})
		night()
		if walks() != day+1 || told() != want.told {
			t.Errorf("day %d: %d walks, told %d times, want %d\n%s", day+1, walks(), told(), want.told, log.String())
		}
		night()
		if walks() != day+1 {
			t.Errorf("day %d: walked again", day+1)
		}
		if err := w.g.ledger.ReleaseMirror(t.Context(), ref, false); err != nil {
			t.Fatal(err)
		}
	}
	if !strings.Contains(log.String(), "kinds=\"foreign_transaction 1\"") || !strings.Contains(log.String(), "reads=") {
		t.Errorf("the log: %s", log.String())
	}
	var last time.Time
	if err := w.g.ledger.DB().Get(&last, `select done_for from walks where name = 'night'`); err != nil {
		t.Fatal(err)
	}
	if _, err := w.g.server.Walk(t.Context(), handlers.WalkOptions{Name: "night", By: "late", DoneFor: &last}); !errors.Is(err, handlers.ErrWalking) {
		t.Errorf("one that saw that it was due before another walked: %v", err)
	}
	w.nightGoneOnWith(night, walks)
	w.must("POST", "/v1/reconcile", map[string]any{"repair": true})
	w.inStep("acme")
}

// nightGoneOnWith stops a night's walk in the middle, its process gone: another goes on with it.
func (w *world) nightGoneOnWith(night func(), walks func() int) {
	w.t.Helper()
	done := walks()
	w.advance(24 * time.Hour)
	slot := w.g.ledger.Now()
	ctx, stop := context.WithCancel(w.t.Context())
	n := 0
	if _, err := w.g.server.Walk(ctx, handlers.WalkOptions{Name: "night", By: "gone", Grace: handlers.DefaultGrace, DoneFor: &slot, Progress: func(int64, int64) {
		if n++; n == 5 {
			stop()
		}
	}}); err == nil {
		w.t.Fatal("it was not stopped")
	}
	stop()
	before := w.mark()
	night()
	if walks() != done+1 || slices.ContainsFunc(w.sim.Requests()[before:], func(r stripesim.Request) bool { return r.Path == "/v1/customers" && r.Method == "GET" }) {
		w.t.Errorf("%d walks; one that was stopped lists customers again", walks())
	}
}

// The call for all customers stops when its time is up, and the next one goes on; two at once don't walk.
func TestReconcileCallGoesOn(t *testing.T) {
	t.Parallel()
	w := newWorld(t, quiet)
	w.customer("acme", "10", "")
	w.inStep("acme")
	st, err := w.g.server.Walk(t.Context(), handlers.WalkOptions{Name: "api", By: "a call", Grace: handlers.DefaultGrace, Deadline: time.Now()})
	if r := st.Reconciliation(); err != nil || !r.HasMore || st.Done {
		t.Errorf("out of time: %+v, %v", r, err)
	}
	began := st.StartedAt
	if _, _, err := w.g.ledger.LeaseWalk(t.Context(), "api", "another call"); err != nil {
		t.Fatal(err)
	}
	w.refused("two at once", w.call("POST", "/v1/reconcile", nil), refusal{409, "conflict", "state_conflict", "*"})
	if a := w.must("POST", "/v1/reconcile", map[string]any{"customer": "acme"}); a.str("in_step") != "1" {
		t.Errorf("one customer meanwhile: %v", a)
	}
	if err := w.g.ledger.LeaveWalk(t.Context(), "api", "another call"); err != nil {
		t.Fatal(err)
	}
	row, found, err := w.g.ledger.LeaseWalk(t.Context(), "api", "a look")
	if err != nil || !found || !strings.Contains(row.State, began.Format("2006-01-02T15:04:05")) || w.g.ledger.LeaveWalk(t.Context(), "api", "a look") != nil {
		t.Errorf("what was kept: %+v, %v", row, err)
	}
	if a := w.must("POST", "/v1/reconcile", nil); a.str("has_more") != "false" || a.str("in_step") != "1" {
		t.Errorf("gone on: %v", a)
	}
	// Stripe can't be asked: nothing is said of anybody, and the place is kept.
	w.sim.Inject(stripesim.Fault{Method: "GET", Path: "/v1/refunds", Kind: stripesim.Unauthorized, Times: -1})
	if a := w.call("POST", "/v1/reconcile", nil); a.status/100 != 5 {
		t.Errorf("without Stripe: %v", a)
	}
	w.sim.ClearFaults()
	before := w.mark()
	if a := w.must("POST", "/v1/reconcile", nil); a.str("has_more") != "false" || slices.ContainsFunc(w.sim.Requests()[before:], func(r stripesim.Request) bool { return r.Path == "/v1/customers" }) {
		t.Errorf("gone on: %v", a)
	}
}
