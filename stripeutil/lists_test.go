package stripeutil_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"lockstep/stripeutil"
	"lockstep/stripeutil/stripesim"
)

// The account's lists come a hundred at a time, each page a read; what went back of a payment stands beside it.
func TestSimLists(t *testing.T) {
	a := newAccount(t)
	ctx, reads := stripeutil.CountReads(t.Context())
	op := a.sim.Operator()
	deleted := ""
	for i := range 104 {
		id, err := op.AddCustomer(fmt.Sprint(i), nil)
		if err != nil {
			t.Fatal(err)
		}
		deleted = id
	}
	if _, err := op.DeleteCustomer(deleted); err != nil {
		t.Fatal(err)
	}
	cus := a.customer("pm_card_visa")
	reads.Store(0)
	first, err := a.CustomerPage(ctx, "")
	if err != nil || len(first.Items) != 100 || first.Next != first.Items[99].ID || first.Items[0].ID != cus.ID {
		t.Fatalf("%d customers, next %q, %v", len(first.Items), first.Next, err)
	}
	second, err := a.CustomerPage(ctx, first.Next)
	if err != nil || len(second.Items) != 4 || second.Next != "" || reads.Load() != 2 {
		t.Errorf("%d customers, next %q, %d reads, %v", len(second.Items), second.Next, reads.Load(), err)
	}
	if _, err := a.CustomerPage(ctx, deleted+"_never"); !errors.Is(err, stripeutil.ErrInvalid) && !errors.Is(err, stripeutil.ErrNotFound) {
		t.Errorf("after one who is not there: %v", err)
	}

	pi, err := a.ChargeSavedMethod(ctx, topup(cus, "k"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.ChargeSavedMethod(ctx, topup(cus, "l")); err != nil {
		t.Fatal(err)
	}
	re, err := op.Refund(pi.ID, 700)
	if err != nil {
		t.Fatal(err)
	}
	dp, err := op.OpenDispute(a.sim.Charges(cus.ID)[0].ID, "fraudulent")
	if err != nil {
		t.Fatal(err)
	}
	payments, err := a.PaymentPage(ctx, stripeutil.Span{Since: time.Now().Add(-time.Hour)}, "")
	if err != nil || len(payments.Items) != 2 || payments.Items[1].ID != pi.ID || payments.Items[1].Refunded != 700 || !payments.Items[1].Disputed || payments.Items[0].Refunded != 0 ||
		payments.Items[1].LatestCharge != pi.LatestCharge || payments.Items[1].ChargedAt.IsZero() {
		t.Errorf("payments: %+v, %v", payments, err)
	}
	for name, span := range map[string]stripeutil.Span{"of them": {Customer: cus.ID}, "of another": {Customer: first.Items[1].ID}, "later": {Since: time.Now().Add(time.Hour)}} {
		p, err := a.PaymentPage(ctx, span, "")
		if want := map[string]int{"of them": 2}[name]; err != nil || len(p.Items) != want {
			t.Errorf("payments %s: %+v, %v", name, p, err)
		}
	}
	refunds, err := a.RefundPage(ctx, stripeutil.Span{}, "")
	if err != nil || len(refunds.Items) != 1 || refunds.Items[0].ID != re || refunds.Items[0].PaymentIntent != pi.ID || refunds.Next != "" {
		t.Errorf("refunds: %+v, %v", refunds, err)
	}
	disputes, err := a.DisputePage(ctx, stripeutil.Span{}, "")
	if err != nil || len(disputes.Items) != 1 || disputes.Items[0].ID != dp || disputes.Items[0].PaymentIntent != pi.ID {
		t.Errorf("disputes: %+v, %v", disputes, err)
	}
	price, err := op.AddPrice(stripesim.NewPrice{Unit: 1000})
	if err != nil {
		t.Fatal(err)
	}
	open, err := op.PaymentLink(stripesim.Link{Price: price, Customer: cus.ID})
	if err != nil {
		t.Fatal(err)
	}
	if s, err := a.SessionPage(ctx, stripeutil.Span{}, ""); err != nil || len(s.Items) != 0 {
		t.Errorf("an open session: %+v, %v", s, err)
	}
	if _, err := op.CompleteCheckout(open, "pm_card_visa"); err != nil {
		t.Fatal(err)
	}
	if s, err := a.SessionPage(ctx, stripeutil.Span{}, ""); err != nil || len(s.Items) != 1 || s.Items[0].ID != open || s.Items[0].PaymentStatus != "paid" {
		t.Errorf("sessions: %+v, %v", s, err)
	}
	in, err := op.InvoicePrice(cus.ID, price, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	paid, err := a.InvoicePage(ctx, stripeutil.Span{Customer: cus.ID}, "")
	if err != nil || len(paid.Items) != 1 || paid.Items[0].ID != in || paid.Items[0].Status != "paid" || paid.Items[0].PaidAt.IsZero() {
		t.Errorf("invoices: %+v, %v", paid, err)
	}
	if paid, err = a.InvoicePage(ctx, stripeutil.Span{Customer: first.Items[1].ID}, ""); err != nil || len(paid.Items) != 0 {
		t.Errorf("invoices of another: %+v, %v", paid, err)
	}
	// A payment's metadata may be changed in the dashboard.
	for value, want := range map[string]string{"t2": "t2", "": ""} {
		if _, err := op.SetPaymentMetadata(pi.ID, "topup", value); err != nil {
			t.Fatal(err)
		}
		if got, err := a.PaymentIntent(ctx, pi.ID); err != nil || got.Metadata["topup"] != want || got.Refunded != 700 {
			t.Errorf("metadata %q: %+v, %v", value, got, err)
		}
	}
	if _, err := op.SetPaymentMetadata("pi_none", "a", "b"); err == nil {
		t.Error("a payment that is not there was changed")
	}
}
