package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"lockstep/handlers"
	"lockstep/ledger"
	"lockstep/stripeutil"
	"lockstep/stripeutil/stripesim"
)

// many makes customers, the quick way: in Stripe and in the books, with nothing to import.
func (w *world) many(n int) (stripeIDs []string) {
	w.t.Helper()
	for i := range n {
		id := w.did(w.sim.Operator().AddCustomer("", nil))
		stripeIDs = append(stripeIDs, id)
		if _, _, err := w.g.ledger.CreateCustomer(w.t.Context(), ledger.CustomerInput{ID: fmt.Sprintf("c%05d", i), StripeCustomer: id, Currency: "usd"}, ledger.Once{}); err != nil {
			w.t.Fatal(err)
		}
	}
	w.sql(`update mirrors set import_due = false, listed_to = ''`)
	return stripeIDs
}

// reads counts what was read from Stripe since a moment that marks names.
func (w *world) reads(mark int) (n int64) {
	for _, r := range w.sim.Requests()[mark:] {
		if r.Method == "GET" {
			n++
		}
	}
	return n
}

func (w *world) mark() int { return len(w.sim.Requests()) }

// walk is a walk through all customers by this process.
func (w *world) walk(change ...func(*handlers.WalkOptions)) handlers.Walked {
	w.t.Helper()
	o := handlers.WalkOptions{Name: "test", By: "test"}
	for _, f := range change {
		f(&o)
	}
	st, err := w.g.server.Walk(w.t.Context(), o)
	if err != nil || !st.Done {
		w.t.Fatalf("walk: %v, done %t", err, st.Done)
	}
	return st
}

func repairing(o *handlers.WalkOptions) { o.Repair = true }

// topUp buys credit without any worker, and answers the payment.
func (w *world) topUp(customer, stripeID string) (paymentIntent string) {
	w.t.Helper()
	w.card(stripeID, "pm_card_visa")
	amount, _ := ledger.ParseDecimal("20")
	top, _, err := w.g.ledger.CreateTopup(w.t.Context(), ledger.TopupInput{Customer: customer, Amount: amount, MinimumCharge: stripeutil.MinimumCharge}, ledger.Once{})
	if err == nil {
		top, err = w.g.chargeTopup(w.t.Context(), top.ID)
	}
	if err != nil || top.Status != "succeeded" {
		w.t.Fatal(top, err)
	}
	if ref, err := w.g.ledger.Resolve(w.t.Context(), customer); err != nil || w.g.syncNow(w.t.Context(), ref) != nil {
		w.t.Fatal(err)
	}
	return *top.PaymentIntent
}

// Two thousand customers cost a read for each hundred of them, a few for the lists of payments, and a few for each
// suspect; the walk says so before and after.
func TestReadsOfAWalk(t *testing.T) {
	t.Parallel()
	w := detached(t)
	const customers, lists = 2000, 7
	stripeIDs := w.many(customers)
	payment := w.topUp("c00007", stripeIDs[7])
	w.topUp("c00008", stripeIDs[8])

	mark := w.mark()
	st := w.walk()
	if got := w.reads(mark); got != st.Reads || got > customers/100+lists || st.Estimate < got-2 || st.Estimate > got+2 {
		t.Errorf("a walk that finds nothing: %d reads, it says %d and estimated %d", got, st.Reads, st.Estimate)
	}
	if r := st.Reconciliation(); r.Customers != customers || r.InStep != customers || len(r.Findings) != 0 {
		t.Errorf("%d customers, %d in step, %v", r.Customers, r.InStep, r.Findings)
	}
	w.unheard()
	for _, i := range []int{3, 777, 1999} {
		w.did(w.sim.Operator().AdjustBalance(stripeIDs[i], -100, "usd", "goodwill"))
	}
	w.did(w.sim.Operator().Refund(payment, 100))
	w.did(w.sim.Operator().DeleteCustomer(stripeIDs[50]))
	const suspects = 5
	mark = w.mark()
	st = w.walk()
	if got := w.reads(mark); got != st.Reads || got > customers/100+lists+4*suspects || len(st.Findings) != suspects {
		t.Errorf("%d suspects: %d reads, it says %d: %v", suspects, got, st.Reads, st.Findings)
	}
	if st = w.walk(repairing); st.Reconciliation().Repaired != suspects {
		t.Errorf("%d repaired: %v", st.Reconciliation().Repaired, st.Findings)
	}
	mark = w.mark()
	if st = w.walk(); len(st.Findings) != 0 || w.reads(mark) > customers/100+lists {
		t.Errorf("after the repair: %d reads, %v", w.reads(mark), st.Findings)
	}
}

