package ledger_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"lockstep/ledger"
	"lockstep/ledger/ledgertest"
)

func TestMain(m *testing.M) { ledgertest.Main(m) }

var ctx = context.Background()

func dec(t testing.TB, s string) ledger.Decimal {
	t.Helper()
	d, ok := ledger.ParseDecimal(s)
	if !ok {
		t.Fatalf("%q is not a decimal", s)
	}
	return d
}

func decp(t testing.TB, s string) *ledger.Decimal {
	d := dec(t, s)
	return &d
}

// newCustomer makes a customer who is linked to a fresh Stripe customer and has some credit.
func newCustomer(t testing.TB, l *ledger.Ledger, id, credit string) ledger.Customer {
	t.Helper()
	c, _, err := l.CreateCustomer(ctx, ledger.CustomerInput{ID: id}, ledger.Once{})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.LinkCustomer(ctx, c.Ref, "cus_"+id, "", true); err != nil {
		t.Fatal(err)
	}
	if credit != "" {
		grant(t, l, ledger.GrantInput{Customer: id, Amount: dec(t, credit), Kind: "purchased", Priority: 50})
	}
	return c
}

func grant(t testing.TB, l *ledger.Ledger, in ledger.GrantInput) ledger.Grant {
	t.Helper()
	g, _, err := l.Grant(ctx, in, ledger.Once{})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func wallet(t testing.TB, l *ledger.Ledger, customer string) ledger.Wallet {
	t.Helper()
	ref, err := l.Resolve(ctx, customer)
	if err != nil {
		t.Fatal(err)
	}
	wallets, err := l.Wallets(ctx, ref)
	if err != nil || len(wallets) == 0 {
		t.Fatalf("wallets of %s: %v %v", customer, wallets, err)
	}
	return wallets[0]
}

func available(t testing.TB, l *ledger.Ledger, customer string) string {
	t.Helper()
	w := wallet(t, l, customer)
	return ledger.FormatSteps(w.Available(), w.Scale)
}

func debit(t testing.TB, l *ledger.Ledger, customer, amount, key string) (ledger.Debit, bool, error) {
	t.Helper()
	return l.Debit(ctx, ledger.DebitInput{Customer: customer, Amount: dec(t, amount),
		Once: ledger.Once{Key: key, Request: ledger.Fingerprint(customer, amount)}})
}

// A debit that can't be paid, or can't be understood, books nothing.
func TestDebitRefusals(t *testing.T) {
	t.Parallel()
	l := ledgertest.New(t, ledger.Options{})
	newCustomer(t, l, "acme", "10")
	for _, tt := range []struct {
		name string
		in   ledger.DebitInput
		want ledger.Code
	}{
		{"more than there is", ledger.DebitInput{Customer: "acme", Amount: dec(t, "10.000001")}, ledger.CodeInsufficient},
		{"far more than there is", ledger.DebitInput{Customer: "acme", Amount: dec(t, "9000000000000")}, ledger.CodeInsufficient},
		{"more than can be counted", ledger.DebitInput{Customer: "acme", Amount: dec(t, "9000000000000000")}, ledger.CodeInvalid},
		{"more decimals than the scale", ledger.DebitInput{Customer: "acme", Amount: dec(t, "0.0000001")}, ledger.CodeInvalid},
		{"nothing", ledger.DebitInput{Customer: "acme", Amount: dec(t, "0")}, ledger.CodeInvalid},
		{"less than nothing", ledger.DebitInput{Customer: "acme", Amount: dec(t, "-1")}, ledger.CodeInvalid},
		{"nobody", ledger.DebitInput{Customer: "nobody", Amount: dec(t, "1")}, ledger.CodeNotFound},
		{"nobody at Stripe", ledger.DebitInput{Customer: "cus_nobody", Amount: dec(t, "1")}, ledger.CodeNotFound},
		{"an asset that is none", ledger.DebitInput{Customer: "acme", Asset: "doge", Amount: dec(t, "1")}, ledger.CodeAssetUnknown},
		{"an asset without a wallet", ledger.DebitInput{Customer: "acme", Asset: "eur", Amount: dec(t, "1")}, ledger.CodeNotFound},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, _, err := l.Debit(ctx, tt.in); !ledger.IsCode(err, tt.want) {
				t.Errorf("got %v, want %s", err, tt.want)
			}
		})
	}
	if got := available(t, l, "acme"); got != "10" {
		t.Errorf("available %s after refusals, want 10", got)
	}
}

