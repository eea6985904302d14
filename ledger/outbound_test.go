package ledger_test

import (
	"testing"
	"time"

	"lockstep/ledger"
	"lockstep/ledger/ledgertest"
)

// Events are kept for thirty days, and ten more while they are on their way; so is the delivery log.
func TestOldEventsArePruned(t *testing.T) {
	t.Parallel()
	clock := newStepClock()
	l := ledgertest.New(t, ledger.Options{Now: clock.now})
	newCustomer(t, l, "acme", "10")
	url := "https://example.com"
	e, err := l.CreateEndpoint(ctx, ledger.EndpointInput{URL: &url, Events: []string{"*"}}, ledger.Once{})
	if err != nil {
		t.Fatal(err)
	}
	grant(t, l, ledger.GrantInput{Customer: "acme", Amount: dec(t, "1")})
	if _, _, err := l.FanOut(ctx); err != nil {
		t.Fatal(err)
	}
	for _, succeeded := range []bool{true, false} {
		d, found, err := l.LeaseDelivery(ctx, e.ID)
		if err != nil || !found {
			t.Fatalf("lease: %v %v", found, err)
		}
		if _, err := l.EndTry(ctx, d, ledger.Tried{Succeeded: succeeded, Response: "a\x00\xff"}); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		days int
		want string
	}{{29, "2 2 2"}, {30, "1 1 0"}, {39, "1 1 0"}, {40, "0 0 0"}} {
		at := clock.now().Add(-time.Duration(tt.days)*24*time.Hour - time.Second)
		for _, table := range []string{"events", "delivery_attempts"} {
			if _, err := l.DB().Exec(`update `+table+` set created_at = $1`, at); err != nil {
				t.Fatal(err)
			}
		}
		if more, err := l.PruneEvents(ctx); err != nil || more {
			t.Fatalf("after %d days: more %t, %v", tt.days, more, err)
		}
		var got string
		if err := l.DB().Get(&got, `select concat_ws(' ', (select count(*) from events), (select count(*) from deliveries), (select count(*) from delivery_attempts))`); err != nil || got != tt.want {
			t.Errorf("after %d days: %s, want %s: %v", tt.days, got, tt.want, err)
		}
	}
}
