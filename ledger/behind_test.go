package ledger_test

import (
	"testing"
	"time"

	"lockstep/ledger"
	"lockstep/ledger/ledgertest"
)

// What is behind in Stripe is told with how far, since when, and when it was last in step; who has it already or has to be
// left alone is told apart.
func TestBehindTellsHowFarAndSinceWhen(t *testing.T) {
	t.Parallel()
	now := time.Now().UTC().Truncate(time.Second)
	l := ledgertest.New(t, ledger.Options{Now: func() time.Time { return now }})
	ref := newCustomer(t, l, "acme", "").Ref
	inStep := newCustomer(t, l, "calm", "").Ref
	look := func(note bool) (b ledger.Behind) {
		t.Helper()
		behind, err := l.Behind(ctx, []ledger.Ref{ref, inStep, {Bucket: 1, ID: "nobody"}}, note)
		if err != nil || len(behind) > 1 {
			t.Fatalf("%+v, %v", behind, err)
		}
		if len(behind) == 1 {
			b = behind[0]
		}
		return b
	}
	if b := look(true); b.ID != "" {
		t.Errorf("before anything: %+v", b)
	}
	first := now
	grant(t, l, ledger.GrantInput{Customer: "acme", Amount: dec(t, "3"), Kind: "purchased"})
	now = now.Add(time.Minute)
	mustDebit(t, l, "acme", "0.505")
	if b := look(false); b.Ref != ref || b.Minor != 249 || b.Since != nil || b.Flushed != nil || b.Later {
		t.Errorf("after two entries: %+v", b)
	}
	if b := look(true); b.Since == nil || !b.Since.Equal(first) {
		t.Errorf("since %v, want %v", b.Since, first)
	}
	if flushed(t, l, ref) != 249 || look(true).ID != "" {
		t.Errorf("flushed, and %+v", look(true))
	}
	shown := now
	now = now.Add(time.Minute)
	mustDebit(t, l, "acme", "2")
	if b := look(true); b.Minor != 200 || b.Flushed == nil || !b.Flushed.Equal(shown) || b.Since == nil || !b.Since.Equal(now) {
		t.Errorf("after a debit: %+v", b)
	}
	if _, leased, err := l.LeaseMirror(ctx, ref); err != nil || !leased || !look(false).Later {
		t.Errorf("while another has it: %t, %v, %+v", leased, err, look(false))
	}
	if err := l.ReleaseMirror(ctx, ref, true); err != nil || !look(false).Later {
		t.Errorf("after a failure: %v, %+v", err, look(false))
	}
	now = now.Add(time.Second)
	if look(false).Later {
		t.Error("once the failure has been waited out")
	}
}
