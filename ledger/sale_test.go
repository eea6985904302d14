package ledger_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"lockstep/ledger"
	"lockstep/ledger/ledgertest"
)

// soldLine is a line of a plan, one of whose units costs 10.00 and gives what terms say.
func soldLine(id string, start, end time.Time, terms ...string) ledger.SaleLine {
	unit := int64(1000)
	ln := ledger.SaleLine{ID: id, Price: "price_1", PriceMetadata: map[string]string{}, Currency: "usd", Quantity: 1, Amount: 1000, Net: 1000, UnitAmount: &unit,
		Subscription: "sub_1", SubscriptionItem: "si_1", Start: start, End: end}
	for i := 0; i+1 < len(terms); i += 2 {
		ln.PriceMetadata[terms[i]] = terms[i+1]
	}
	return ln
}

func sell(t testing.TB, l *ledger.Ledger, c ledger.Customer, id string, lines ...ledger.SaleLine) error {
	t.Helper()
	_, err := l.ApplySale(ctx, ledger.Sale{ID: id, Customer: c.Ref, PaidAt: l.Now(), Lines: lines})
	return err
}

// What a wallet can't take is refused, whole: too much of it, or where the customer's wallet was closed.
func TestSaleRefused(t *testing.T) {
	t.Parallel()
	l := ledgertest.New(t, ledger.Options{})
	c := newCustomer(t, l, "acme", "")
	now := l.Now()
	good := soldLine("il_1", now, now.Add(time.Hour), "credits", "5")
	huge := soldLine("il_2", now, now.Add(time.Hour), "credits", "9223372036854.775807")
	if err := sell(t, l, c, "in_1", good, huge); !ledger.IsCode(err, ledger.CodeInvalid) || !strings.Contains(err.Error(), "price_1") {
		t.Errorf("both together: %v", err)
	}
	wantBalance(t, l, "acme", "0/0/0")
	if applied, err := l.SaleApplied(ctx, c.Ref, "in_1"); err != nil || applied {
		t.Errorf("applied %t, %v", applied, err)
	}
	free, _, err := l.CreateCustomer(ctx, ledger.CustomerInput{ID: "free"}, ledger.Once{})
	if err != nil {
		t.Fatal(err)
	}
	euros := soldLine("il_3", now, now.Add(time.Hour), "credits", "5", "credits_asset", "eur")
	if err := sell(t, l, free, "in_1", good, euros); !ledger.IsCode(err, ledger.CodeCurrency) {
		t.Errorf("two currencies at once: %v", err)
	}
	closed := "closed"
	if _, err := l.ChangeWallet(ctx, wallet(t, l, "acme").ID, ledger.WalletChange{Status: &closed}); err != nil {
		t.Fatal(err)
	}
	if err := sell(t, l, c, "in_2", good); !ledger.IsCode(err, ledger.CodeState) || !strings.Contains(err.Error(), "closed") {
		t.Errorf("on a closed wallet: %v", err)
	}
	if _, _, err := l.CreateWallet(ctx, ledger.WalletInput{Customer: "acme", Asset: "usd", Scope: "usage"}, ledger.Once{}); err != nil {
		t.Fatal(err)
	}
	if err := sell(t, l, c, "in_2", good); err != nil {
		t.Errorf("with another: %v", err)
	}
	if err := l.CustomerDeleted(ctx, c.Ref); err != nil {
		t.Fatal(err)
	}
	if err := sell(t, l, c, "in_3", good); !ledger.IsCode(err, ledger.CodeState) {
		t.Errorf("to nobody: %v", err)
	}
	if err := sell(t, l, ledger.Customer{Ref: ledger.Ref{ID: "nobody"}}, "in_3", good); !ledger.IsCode(err, ledger.CodeNotFound) {
		t.Errorf("to nobody at all: %v", err)
	}
}