// Where Stripe has a multitude of strangers, those who are ours are asked for by themselves.
func TestReadsAmongStrangers(t *testing.T) {
	t.Parallel()
	w := detached(t)
	const lists = 7 // two of events, and one of each thing that is listed
	w.many(2)
	for range 950 {
		w.did(w.sim.Operator().AddCustomer("", nil))
	}
	mark := w.mark()
	st := w.walk()
	if got := w.reads(mark); got > 2+2+lists || len(st.Findings) > 0 {
		t.Errorf("%d reads for two customers: %v", got, st.Findings)
	}
}

// scene plants a few differences of different kinds where nobody hears of them.
func (w *world) scene() (kinds map[string]string) {
	w.t.Helper()
	stripeIDs := w.many(8)
	refunded, failed := w.topUp("c00000", stripeIDs[0]), w.topUp("c00001", stripeIDs[1])
	disputed := w.topUp("c00002", stripeIDs[2])
	op := w.sim.Operator()
	re := w.did(op.Refund(failed, 500))
	if err := w.g.catchUp(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	for _, customer := range []string{"c00000", "c00001", "c00002"} {
		ref, err := w.g.ledger.Resolve(w.t.Context(), customer)
		if err == nil {
			err = w.g.syncNow(w.t.Context(), ref)
		}
		if err != nil {
			w.t.Fatal(err)
		}
	}
	w.unheard()
	w.did(op.Refund(refunded, 700))
	w.did(op.FailRefund(re))
	w.did(op.OpenDispute(w.sim.Charges(stripeIDs[2])[0].ID, "fraudulent"))
	w.did(op.AdjustBalance(stripeIDs[3], -100, "usd", "goodwill"))
	w.did(op.DeleteCustomer(stripeIDs[4]))
	pack := w.pack(1000, "credits", "40")
	w.bought(stripesim.Link{Price: pack, Customer: stripeIDs[5]}, "pm_card_visa")
	_ = disputed
	return map[string]string{"c00000": "refund_unbooked", "c00001": "refund_failed", "c00002": "dispute_unbooked", "c00003": "foreign_transaction",
		"c00004": "customer_deleted", "c00005": "sale_unbooked"}
}

// foundOnce looks that each difference of a scene is found, once.
func foundOnce(t *testing.T, kinds map[string]string, findings []handlers.Finding, repaired bool) {
	t.Helper()
	for customer, kind := range kinds {
		n := 0
		for _, f := range findings {
			if f.Customer == customer {
				if n++; f.Kind != kind || f.Repaired != repaired {
					t.Errorf("%s: %+v, want %s, repaired %t", customer, f, kind, repaired)
				}
			}
		}
		if n != 1 {
			t.Errorf("%s of %s is found %d times: %+v", kind, customer, n, findings)
		}
	}
	if len(findings) != len(kinds) {
		t.Errorf("%d findings: %+v", len(findings), findings)
	}
}

// left is what the scene's customers have once all is repaired.
func (w *world) sceneLeft() {
	w.t.Helper()
	for customer, want := range map[string]int64{"c00000": 13_000_000, "c00001": 20_000_000, "c00002": 0, "c00003": 1_000_000, "c00005": 40_000_000} {
		if got := w.balanceInBooks(customer); got != want {
			w.t.Errorf("%s has %d steps, want %d", customer, got, want)
		}
	}
}

// Stopped after each of its steps and gone on with, a walk finds the same, once, and repairs it, once.
func TestWalkStoppedAfterEachStep(t *testing.T) {
	t.Parallel()
	for _, repair := range []bool{false, true} {
		t.Run(fmt.Sprintf("repair %t", repair), func(t *testing.T) {
			t.Parallel()
			w := detached(t)
			kinds := w.scene()
			mark, resumed := w.mark(), 0
			var st handlers.Walked
			for runs := 0; !st.Done; runs++ {
				ctx, stop := context.WithCancel(t.Context())
				var err error
				st, err = w.g.server.Walk(ctx, handlers.WalkOptions{Name: "test", By: fmt.Sprint("run ", runs), Repair: repair,
					Started:  func(_ *handlers.Walked, anew bool) { resumed += map[bool]int{false: 1}[anew] },
					Progress: func(int64, int64) { stop() }})
				stop()
				if err != nil && ctx.Err() == nil || runs > 100 {
					t.Fatal(runs, err)
				}
			}
			if resumed < 10 || st.Resumed != resumed || st.Reads != w.reads(mark) {
				t.Errorf("gone on with %d times, it says %d; %d reads, it says %d", resumed, st.Resumed, w.reads(mark), st.Reads)
			}
			foundOnce(t, kinds, st.Findings, repair)
			if repair {
				w.sceneLeft()
			}
			// With it at its end, the next begins anew.
			next := w.walk(func(o *handlers.WalkOptions) { o.Repair = repair })
			if next.Resumed != 0 || repair != (len(next.Findings) == 0) {
				t.Errorf("the next walk: resumed %d, %+v", next.Resumed, next.Findings)
			}
		})
	}
}

// spawnCommand runs a lockstep command in a process of its own, which kills itself at a point, "" for never.
func (w *world) spawnCommand(crashAt string, args ...string) (stdout, stderr string, err error) {
	w.t.Helper()
	cmd, out, errs := w.commandProcess(crashAt, args...)
	err = cmd.Run()
	return out.String(), errs.String(), err
}

// commandProcess is a lockstep command in a process of its own, not yet started.
func (w *world) commandProcess(crashAt string, args ...string) (cmd *exec.Cmd, out, errs *lockedBuffer) {
	w.t.Helper()
	exe, err := os.Executable()
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, stop := context.WithTimeout(w.t.Context(), time.Minute)
	w.t.Cleanup(stop)
	cmd, out, errs = exec.CommandContext(ctx, exe, args...), &lockedBuffer{}, &lockedBuffer{}
	cmd.Stdout, cmd.Stderr = out, errs
	cmd.Env = append(os.Environ(), asMain+"=1", "LOCKSTEP_CRASH_AT="+crashAt, "DATABASE_URL="+w.o.url, "STRIPE_SECRET_KEY="+w.sim.SecretKey(),
		"STRIPE_API_BASE="+w.o.stripeURL, "STRIPE_REQUESTS_PER_SECOND=1000", "LOCKSTEP_API_KEY="+w.key)
	return cmd, out, errs
}

// Told to stop by ^C, the command says how to go on, and does.
func TestReconcileInterrupted(t *testing.T) {
	t.Parallel()
	w := detached(t)
	kinds := w.scene()
	w.sim.Inject(stripesim.Fault{Method: "GET", Path: "/v1/refunds", Kind: stripesim.Slow, Delay: 5 * time.Second})
	cmd, out, errs := w.commandProcess("", "reconcile", "--json", "--grace", "0s")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.within(30*time.Second, "the walk is at the refunds", func() bool {
		return slices.ContainsFunc(w.sim.Requests(), func(r stripesim.Request) bool { return r.Path == "/v1/checkout/sessions" })
	})
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 130 || out.String() != "" || !strings.Contains(errs.String(), "the same command goes on from there") {
		t.Errorf("exit %d, %q, %s", code, out, errs)
	}
	w.sim.ClearFaults()
	before := w.mark()
	again, said, err := w.spawnCommand("", "reconcile", "--json", "--grace", "0s")
	var r handlers.Reconciliation
	if jsonErr := json.Unmarshal([]byte(again), &r); jsonErr != nil || err == nil || !strings.Contains(said, "going on with the walk") {
		t.Fatal(jsonErr, err, said)
	}
	foundOnce(t, kinds, r.Findings, false)
	if slices.ContainsFunc(w.sim.Requests()[before:], func(r stripesim.Request) bool { return r.Path == "/v1/customers" && r.Method == "GET" }) {
		t.Error("it listed the customers again")
	}
}

// Killed in the middle, or right after a repair that nobody has written down, the command goes on where it was: nothing
// is lost and nothing is told or repaired twice.
func TestKilledWhileReconciling(t *testing.T) {
	t.Parallel()
	for _, point := range []string{"reconcile.half", "reconcile.mended"} {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			w := detached(t)
			kinds := w.scene()
			args := []string{"reconcile", "--repair", "--json", "--grace", "0s"}
			if out, errs, err := w.spawnCommand(point, args...); err == nil || out != "" {
				t.Fatalf("it was not killed: %v %s %s", err, out, errs)
			}
			w.sql(`update walks set lease_until = now()`) // as it is some seconds later
			out, errs, err := w.spawnCommand("", args...)
			if err != nil || !strings.Contains(errs, "going on with the walk that began at") {
				t.Fatalf("gone on: %v %s %s", err, out, errs)
			}
			var r handlers.Reconciliation
			if err := json.Unmarshal([]byte(out), &r); err != nil {
				t.Fatal(err, out)
			}
			foundOnce(t, kinds, r.Findings, true)
			w.sceneLeft()
			if r.Customers != 8 || r.InStep != 2 || r.Repaired != 6 || r.HasMore {
				t.Errorf("%+v", r)
			}
			var told int
			if err := w.g.ledger.DB().Get(&told, `select count(*) from events where type = 'lockstep.drift'`); err != nil || told != len(kinds) {
				t.Errorf("told %d times: %v", told, err)
			}
		})
	}
}

