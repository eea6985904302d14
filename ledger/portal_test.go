package ledger_test

import (
	"bytes"
	"testing"
	"time"

	"lockstep/ledger"
	"lockstep/ledger/ledgertest"
)

// A session lives for an hour, longer by use, and no longer than half a day; the row that keeps its link from being
// followed again is kept as long as that, and pruned after.
func TestPortalSessionLife(t *testing.T) {
	t.Parallel()
	clock := newStepClock()
	l := ledgertest.New(t, ledger.Options{Now: clock.now})
	c := newCustomer(t, l, "acme", "10")
	link := func(nonce byte) ledger.PortalLink {
		return ledger.PortalLink{Customer: "acme", Nonce: bytes.Repeat([]byte{nonce}, 16), ExpiresAt: l.Now().Add(15 * time.Minute), ReturnURL: "https://app.example.com"}
	}
	enter := func(k ledger.PortalLink, secret string, want bool) {
		t.Helper()
		if in, err := l.EnterPortal(ctx, k, []byte(secret)); err != nil || in != want {
			t.Errorf("enter: %v %v", in, err)
		}
	}
	in := func(secret string, want bool) {
		t.Helper()
		s, found, err := l.PortalSession(ctx, c.Bucket, []byte(secret))
		if err != nil || found != want || found && (s.Customer.ID != "acme" || s.ReturnURL != "https://app.example.com") {
			t.Errorf("%s, %s in: %+v %v %v", secret, clock.now(), s, found, err)
		}
	}
	first := link(1)
	enter(first, "used", true)
	enter(first, "used again", false)
	in("used again", false)
	enter(link(2), "idle", true)
	in("unknown", false)
	if _, found, err := l.PortalSession(ctx, (c.Bucket+1)%ledger.Buckets, []byte("used")); found || err != nil {
		t.Errorf("in another bucket: %v %v", found, err)
	}
	clock.step(59 * time.Minute)
	in("used", true)
	clock.step(time.Minute)
	in("idle", false)
	for range 13 { // used every 50 minutes: until the end that no use moves
		in("used", true)
		clock.step(50 * time.Minute)
	}
	in("used", true)
	clock.step(10 * time.Minute)
	in("used", false)
	enter(first, "the link, at the end", false)
	late := link(3)
	clock.step(15 * time.Minute)
	enter(late, "too late", false)
	if _, err := l.PrunePortal(ctx); err != nil || count(t, l, "portal_sessions") != 0 {
		t.Errorf("%d rows are left, %v", count(t, l, "portal_sessions"), err)
	}
	enter(link(4), "left", true)
	if err := l.LeavePortal(ctx, c.Bucket, []byte("left")); err != nil {
		t.Fatal(err)
	}
	in("left", false)
	if more, err := l.PrunePortal(ctx); err != nil || more || count(t, l, "portal_sessions") != 1 {
		t.Errorf("what keeps a link from being followed again is gone: %v", err)
	}
}

// A session that is left while a page renews it stays over.
func TestPortalSessionEnds(t *testing.T) {
	t.Parallel()
	l := ledgertest.New(t, ledger.Options{})
	c := newCustomer(t, l, "acme", "")
	link := ledger.PortalLink{Customer: "acme", Nonce: []byte("nonce"), ExpiresAt: time.Now().Add(time.Minute)}
	if in, err := l.EnterPortal(ctx, link, []byte("s")); err != nil || !in {
		t.Fatal(in, err)
	}
	change(t, l, `update portal_sessions set expires_at = expires_at - interval '30 minutes'`) // so that its use renews it
	leaving, err := l.DB().Beginx()
	if err != nil {
		t.Fatal(err)
	}
	defer leaving.Rollback()
	if _, err := leaving.Exec(`update portal_sessions set expires_at = now(), ends_at = now()`); err != nil {
		t.Fatal(err)
	}
	renewed := make(chan error, 1)
	go func() {
		_, _, err := l.PortalSession(ctx, c.Bucket, []byte("s"))
		renewed <- err
	}()
	for waits := 0; waits == 0; time.Sleep(5 * time.Millisecond) { // until it has read the session and waits to renew it
		if err := l.DB().Get(&waits, `select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`); err != nil {
			t.Fatal(err)
		}
	}
	if err := leaving.Commit(); err != nil {
		t.Fatal(err)
	}
	if err := <-renewed; err != nil {
		t.Fatal(err)
	}
	if _, found, err := l.PortalSession(ctx, c.Bucket, []byte("s")); found || err != nil {
		t.Errorf("it is back: %v", err)
	}
}
