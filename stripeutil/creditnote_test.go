package stripeutil

import (
	"reflect"
	"testing"
	"time"
)

// A credit note is read with each of its parts, alone and in the list of its invoice's.
func TestReadCreditNotes(t *testing.T) {
	const whole = `{"id":"cn_1","object":"credit_note","invoice":"in_1","customer":{"id":"cus_1","object":"customer"},"currency":"usd","status":"issued",
		"type":"post_payment","customer_balance_transaction":"cbtxn_1","refund":"re_1","out_of_band_amount":101,"created":7}`
	want := CreditNote{ID: "cn_1", Invoice: "in_1", Customer: "cus_1", Currency: "usd", Status: "issued", BalanceTransaction: "cbtxn_1", Refund: "re_1",
		OutOfBand: 101, Created: time.Unix(7, 0).UTC()}
	s := newWire(t, says(200, whole))
	if got, err := clientFor(t, s).CreditNote(t.Context(), "cn_1"); err != nil || !reflect.DeepEqual(got, want) || s.seen()[0].path != "/v1/credit_notes/cn_1" {
		t.Errorf("%+v, %v", got, err)
	}
	s = newWire(t, says(200, `{"object":"list","has_more":false,"data":[`+whole+`,
		{"id":"cn_2","object":"credit_note","invoice":"in_1","customer":"cus_1","currency":"usd","status":"void","type":"pre_payment",
		"customer_balance_transaction":null,"refund":null,"out_of_band_amount":null,"created":8}]}`))
	got, err := clientFor(t, s).CreditNotes(t.Context(), "in_1")
	before := CreditNote{ID: "cn_2", Invoice: "in_1", Customer: "cus_1", Currency: "usd", Status: "void", BeforePayment: true, Created: time.Unix(8, 0).UTC()}
	if err != nil || !reflect.DeepEqual(got, []CreditNote{want, before}) {
		t.Errorf("%+v, %v", got, err)
	}
	if a := s.seen()[0]; a.path != "/v1/credit_notes" || params(t, a.query)["invoice"] != "in_1" {
		t.Errorf("sent %+v", a)
	}
	for _, id := range []string{"", "../x"} {
		if _, err := clientFor(t, s).CreditNote(t.Context(), id); err == nil {
			t.Errorf("%q was asked for", id)
		}
		if _, err := clientFor(t, s).CreditNotes(t.Context(), id); err == nil {
			t.Errorf("those of %q were asked for", id)
		}
	}
}

// What came of an invoice is what was paid and what the balance paid, wherever it was paid.
func TestReceived(t *testing.T) {
	for name, tc := range map[string]struct {
		in   Invoice
		want int64
	}{
		"by card":                   {Invoice{Status: "paid", AmountPaid: 2000, AmountDue: 2000}, 2000},
		"with the balance":          {Invoice{Status: "paid", AmountPaid: 1500, AmountDue: 1500, StartingBalance: -500}, 2000},
		"by the balance":            {Invoice{Status: "paid", StartingBalance: -5000, EndingBalance: -3000}, 2000},
		"with debt":                 {Invoice{Status: "paid", AmountPaid: 2300, AmountDue: 2300, StartingBalance: 300}, 2000},
		"elsewhere":                 {Invoice{Status: "paid", PaidOutOfBand: true, AmountPaid: 2000, AmountDue: 2000}, 2000},
		"elsewhere, told by nobody": {Invoice{Status: "paid", PaidOutOfBand: true, AmountDue: 2000}, 2000},
		"too small to charge":       {Invoice{Status: "paid", EndingBalance: 30}, 30},
		"not yet":                   {Invoice{Status: "open", AmountDue: 1500, StartingBalance: -500}, 0},
	} {
		if got := tc.in.Received(); got != tc.want {
			t.Errorf("%s: %d, want %d", name, got, tc.want)
		}
	}
}
