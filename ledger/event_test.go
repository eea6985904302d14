package ledger_test

import (
	"strings"
	"sync"
	"testing"
	"time"

	"lockstep/ledger"
	"lockstep/ledger/ledgertest"
)

// happened are the types of all events, in the order in which they happened.
func happened(t testing.TB, l *ledger.Ledger) string {
	t.Helper()
	var types []string
	if err := l.DB().Select(&types, `select type from events order by id`); err != nil {
		t.Fatal(err)
	}
	return strings.Join(types, " ")
}

// What was refused has not happened; what begins later has happened when it begins, and what expires when it does.
func TestEventsOfGrants(t *testing.T) {
	t.Parallel()
	clock := newStepClock()
	l := ledgertest.New(t, ledger.Options{Now: clock.now})
	newCustomer(t, l, "acme", "9000000000000")
	if got := happened(t, l); got != "grant.confirmed" {
		t.Fatalf("after a grant: %s", got)
	}
	if _, _, err := l.Grant(ctx, ledger.GrantInput{Customer: "acme", Amount: dec(t, "9000000000000")}, ledger.Once{}); !ledger.IsCode(err, ledger.CodeInvalid) {
		t.Fatalf("a grant beyond all bounds: %v", err)
	}
	begins, ends := clock.now().Add(time.Hour), clock.now().Add(2*time.Hour)
	if _, _, err := l.Grant(ctx, ledger.GrantInput{Customer: "acme", Amount: dec(t, "1"), EffectiveAt: &begins, ExpiresAt: &ends}, ledger.Once{}); err != nil {
		t.Fatal(err)
	}
	if got := happened(t, l); got != "grant.confirmed" {
		t.Fatalf("after a refusal and a grant that begins later: %s", got)
	}
	clock.step(time.Hour)
	for range 2 {
		wallet(t, l, "acme")
	}
	if got := happened(t, l); got != "grant.confirmed grant.confirmed" {
		t.Errorf("when the grant begins: %s", got)
	}
	clock.step(time.Hour)
	for range 2 {
		wallet(t, l, "acme")
	}
	if got := happened(t, l); got != "grant.confirmed grant.confirmed grant.expired" {
		t.Errorf("when the grant expires: %s", got)
	}
}

// What a hold pins does not keep a grant from expiring, nor from being told of.
func TestEventOfAHeldGrantsEnd(t *testing.T) {
	t.Parallel()
	clock := newStepClock()
	l := ledgertest.New(t, ledger.Options{Now: clock.now})
	newCustomer(t, l, "acme", "")
	ends := clock.now().Add(time.Hour)
	grant(t, l, ledger.GrantInput{Customer: "acme", Amount: dec(t, "5"), ExpiresAt: &ends})
	if _, _, err := l.CreateHold(ctx, ledger.HoldInput{Customer: "acme", Amount: dec(t, "5"), ExpiresIn: 2 * time.Hour}, ledger.Once{}); err != nil {
		t.Fatal(err)
	}
	clock.step(time.Hour)
	wallet(t, l, "acme")
	if got := happened(t, l); got != "grant.confirmed wallet.depleted grant.expired" || data(t, l, "grant.expired", "Remaining") != "5000000" {
		t.Errorf("%s with %s left", got, data(t, l, "grant.expired", "Remaining"))
	}
}

// forget forgets what happened, so that a test sees only what happens next.
func forget(t testing.TB, l *ledger.Ledger) {
	t.Helper()
	if _, err := l.DB().Exec(`delete from events`); err != nil {
		t.Fatal(err)
	}
}

// data is a field of the newest event of a type.
func data(t testing.TB, l *ledger.Ledger, eventType, field string) string {
	t.Helper()
	var got string
	if err := l.DB().Get(&got, `select coalesce(data::jsonb ->> $2, '') from events where type = $1 order by id desc limit 1`, eventType, field); err != nil {
		t.Fatalf("%s: %v", eventType, err)
	}
	return got
}

// Whatever Stripe says of a payment, and however often, each turn that the top-up takes is told once, with the
// pause that it makes or ends.
func TestEventsOfTopups(t *testing.T) {
	t.Parallel()
	l := ledgertest.New(t, ledger.Options{})
	newCustomer(t, l, "acme", "10")
	putRule(t, l, "acme", rule(t, 0))
	if _, _, err := debit(t, l, "acme", "6", ""); err != nil {
		t.Fatal(err)
	}
	top := topups(t, l, "acme")[0]
	for _, tt := range []struct{ status, want string }{
		{"processing", ""},
		{"action_required", "topup.action_required auto_topup.paused"},
		{"processing", ""},
		{"action_required", "topup.action_required"}, // paused it is for that already
		{"failed", "topup.failed auto_topup.paused"}, // for another reason
		{"action_required", ""},
		{"failed", ""},
		{"succeeded", "topup.succeeded grant.confirmed auto_topup.resumed"},
		{"failed", ""},
		{"succeeded", ""},
	} {
		forget(t, l)
		o := ledger.Outcome{Topup: top.ID, Status: tt.status, PaymentIntent: "pi_1", Received: top.Charge}
		if tt.status != "succeeded" {
			o.Code, o.Received = "card_declined", 0
		}
		for range 2 {
			settle(t, l, o)
		}
		if got := happened(t, l); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.status, got, tt.want)
		}
		if tt.status == "failed" && tt.want != "" {
			if status, code := data(t, l, "topup.failed", "Status"), data(t, l, "topup.failed", "FailureCode"); status != "failed" || code != "card_declined" {
				t.Errorf("topup.failed says %s for %s", status, code)
			}
		}
	}
	if _, _, err := debit(t, l, "acme", "20", ""); err != nil {
		t.Fatal(err)
	}
	forget(t, l)
	if _, err := l.CancelTopup(ctx, topups(t, l, "acme")[0].ID); err != nil {
		t.Fatal(err)
	}
	if got := happened(t, l); got != "" {
		t.Errorf("a canceled top-up: %q", got)
	}
}

