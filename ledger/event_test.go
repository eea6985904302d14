package ledger_test

import (
	"strings"
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