// The command prints a table, or JSON that the API's document describes; what it was asked for decides what it goes on
// with.
func TestReconcileCommandOptions(t *testing.T) {
	w := detached(t)
	kinds := w.scene()
	out, code := w.command("reconcile", "--grace", "0s", "--json")
	var r handlers.Reconciliation
	if err := json.Unmarshal([]byte(out), &r); err != nil || code != 1 {
		t.Fatal(err, code, out)
	}
	foundOnce(t, kinds, r.Findings, false)
	judged(t, exchange{"POST", "/v1/reconcile", http.Header{}, nil, answer{status: http.StatusOK, raw: []byte(out), header: http.Header{"Content-Type": {"application/json"}, "Request-Id": {"req_command"}}}})
	for _, args := range [][]string{{"-since", "40"}, {"-since", "2999-01-01"}, {"acme"}, {"-customer", "c00000", "-full"}, {"-nothing"}} {
		if out, code := w.command(append([]string{"reconcile"}, args...)...); code != 2 || out != "" {
			t.Errorf("%v: exit %d, %q", args, code, out)
		}
	}
	if out, code := w.command("reconcile", "--grace", "0s", "--customer", "c00000"); code != 1 || !strings.Contains(out, "1 customers, 0 in step, 0 repaired; 1 findings, 1 open") {
		t.Errorf("one customer: exit %d, %q", code, out)
	}
	if out, code := w.command("reconcile", "--grace", "0s", "--customer", "c00006"); code != 0 || !strings.Contains(out, "1 customers, 1 in step") {
		t.Errorf("one who is fine: exit %d, %q", code, out)
	}
	if _, code := w.command("reconcile", "--customer", "nobody"); code != 1 {
		t.Errorf("nobody: exit %d", code)
	}
	// Everything of everybody finds the same, and believes nothing that was seen before.
	out, code = w.command("reconcile", "--grace", "0s", "--full", "--json")
	if err := json.Unmarshal([]byte(out), &r); err != nil || code != 1 {
		t.Fatal(err, code, out)
	}
	foundOnce(t, kinds, r.Findings, false)
	if out, code := w.command("reconcile", "--grace", "0s", "--repair"); code != 0 || !strings.Contains(out, "6 repaired; 6 findings, 0 open") {
		t.Errorf("repair: exit %d, %s", code, out)
	}
	w.sceneLeft()
}

