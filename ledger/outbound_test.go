package ledger_test

import (
	"errors"
	"sync"
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

// Warnings are written while debits take from the same grants, and neither gets in the other's way.
func TestWarningsUnderDebits(t *testing.T) {
	t.Parallel()
	l := ledgertest.New(t, ledger.Options{})
	newCustomer(t, l, "acme", "")
	ends := time.Now().Add(time.Hour)
	for range 3 {
		grant(t, l, ledger.GrantInput{Customer: "acme", Amount: dec(t, "5"), Kind: "plan", ExpiresAt: &ends})
	}
	var wg sync.WaitGroup
	stop := make(chan struct{})
	warned := make(chan int)
	go func() {
		n := 0
		for {
			select {
			case <-stop:
				warned <- n
				return
			default:
			}
			if _, err := l.DB().Exec(`update grants set warned_at = null where id = any(array(select id from grants for update skip locked))`); err != nil {
				t.Error(err)
			}
			m, err := l.WarnExpiring(ctx, time.Hour)
			if err != nil {
				t.Error(err)
			}
			n += m
		}
	}()
	for range 8 {
		wg.Go(func() {
			for range 180 {
				if _, _, err := debit(t, l, "acme", "0.01", ""); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	close(stop)
	if n := <-warned; n < 10 {
		t.Errorf("%d warnings beside the debits", n)
	}
	if got := available(t, l, "acme"); got != "0.6" {
		t.Errorf("available %s, want 0.6", got)
	}
}

// A transaction that can't show what happened tells of it all the same.
func TestEventWithoutData(t *testing.T) {
	t.Parallel()
	l := ledgertest.New(t, ledger.Options{Render: func(any) ([]byte, error) { return nil, errors.New("no words for it") }})
	newCustomer(t, l, "acme", "10")
	events, err := l.Events(ctx, ledger.Ref{}, "", "", 10)
	if err != nil || len(events) != 1 || events[0].Data != "null" || events[0].Type != ledger.EventGrantConfirmed {
		t.Errorf("events %v: %v", events, err)
	}
}