// Grants burn by priority, then soonest expiry, then kind, then age; one debit may take from several.
func TestDebitBurnOrder(t *testing.T) {
	t.Parallel()
	l := ledgertest.New(t, ledger.Options{})
	newCustomer(t, l, "acme", "")
	soon, later := time.Now().Add(time.Hour), time.Now().Add(48*time.Hour)
	give := func(kind string, priority int16, expires *time.Time) string {
		return grant(t, l, ledger.GrantInput{Customer: "acme", Amount: dec(t, "1"), Kind: kind, Priority: priority, ExpiresAt: expires}).ID
	}
	oldPurchased := give("purchased", 50, nil)
	newPurchased := give("purchased", 50, nil)
	promo := give("promotional", 50, nil)
	plan := give("plan", 50, nil)
	expiresLater := give("purchased", 50, &later)
	expiresSoon := give("purchased", 50, &soon)
	first := give("purchased", 10, nil)
	want := []string{first, expiresSoon, expiresLater, plan, promo, oldPurchased, newPurchased}

	d, _, err := l.Debit(ctx, ledger.DebitInput{Customer: "acme", Amount: dec(t, "6.5")})
	if err != nil {
		t.Fatal(err)
	}
	if len(d.Parts) != len(want) {
		t.Fatalf("parts %v, want %v", d.Parts, want)
	}
	for i, p := range d.Parts {
		if p.Grant != want[i] {
			t.Errorf("part %d is of %s, want %s", i, p.Grant, want[i])
		}
	}
	if last := d.Parts[6].Amount; last != 500_000 {
		t.Errorf("the last part is %d steps, want 500000", last)
	}
}