// The first to say whose a sale is is believed.
func TestClaimSale(t *testing.T) {
	t.Parallel()
	l := ledgertest.New(t, ledger.Options{})
	a, b := ledger.Ref{Bucket: 1, ID: "a"}, ledger.Ref{Bucket: 2, ID: "b"}
	if _, owned, err := l.SaleOwner(ctx, "in_1", ""); owned || err != nil {
		t.Errorf("owned %t, %v", owned, err)
	}
	var wg sync.WaitGroup
	owners := make([]ledger.Ref, 16)
	for i := range owners {
		wg.Go(func() {
			var err error
			if owners[i], err = l.ClaimSale(ctx, "in_1", []ledger.Ref{a, b}[i%2]); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, o := range owners {
		if o != owners[0] {
			t.Fatalf("%v", owners)
		}
	}
	if _, err := l.ClaimSale(ctx, "sub_1", b); err != nil {
		t.Fatal(err)
	}
	if owner, owned, err := l.SaleOwner(ctx, "in_2", "sub_1"); !owned || owner != b || err != nil {
		t.Errorf("%v %t %v", owner, owned, err)
	}
	if owner, _, err := l.SaleOwner(ctx, "in_1", "sub_1"); owner != owners[0] || err != nil {
		t.Errorf("the invoice comes before its subscription: %v %v", owner, err)
	}
}

// A price in tiers makes several lines of one item: what was left is carried over once, and half of it is the most
// for all of them.
func TestSaleCarriesOverOnce(t *testing.T) {
	t.Parallel()
	clock := newStepClock()
	l := ledgertest.New(t, ledger.Options{Now: clock.now})
	c := newCustomer(t, l, "acme", "")
	start := l.Now().Truncate(time.Second)
	mid, end := start.Add(time.Hour), start.Add(2*time.Hour)
	terms := []string{"credits", "10", "credits_rollover", "15"}
	if err := sell(t, l, c, "in_1", soldLine("il_1", start, mid, terms...), soldLine("il_2", start, mid, terms...)); err != nil {
		t.Fatal(err)
	}
	clock.step(time.Hour + time.Second)
	wantBalance(t, l, "acme", "0/0/0")
	for range 3 {
		if err := sell(t, l, c, "in_2", soldLine("il_3", mid, end, terms...), soldLine("il_4", mid, end, terms...)); err != nil {
			t.Fatal(err)
		}
	}
	wantBalance(t, l, "acme", "35/0/35")
}

// Credit that was sold pays down debt first, like any other.
func TestSalePaysDebt(t *testing.T) {
	t.Parallel()
	l := ledgertest.New(t, ledger.Options{})
	c := newCustomer(t, l, "acme", "")
	limit := dec(t, "8")
	if _, err := l.ChangeWallet(ctx, wallet(t, l, "acme").ID, ledger.WalletChange{Overdraft: &limit}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := debit(t, l, "acme", "6", ""); err != nil {
		t.Fatal(err)
	}
	if err := sell(t, l, c, "in_1", soldLine("il_1", l.Now(), l.Now().Add(time.Hour), "credits", "10")); err != nil {
		t.Fatal(err)
	}
	wantBalance(t, l, "acme", "4/0/4")
	g, err := l.Grants(ctx, c.Ref, "", "", 1)
	if err != nil || g[0].Remaining != 4_000_000 || g[0].PaidBy() != "in_1" || g[0].SourceID != "in_1/il_1" {
		t.Errorf("%+v, %v", g, err)
	}
}

// However many processes hear of a sale at once, and whoever spends from the wallet meanwhile, it is booked once.
func TestSaleBookedOnce(t *testing.T) {
	t.Parallel()
	url := ledgertest.URL(t)
	l, other := ledgertest.New(t, ledger.Options{URL: url}), ledgertest.New(t, ledger.Options{URL: url})
	c := newCustomer(t, l, "acme", "100")
	start := l.Now().Truncate(time.Second)
	var wg sync.WaitGroup
	spent := make([]int, 4)
	for i := range spent {
		wg.Go(func() {
			for n := range 50 {
				if _, _, err := debit(t, []*ledger.Ledger{l, other}[i%2], "acme", "0.5", fmt.Sprint(i, "-", n)); err == nil {
					spent[i]++
				}
			}
		})
	}
	for sale := range 5 {
		from, to := start.Add(time.Duration(sale)*time.Hour), start.Add(time.Duration(sale+1)*time.Hour)
		back := soldLine("il_b", from, to, "credits", "10")
		back.Proration, back.Amount = true, -1000
		for i := range 6 {
			wg.Go(func() {
				id := fmt.Sprint("in_", sale)
				if err := sell(t, []*ledger.Ledger{l, other}[i%2], c, id, soldLine("il_a", from, to, "credits", "10"), soldLine("il_c", from, to, "credits", "3"), back); err != nil {
					t.Error(err)
				}
			})
		}
	}
	wg.Wait()
	total := 0
	for _, n := range spent {
		total += n
	}
	want := ledger.FormatSteps(int64(165_000_000-500_000*total), 6)
	wantBalance(t, l, "acme", want+"/0/"+want)
	if grants, err := l.Grants(ctx, c.Ref, "", "", 100); err != nil || len(grants) != 11 {
		t.Errorf("%d grants, %v", len(grants), err)
	}
}
