package ledger_test

import (
	"testing"
	"time"

	"lockstep/ledger"
	"lockstep/ledger/ledgertest"
)

// New credit goes to the customer's wallet of scope all, else usage, else invoices; what pays usage alone is never put
// where it would be stuck, and a wallet that is named takes it where it fits.
func TestWhereNewCreditGoes(t *testing.T) {
	t.Parallel()
	l := ledgertest.New(t, ledger.Options{})
	if _, _, err := l.CreateCustomer(ctx, ledger.CustomerInput{ID: "acme"}, ledger.Once{}); err != nil {
		t.Fatal(err)
	}
	all := wallet(t, l, "acme").ID
	open := func(scope string) string {
		t.Helper()
		w, _, err := l.CreateWallet(ctx, ledger.WalletInput{Customer: "acme", Asset: "usd", Scope: scope}, ledger.Once{})
		if err != nil {
			t.Fatal(err)
		}
		return w.ID
	}
	usage, invoices := open("usage"), open("invoices")
	goes := func(what, covers, named, want string) {
		t.Helper()
		g, _, err := l.Grant(ctx, ledger.GrantInput{Customer: "acme", Amount: dec(t, "1"), Covers: covers, Wallet: named}, ledger.Once{})
		if want == "" {
			if _, ok := err.(*ledger.Refusal); !ok {
				t.Errorf("%s: %v", what, err)
			}
			return
		}
		if err != nil || g.Wallet != want {
			t.Errorf("%s went to %s, want %s: %v", what, g.Wallet, want, err)
		}
	}
	goes("usage credit into the wallet for invoices", "usage", invoices, "")
	goes("credit into nobody's wallet", "all", "wal_00000000000000000000", "")
	goes("credit", "all", "", all)
	goes("credit for invoices", "all", invoices, invoices)
	goes("credit for usage", "usage", usage, usage)
	if _, _, err := l.Grant(ctx, ledger.GrantInput{Customer: "acme", Asset: "eur", Amount: dec(t, "1"), Wallet: usage}, ledger.Once{}); !ledger.IsCode(err, ledger.CodeInvalid) {
		t.Errorf("another asset than the wallet's: %v", err)
	}
	if _, _, err := debit(t, l, "acme", "1", ""); err != nil {
		t.Fatal(err)
	}
	if _, _, err := debit(t, l, "acme", "1", ""); err != nil {
		t.Fatal(err)
	}
	if _, err := l.ChangeWallet(ctx, all, ledger.WalletChange{Status: new("closed")}); err != nil {
		t.Fatal(err)
	}
	goes("credit without a wallet of scope all", "all", "", usage)
	goes("credit into a closed wallet", "all", all, "")
}

// What Stripe spends on an invoice is booked where Stripe sees it: on the wallet for invoices first, then on the one for
// everything, never on the one for usage.
func TestWhereStripeTakesFrom(t *testing.T) {
	t.Parallel()
	l := ledgertest.New(t, ledger.Options{})
	c := newCustomer(t, l, "acme", "10")
	ids := map[string]string{"all": wallet(t, l, "acme").ID}
	for _, scope := range []string{"usage", "invoices"} {
		w, _, err := l.CreateWallet(ctx, ledger.WalletInput{Customer: "acme", Asset: "usd", Scope: scope}, ledger.Once{})
		if err != nil {
			t.Fatal(err)
		}
		ids[scope] = w.ID
		grant(t, l, ledger.GrantInput{Customer: "acme", Amount: dec(t, "3"), Kind: "purchased", Wallet: w.ID})
	}
	took := func(id string, cents int64) {
		t.Helper()
		m, _, err := l.MirrorOf(ctx, c.Ref)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := l.Import(ctx, m.Mirror, []ledger.StripeTransaction{{ID: id, Amount: cents, Type: "applied_to_invoice", Reason: "in_1", Created: time.Now()}}); err != nil {
			t.Fatal(err)
		}
	}
	has := func(scope, want string) {
		t.Helper()
		w, err := l.Wallet(ctx, ids[scope])
		if got := ledger.FormatSteps(w.Available(), w.Scale); err != nil || got != want {
			t.Errorf("%s has %s, want %s: %v", scope, got, want, err)
		}
	}
	took("cbtxn_1", 200)
	has("invoices", "1")
	has("all", "10")
	took("cbtxn_2", 500)
	has("invoices", "0")
	has("all", "6")
	took("cbtxn_2", 500) // heard of again
	has("all", "6")
	took("cbtxn_3", 700) // more than there is: owed at Stripe too
	has("all", "-1")
	has("usage", "3")
	if v, _, err := l.MirrorOf(ctx, c.Ref); err != nil || v.Want != -100 {
		t.Errorf("Stripe should show %d: %v", v.Want, err)
	}
}