// Payments are walked as far back as one is told, and what is young is left to its webhook; balances are what they are.
func TestWindowOfAWalk(t *testing.T) {
	t.Parallel()
	w := detached(t)
	kinds := w.scene()
	balances := map[string]string{"c00003": kinds["c00003"], "c00004": kinds["c00004"]}
	grace := func(o *handlers.WalkOptions) { o.Grace = handlers.DefaultGrace }
	foundOnce(t, balances, w.walk(grace).Findings, false)
	w.advance(10 * 24 * time.Hour)
	foundOnce(t, balances, w.walk(grace, func(o *handlers.WalkOptions) { o.Since = 24 * time.Hour }).Findings, false)
	foundOnce(t, kinds, w.walk(grace).Findings, false)
	w.advance(35 * 24 * time.Hour) // Stripe has forgotten the events
	foundOnce(t, balances, w.walk(grace).Findings, false)
	foundOnce(t, kinds, w.walk(grace, func(o *handlers.WalkOptions) { o.Since = 60 * 24 * time.Hour }).Findings, false)
	foundOnce(t, kinds, w.walk(grace, repairing, func(o *handlers.WalkOptions) { o.Full = true }).Findings, true)
	w.sceneLeft()
}

// A walk that was stopped is gone on with under the same options alone, and not with --restart.
func TestWalkBegunAnew(t *testing.T) {
	t.Parallel()
	w := detached(t)
	w.scene()
	half := func(change ...func(*handlers.WalkOptions)) (anew bool) {
		t.Helper()
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		n := 0
		o := handlers.WalkOptions{Name: "test", By: "test", Started: func(_ *handlers.Walked, a bool) { anew = a },
			Progress: func(int64, int64) {
				if n++; n == 4 {
					stop()
				}
			}}
		for _, f := range change {
			f(&o)
		}
		if _, err := w.g.server.Walk(ctx, o); err == nil {
			t.Fatal("it was not stopped")
		}
		return anew
	}
	if !half() || half() {
		t.Error("the same options go on")
	}
	if !half(repairing) {
		t.Error("another option begins anew")
	}
	if half(repairing) || !half(repairing, func(o *handlers.WalkOptions) { o.Restart = true }) {
		t.Error("restart begins anew")
	}
	// Another walker has to wait; one that lost its walk stops without a word more.
	if _, found, err := w.g.ledger.LeaseWalk(t.Context(), "test", "another"); err != nil || !found {
		t.Fatal(found, err)
	}
	if _, err := w.g.server.Walk(t.Context(), handlers.WalkOptions{Name: "test", By: "test"}); err != handlers.ErrWalking {
		t.Errorf("beside another: %v", err)
	}
	if err := w.g.ledger.LeaveWalk(t.Context(), "test", "another"); err != nil {
		t.Fatal(err)
	}
	lost := false
	_, err := w.g.server.Walk(t.Context(), handlers.WalkOptions{Name: "test", By: "test", Repair: true, Progress: func(int64, int64) {
		if !lost {
			lost = true
			w.sql(`update walks set lease_by = 'another', state = 'theirs' where name = 'test'`)
		}
	}})
	var theirs string
	if getErr := w.g.ledger.DB().Get(&theirs, `select state from walks where name = 'test'`); getErr != nil || err == nil || theirs != "theirs" {
		t.Errorf("lost to another: %v, %q %v", err, theirs, getErr)
	}
	if got := w.balanceInBooks("c00000"); got != 20_000_000 {
		t.Errorf("it went on to repair: %d steps", got)
	}
}