// A pause is told once for as long as its reason is the same, and what ends and begins again in one commit is no
// change.
func TestEventsOfPauses(t *testing.T) {
	t.Parallel()
	l := ledgertest.New(t, ledger.Options{})
	newCustomer(t, l, "acme", "6")
	putRule(t, l, "acme", rule(t, 2000))
	id := wallet(t, l, "acme").ID
	if _, _, err := debit(t, l, "acme", "2", ""); err != nil {
		t.Fatal(err)
	}
	succeed(t, l, "acme")
	spent := func() error { _, _, err := debit(t, l, "acme", "20", "spent"); return err }
	for _, tt := range []struct {
		what string
		do   func() error
		want string
	}{
		{"a debit at the cap", spent, "auto_topup.paused"},
		{"the same rule again", func() error { putRule(t, l, "acme", rule(t, 2000)); return nil }, ""},
		{"paused by hand", func() error { _, err := l.PauseRule(ctx, id); return err }, "auto_topup.paused"},
		{"and again", func() error { _, err := l.PauseRule(ctx, id); return err }, ""},
		{"resumed at the cap, which holds", func() error { _, err := l.ResumeRule(ctx, id); return err }, "auto_topup.paused"},
		{"more cap", func() error { putRule(t, l, "acme", rule(t, 8000)); return nil }, "auto_topup.resumed"},
		{"resumed when it is not paused", func() error { _, err := l.ResumeRule(ctx, id); return err }, ""},
	} {
		forget(t, l)
		if err := tt.do(); err != nil {
			t.Fatal(err)
		}
		if got := happened(t, l); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.what, got, tt.want)
		}
		if tt.want != "" {
			want := map[string]string{"auto_topup.paused": "paused", "auto_topup.resumed": "topping_up"}[tt.want]
			if got := data(t, l, tt.want, "State"); got != want {
				t.Errorf("%s: the rule shown is %s", tt.what, got)
			}
		}
		if tt.what != "a debit at the cap" {
			continue
		}
		// The lane wrote both in one transaction: neither can be without the other.
		var one bool
		if err := l.DB().Get(&one, `select e.xmin = n.xmin from events e, entries n where n.key = 'spent'`); err != nil || !one {
			t.Errorf("the pause is not in the debit's commit: %v", err)
		}
	}
}

// Grants that end soon are told of once, by whichever process looks; those whose life is short anyway never.
func TestExpiryWarnings(t *testing.T) {
	t.Parallel()
	clock, url := newStepClock(), ledgertest.URL(t)
	l, peer := ledgertest.New(t, ledger.Options{URL: url, Now: clock.now}), ledgertest.New(t, ledger.Options{URL: url, Now: clock.now})
	const day = 24 * time.Hour
	newCustomer(t, l, "acme", "10")
	newCustomer(t, l, "other", "")
	for i, life := range []time.Duration{30 * day, 30 * day, 30 * day, 6 * day, 6*day - time.Second, day} {
		ends := clock.now().Add(life)
		grant(t, l, ledger.GrantInput{Customer: []string{"acme", "other"}[i%2], Amount: dec(t, "1"), Kind: "plan", ExpiresAt: &ends})
	}
	look := func() int {
		var wg sync.WaitGroup
		for _, l := range []*ledger.Ledger{l, peer, l, peer} {
			wg.Go(func() {
				if _, err := l.WarnExpiring(ctx, 3*day); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if _, err := l.WarnExpiring(ctx, 3*day); err != nil { // what another had in hand
			t.Error(err)
		}
		return strings.Count(happened(t, l), "grant.expiring")
	}
	if n := look(); n != 0 {
		t.Errorf("%d warnings at the start", n)
	}
	clock.step(3 * day)
	if n := look(); n != 1 {
		t.Errorf("%d warnings after three days, want 1", n)
	}
	clock.step(23 * day)
	if n := look(); n != 1 {
		t.Errorf("%d warnings in between", n)
	}
	clock.step(day + time.Second)
	for range 2 {
		if n := look(); n != 4 {
			t.Errorf("%d warnings, want 4", n)
		}
	}
	if got := data(t, l, "grant.expiring", "Status"); got != "confirmed" {
		t.Errorf("the grant shown is %s", got)
	}
}
