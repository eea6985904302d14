package main

import (
	"fmt"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"lockstep/ledger"
	"lockstep/ledger/ledgertest"
	"lockstep/stripeutil/stripesim"
)

// keyed is a debit of 0.01 under a key, as it was answered.
type keyed struct{ key, body string }

// racers debits one customer through several gateways until it is told to stop: each key through all of them at once,
// and through each some keys of its own. It notes what was acknowledged, and what was refused.
type racers struct {
	w       *world
	bases   []string
	stop    atomic.Bool
	wg      sync.WaitGroup
	mu      sync.Mutex
	acked   []keyed
	refused []string
	sent    map[string]bool
}

func (r *racers) start(workers int) {
	r.sent = make(map[string]bool)
	for i := range workers {
		r.wg.Go(func() {
			for n := 0; !r.stop.Load(); n++ {
				var wg sync.WaitGroup
				for at := range r.bases {
					wg.Go(func() { r.debit(at, fmt.Sprintf("all-%d-%d", i, n)) })
					wg.Go(func() { r.debit(at, fmt.Sprintf("only-%d-%d-%d", at, i, n)) })
				}
				wg.Wait()
				time.Sleep(20 * time.Millisecond) // it is the race that counts, not the load
			}
		})
	}
}

func (r *racers) debit(at int, key string) {
	side := *r.w
	side.base = r.bases[at]
	body, status := side.quietly("POST", "/v1/usage", `{"customer":"hot","amount":"0.01","idempotency_key":"`+key+`"}`)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sent[key] = true
	switch status {
	case http.StatusOK:
		r.acked = append(r.acked, keyed{key, body})
	case 0: // nobody is there, or there any more
	default:
		r.refused = append(r.refused, body)
	}
}

// end stops them, sends every key once more to one gateway, and holds what it is answered against what was said before:
// what was acknowledged by anyone is answered with the same bytes, and what was not is booked now.
func (r *racers) end(base string) (booked int) {
	r.stop.Store(true)
	r.wg.Wait()
	first := make(map[string]string)
	for _, a := range r.acked {
		if was, ok := first[a.key]; ok && was != a.body {
			r.w.t.Errorf("%s was answered with %s and with %s", a.key, was, a.body)
		}
		first[a.key] = a.body
	}
	r.acked, r.bases = nil, []string{base}
	for key := range r.sent {
		r.debit(0, key)
	}
	for _, a := range r.acked {
		if was, ok := first[a.key]; ok && was != a.body {
			r.w.t.Errorf("%s was acknowledged with %s and is now %s", a.key, was, a.body)
		}
	}
	if len(r.acked) != len(r.sent) || len(r.refused) > 0 {
		r.w.t.Errorf("%d keys, %d booked, refused %q", len(r.sent), len(r.acked), r.refused)
	}
	return len(r.sent)
}

// count asks the books, without a gateway.
func (w *world) count(query string, args ...any) (n int) {
	w.t.Helper()
	if err := w.g.ledger.DB().Get(&n, query, args...); err != nil {
		w.t.Fatal(err)
	}
	return n
}