// A repair that fails says so, and is made once what it failed of has been put right.
func TestRepairThatFails(t *testing.T) {
	t.Parallel()
	w := detached(t)
	stripeIDs := w.many(2)
	w.unheard()
	price := w.pack(1000, "credits", "forty")
	w.bought(stripesim.Link{Price: price, Customer: stripeIDs[0]}, "pm_card_visa")
	for range 2 {
		st := w.walk(repairing)
		r := st.Reconciliation()
		if r.Repaired != 0 || r.InStep != 1 || r.Open() != 1 || r.Kinds() != "sale_unbooked 1" || !strings.Contains(r.Findings[0].Explanation, "; the repair failed: ") ||
			!strings.Contains(r.Findings[0].Explanation, `forty`) {
			t.Fatalf("%+v", r)
		}
		w.advance(24 * time.Hour)
	}
	w.did(w.sim.Operator().SetPriceMetadata(price, "credits", "40"))
	if st := w.walk(repairing); st.Reconciliation().Repaired != 1 || w.balanceInBooks("c00000") != 40_000_000 {
		t.Errorf("put right: %+v", st.Findings)
	}
	// What an account sells beside credit is looked at once, and not every night.
	w.bought(stripesim.Link{Price: w.pack(1000), Customer: stripeIDs[1]}, "pm_card_visa")
	reads := func() int64 { mark := w.mark(); w.walk(); return w.reads(mark) }
	first := reads()
	w.advance(15 * 24 * time.Hour)
	w.walk()
	if again := reads(); again >= first {
		t.Errorf("%d reads, then %d", first, again)
	}
}
