package ledger_test

import (
	"fmt"
	"testing"
	"time"

	"lockstep/ledger"
	"lockstep/ledger/ledgertest"
)

// flushed brings a customer's balance in Stripe up to date, as a Stripe that always answers would have it.
func flushed(t *testing.T, l *ledger.Ledger, ref ledger.Ref) (credit int64) {
	t.Helper()
	for {
		m, leased, err := l.LeaseMirror(ctx, ref)
		if err != nil || !leased {
			t.Fatalf("mirror of %s: %v %v", ref.ID, leased, err)
		}
		f, found, err := l.PlanFlush(ctx, m)
		if err != nil {
			t.Fatal(err)
		}
		if found {
			err = l.RecordFlush(ctx, f, ledger.StripeTransaction{ID: "cbtxn_" + f.ID, Amount: f.Amount, EndingBalance: f.Amount - m.Credit, Type: "adjustment", Created: time.Now()})
		}
		if err = l.ReleaseMirror(ctx, ref, err != nil); err != nil {
			t.Fatal(err)
		}
		if !found {
			return m.Credit
		}
	}
}

// While an invoice that buys credit is about to be finalized, Stripe is to show nothing; from then on it is to show the
// credit again, and whoever looks at what a crash forgot finds that, though no entry tells of it.
func TestInvoiceEmptiesMirror(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(t *testing.T, l *ledger.Ledger, top *ledger.Topup){
		"finalized": func(t *testing.T, l *ledger.Ledger, top *ledger.Topup) {
			if err := l.InvoiceStep(ctx, top, ledger.InvoiceFinalized, ""); err != nil {
				t.Fatal(err)
			}
		},
		"given up": func(t *testing.T, l *ledger.Ledger, top *ledger.Topup) {
			if err := l.InvoiceStep(ctx, top, ledger.InvoiceFinalized, "in_1"); err != nil {
				t.Fatal(err)
			}
			settle(t, l, ledger.Outcome{Topup: top.ID, Status: "failed", Code: "card_declined"})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := ledgertest.New(t, ledger.Options{})
			ref := newCustomer(t, l, "acme", "3").Ref
			if got := flushed(t, l, ref); got != 300 {
				t.Fatalf("shows %d", got)
			}
			top, _, err := l.CreateTopup(ctx, ledger.TopupInput{Customer: "acme", Amount: dec(t, "20"), Mode: "invoice", MinimumCharge: func(string) int64 { return 50 }}, ledger.Once{})
			if err != nil {
				t.Fatal(err)
			}
			if err := l.InvoiceStep(ctx, &top, ledger.InvoiceDrafted, "in_1"); err != nil {
				t.Fatal(err)
			}
			if got := flushed(t, l, ref); got != 300 {
				t.Errorf("drafted, it shows %d", got)
			}
			if emptied, err := l.MirrorEmptied(ctx, ref); err != nil || emptied {
				t.Errorf("emptied: %t, %v", emptied, err)
			}
			if err := l.InvoiceStep(ctx, &top, ledger.InvoiceComplete, ""); err != nil {
				t.Fatal(err)
			}
			if out, err := l.OutOfStep(ctx, []ledger.Ref{ref}, false); err != nil || len(out) != 1 {
				t.Errorf("out of step: %v, %v", out, err)
			}
			if got := flushed(t, l, ref); got != 0 {
				t.Errorf("about to be finalized, it shows %d", got)
			}
			if emptied, err := l.MirrorEmptied(ctx, ref); err != nil || !emptied {
				t.Errorf("emptied: %t, %v", emptied, err)
			}
			if stale, err := l.StaleMirrors(ctx, ledger.Ref{Bucket: -1}, 10); err != nil || len(stale) != 0 {
				t.Errorf("stale before it is finalized: %v, %v", stale, err)
			}
			l.TakeDirty() // as a crash does
			end(t, l, &top)
			l.TakeDirty()
			if stale, err := l.StaleMirrors(ctx, ledger.Ref{Bucket: -1}, 10); err != nil || fmt.Sprint(stale) != fmt.Sprint([]ledger.Ref{ref}) {
				t.Errorf("stale after it: %v, %v", stale, err)
			}
			if got := flushed(t, l, ref); got != 300 {
				t.Errorf("after it, it shows %d", got)
			}
			if err := l.InvoiceStep(ctx, &top, ledger.InvoiceComplete, "in_2"); err != nil || top.InvoiceStep != ledger.InvoiceFinalized || *top.Invoice != "in_1" {
				t.Errorf("a step back: %d of %s, %v", top.InvoiceStep, *top.Invoice, err)
			}
		})
	}
}