// Three gateways need nothing but the database: debits of one wallet race through all of them under the same keys,
// each event comes to all three, each of them charges, flushes and sweeps. One is killed with a charge in its hands and
// one is stopped; what either had begun ends once, at the third, and every debit that any of them acknowledged stands.
func TestThreeGateways(t *testing.T) {
	t.Parallel()
	w := detached(t)
	var all [3]*process
	var wg sync.WaitGroup
	for i, crashAt := range []string{"", "", "topup.leased"} {
		wg.Go(func() { all[i] = w.spawn(crashAt) })
	}
	wg.Wait()
	last, stopped, doomed := all[0], all[1], all[2]
	w.base = last.base
	r := &racers{w: w}
	for _, p := range all {
		r.bases = append(r.bases, p.base)
		w.sim.AddEndpoint(stripesim.Endpoint{URL: p.base + "/webhooks/stripe", Secrets: w.o.secrets})
	}
	w.customer("hot", "1000", "")
	stripeIDs := make([]string, 7)
	for i := range stripeIDs {
		_, stripeIDs[i] = w.armed(fmt.Sprint("low-", i), "pm_card_visa", 2000)
	}
	w.must("POST", "/v1/grants", map[string]any{"customer": "hot", "amount": "5", "kind": "promotional", "priority": 90,
		"expires_at": time.Now().Add(2 * time.Second).UTC().Format(time.RFC3339Nano)})
	_, buyer := w.customer("buyer", "", "")
	pack := w.pack(1000, "credits", "10")

	r.start(2)
	low := func(i int, bases ...string) { // crosses its threshold, through each of them, under one key
		var wg sync.WaitGroup
		for _, base := range bases {
			wg.Go(func() {
				side := *w
				side.base = base
				side.quietly("POST", "/v1/usage", fmt.Sprintf(`{"customer":"low-%d","amount":"6","idempotency_key":"low-%d"}`, i, i))
			})
		}
		wg.Wait()
	}
	low(0, r.bases...)
	low(1, r.bases...)
	w.bought(stripesim.Link{Price: pack, Customer: buyer}, "pm_card_visa")
	crossed := 2
	for ; crossed < len(stripeIDs) && running(doomed); crossed++ {
		low(crossed, doomed.base)
	}
	doomed.killed(t)
	if n := w.count(`select count(*) from topups where status = 'pending' and called_at is null and lease_until > now()`); n == 0 {
		t.Error("the killed gateway had nothing in its hands")
	}
	time.Sleep(200 * time.Millisecond)
	_ = stopped.cmd.Process.Signal(syscall.SIGTERM)
	<-stopped.done
	if code := stopped.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("the stopped gateway ended with %d\n%s", code, stopped.log)
	}
	time.Sleep(200 * time.Millisecond)
	booked := r.end(last.base)
	for i := range stripeIDs {
		low(i, last.base) // its caller may have had no answer, and asks again; the others cross now
	}

	w.within(60*time.Second, "every top-up is settled, every event worked off, and what expired is swept", func() bool {
		time.Sleep(200 * time.Millisecond) // the killed one's leases have 20 seconds to run
		return w.count(`select (select count(*) from topups where status = 'succeeded' and lease_until is null) * 100 -
			(select count(*) from stripe_events where status = 'pending') + (select count(*) from entries where type = 'expire')`) == len(stripeIDs)*100+1
	})
	for i, id := range stripeIDs {
		w.paid(fmt.Sprint("low-", i), id, "24", 1)
		if n := len(w.sim.PaymentIntents(id)); n != 1 {
			t.Errorf("low-%d: %d payments", i, n)
		}
	}
	w.has("buyer", "usd", "10")
	if got, want := w.available("hot"), ledger.FormatSteps(1000_000000-int64(booked)*10000, 6); got != want {
		t.Errorf("after %d debits of 0.01 there is %s left, want %s", booked, got, want)
	}
	if n := w.count(`select count(*) from entries where type = 'debit' and (key like 'all-%' or key like 'only-%')`); n != booked {
		t.Errorf("%d debits booked under %d keys", n, booked)
	}
	// What the others had yet to tell Stripe is found by the sweep for stale balances, once a minute.
	w.within(90*time.Second, "the balances in Stripe have followed", func() bool {
		time.Sleep(200 * time.Millisecond)
		c, _ := w.sim.Customer(buyer)
		return c.Balance == -1000 && !slices.ContainsFunc(stripeIDs, func(id string) bool { c, _ := w.sim.Customer(id); return c.Balance != -2400 })
	})
	for _, c := range []string{"hot", "buyer", "low-0", fmt.Sprint("low-", crossed-1)} {
		w.inStepWithin(60*time.Second, c)
	}
	ledgertest.Check(t, w.g.ledger)
	if err := w.sim.Check(); err != nil {
		t.Error(err)
	}
}

// running reports whether a process has not ended.
func running(p *process) bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}