// 200 goroutines on one wallet spend exactly what is there, through two ledgers on one database.
func TestDebitsSpendExactlyWhatIsThere(t *testing.T) {
	t.Parallel()
	url := ledgertest.URL(t)
	replicas := []*ledger.Ledger{ledgertest.New(t, ledger.Options{URL: url}), ledgertest.New(t, ledger.Options{URL: url})}
	newCustomer(t, replicas[0], "acme", "30")
	grant(t, replicas[0], ledger.GrantInput{Customer: "acme", Amount: dec(t, "7.5"), Kind: "promotional", Priority: 50})
	var wg sync.WaitGroup
	var mu sync.Mutex
	passed := 0
	for i := range 200 {
		wg.Go(func() {
			_, _, err := debit(t, replicas[i%2], "acme", "0.5", fmt.Sprint("k", i))
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				passed++
			} else if !ledger.IsCode(err, ledger.CodeInsufficient) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if passed != 75 {
		t.Errorf("%d debits of 0.5 passed on 37.5", passed)
	}
	if got := available(t, replicas[0], "acme"); got != "0" {
		t.Errorf("available %s, want 0", got)
	}
}

// 50 senders of one key book once, and all get the same answer; another request under it is refused.
func TestDebitKeyBooksOnce(t *testing.T) {
	t.Parallel()
	url := ledgertest.URL(t)
	replicas := []*ledger.Ledger{ledgertest.New(t, ledger.Options{URL: url}), ledgertest.New(t, ledger.Options{URL: url})}
	newCustomer(t, replicas[0], "acme", "30")
	newCustomer(t, replicas[0], "other", "30")
	var wg sync.WaitGroup
	answers := make([]string, 50)
	var fresh sync.Map
	for i := range answers {
		wg.Go(func() {
			d, replayed, err := debit(t, replicas[i%2], "acme", "1", "same")
			if err != nil {
				t.Error(err)
			}
			if !replayed {
				fresh.Store(i, true)
			}
			answers[i] = fmt.Sprintf("%+v", d)
		})
	}
	wg.Wait()
	n := 0
	fresh.Range(func(any, any) bool { n++; return true })
	if n != 1 {
		t.Errorf("%d senders were told that theirs was first", n)
	}
	for i := range answers {
		if answers[i] != answers[0] {
			t.Fatalf("answers differ:\n%s\n%s", answers[0], answers[i])
		}
	}
	if got := available(t, replicas[0], "acme"); got != "29" {
		t.Errorf("available %s, want 29", got)
	}
	for _, customer := range []string{"acme", "other"} {
		if _, _, err := debit(t, replicas[0], customer, "2", "same"); !ledger.IsCode(err, ledger.CodeKeyReused) {
			t.Errorf("another request for %s under the key: %v", customer, err)
		}
	}
	if got := available(t, replicas[0], "other"); got != "30" {
		t.Errorf("other has %s, want 30", got)
	}
}

// A debit is found by its id alone among all that its wallet has: one in a million of them has an id that could be its
// own but for the moment. One that was booked before ids told is found as well.
func TestDebitIsFoundByItsID(t *testing.T) {
	t.Parallel()
	l := ledgertest.New(t, ledger.Options{})
	newCustomer(t, l, "acme", "")
	grant(t, l, ledger.GrantInput{Customer: "acme", Amount: dec(t, "10")})
	d, _, err := debit(t, l, "acme", "1", "")
	if err != nil {
		t.Fatal(err)
	}
	exec := func(query string, args ...any) {
		t.Helper()
		if _, err := l.DB().ExecContext(ctx, query, args...); err != nil {
			t.Fatal(err)
		}
	}
	old, late := "ent_06f3n2m7c0000000008c", "ent_06g0000000"+d.ID[len("deb_06g0000000"):]
	exec(`insert into entries (bucket, wallet_id, seq, id, type, amount, balance_after, parts, seal, created_at)
		select bucket, wallet_id, seq + n, v.id, type, amount, balance_after, parts, seal, created_at
		from entries e, (values (1::bigint, $2), (2097152, $3)) v(n, id) where e.id = $1`, "ent_"+d.ID[4:], old[:22]+d.ID[len(d.ID)-2:], late)
	exec(`update wallets set seq = seq + 3 << 20 where id = $1`, d.Wallet)
	for _, id := range []string{d.ID, "deb_" + old[4:22] + d.ID[len(d.ID)-2:], "deb_" + late[4:]} {
		if found, err := l.DebitByID(ctx, id); err != nil || found.ID != id {
			t.Errorf("looked for %s and found %s, %v", id, found.ID, err)
		}
	}
	other := "0" // at its place in the moment
	if d.ID[10:11] == other {
		other = "1"
	}
	for _, id := range []string{d.ID[:len(d.ID)-11] + "z" + d.ID[len(d.ID)-10:], d.ID[:10] + other + d.ID[11:], d.ID[:len(d.ID)-1], "deb_"} {
		if found, err := l.DebitByID(ctx, id); !ledger.IsCode(err, ledger.CodeNotFound) {
			t.Errorf("looked for %s and found %s, %v", id, found.ID, err)
		}
	}
	exec(`delete from entries where wallet_id = $1 and seq > 2`, d.Wallet)
	exec(`update wallets set seq = 2 where id = $1`, d.Wallet)
}

// A refused debit does not use its key up.
func TestRefusedDebitKeepsItsKey(t *testing.T) {
	t.Parallel()
	l := ledgertest.New(t, ledger.Options{})
	newCustomer(t, l, "acme", "")
	if _, _, err := debit(t, l, "acme", "5", "k"); !ledger.IsCode(err, ledger.CodeInsufficient) {
		t.Fatal(err)
	}
	grant(t, l, ledger.GrantInput{Customer: "acme", Amount: dec(t, "5"), Kind: "purchased"})
	if _, replayed, err := debit(t, l, "acme", "5", "k"); err != nil || replayed {
		t.Fatalf("replayed %v, %v", replayed, err)
	}
}

// Credit begins and expires in its instant, whether or not a sweep has run.
func TestCreditBeginsAndExpiresInItsInstant(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	now := time.Now()
	l := ledgertest.New(t, ledger.Options{Now: func() time.Time { mu.Lock(); defer mu.Unlock(); return now }})
	newCustomer(t, l, "acme", "")
	begins, ends := now.Add(time.Hour), now.Add(2*time.Hour)
	g := grant(t, l, ledger.GrantInput{Customer: "acme", Amount: dec(t, "5"), EffectiveAt: &begins, ExpiresAt: &ends})
	step := func(d time.Duration) { mu.Lock(); now = now.Add(d); mu.Unlock() }
	if _, _, err := debit(t, l, "acme", "1", ""); !ledger.IsCode(err, ledger.CodeInsufficient) {
		t.Errorf("before it began: %v", err)
	}
	step(time.Hour)
	if _, _, err := debit(t, l, "acme", "1", ""); err != nil {
		t.Errorf("once it began: %v", err)
	}
	step(time.Hour)
	if _, _, err := debit(t, l, "acme", "1", ""); !ledger.IsCode(err, ledger.CodeInsufficient) {
		t.Errorf("in the instant it expired: %v", err)
	}
	if got := available(t, l, "acme"); got != "0" {
		t.Errorf("available %s after expiry", got)
	}
	if g, _ = l.GrantByID(ctx, g.ID); g.Status != "expired" || g.Remaining != 0 {
		t.Errorf("grant is %s with %d left", g.Status, g.Remaining)
	}
}

// A key that another kind of call used is refused for usage, also by a process that has never seen it.
func TestKeyOfAnotherCall(t *testing.T) {
	t.Parallel()
	url := ledgertest.URL(t)
	l, fresh := ledgertest.New(t, ledger.Options{URL: url}), ledgertest.New(t, ledger.Options{URL: url})
	newCustomer(t, l, "acme", "10")
	for _, key := range []string{"", "warm"} { // the second finds the wallet in memory
		if _, _, err := debit(t, fresh, "acme", "1", key); err != nil {
			t.Fatal(err)
		}
	}
	in := ledger.GrantInput{Customer: "acme", Amount: dec(t, "1")}
	if _, _, err := l.Grant(ctx, in, ledger.Once{Key: "k", Request: 1}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, _, err := debit(t, fresh, "acme", "1", "k"); !ledger.IsCode(err, ledger.CodeKeyReused) {
			t.Errorf("usage under a grant's key: %v", err)
		}
	}
	if _, _, err := debit(t, l, "acme", "1", "d"); err != nil {
		t.Fatal(err)
	}
	if _, _, err := fresh.Grant(ctx, in, ledger.Once{Key: "d", Request: 1}); !ledger.IsCode(err, ledger.CodeKeyReused) {
		t.Errorf("a grant under a debit's key: %v", err)
	}
}

// Which wallet pays is a rule: of those that spend, scope usage before scope all, the first that has the credit,
// and only then one whose overdraft covers it. A frozen one is passed over, and one debit is paid by one wallet.
func TestWhichWalletPays(t *testing.T) {
	t.Parallel()
	l := ledgertest.New(t, ledger.Options{})
	newCustomer(t, l, "acme", "10")
	all := wallet(t, l, "acme").ID
	usage, _, err := l.CreateWallet(ctx, ledger.WalletInput{Customer: "acme", Asset: "usd", Scope: "usage", Overdraft: dec(t, "1")}, ledger.Once{})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := l.CreateWallet(ctx, ledger.WalletInput{Customer: "acme", Asset: "usd", Scope: "invoices", Overdraft: dec(t, "100")}, ledger.Once{}); err != nil {
		t.Fatal(err)
	}
	pays := func(amount, want string) {
		t.Helper()
		d, _, err := debit(t, l, "acme", amount, "")
		if want == "" {
			if !ledger.IsCode(err, ledger.CodeInsufficient) {
				t.Errorf("%s: %v", amount, err)
			}
			return
		}
		if err != nil || d.Wallet != want {
			t.Errorf("%s was paid by %s, want %s: %v", amount, d.Wallet, want, err)
		}
	}
	pays("11.5", "")
	pays("9.5", all)       // the usage wallet has nothing but an overdraft
	pays("0.75", usage.ID) // neither has it, and the overdraft covers it
	pays("0.5", all)
	pays("0.25", usage.ID)
	pays("0.01", "")
	if _, err := l.ChangeWallet(ctx, usage.ID, ledger.WalletChange{Status: new("frozen"), Overdraft: decp(t, "50")}); err != nil {
		t.Fatal(err)
	}
	pays("0.01", "")
	grant(t, l, ledger.GrantInput{Customer: "acme", Amount: dec(t, "2")})
	pays("2", all)
}
