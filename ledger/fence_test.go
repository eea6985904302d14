package ledger_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"lockstep/ledger"
	"lockstep/ledger/ledgertest"
)

// What one process remembers of a wallet never outlives what another does to it: the next debit sees it.
func TestMemoryNoticesOtherWriters(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		other func(t *testing.T, l *ledger.Ledger, c ledger.Customer, g ledger.Grant)
		want  ledger.Code // "" is that the debit of 1 is booked
		after string
	}{
		"nothing": {func(*testing.T, *ledger.Ledger, ledger.Customer, ledger.Grant) {}, "", "8"},
		"spends": {func(t *testing.T, l *ledger.Ledger, _ ledger.Customer, _ ledger.Grant) {
			if _, _, err := debit(t, l, "acme", "8.5", ""); err != nil {
				t.Error(err)
			}
		}, ledger.CodeInsufficient, "0.5"},
		"gives credit that burns first": {func(t *testing.T, l *ledger.Ledger, _ ledger.Customer, _ ledger.Grant) {
			grant(t, l, ledger.GrantInput{Customer: "acme", Amount: dec(t, "5"), Priority: 1})
		}, "", "13"},
		"voids the grant": {func(t *testing.T, l *ledger.Ledger, _ ledger.Customer, g ledger.Grant) {
			if _, _, err := l.VoidGrant(ctx, g.ID, "", ledger.Once{}); err != nil {
				t.Error(err)
			}
		}, ledger.CodeInsufficient, "0"},
		"arms a rule": {func(t *testing.T, l *ledger.Ledger, _ ledger.Customer, _ ledger.Grant) {
			in := rule(t, 0)
			in.Threshold = decp(t, "8.5")
			putRule(t, l, "acme", in)
		}, "", "8"},
		"makes a wallet that the debit could mean": {func(t *testing.T, l *ledger.Ledger, _ ledger.Customer, _ ledger.Grant) {
			if _, err := l.PutAsset(ctx, ledger.AssetInput{Code: "gold"}); err != nil {
				t.Error(err)
			}
			if _, _, err := l.CreateWallet(ctx, ledger.WalletInput{Customer: "acme", Asset: "gold"}, ledger.Once{}); err != nil {
				t.Error(err)
			}
		}, ledger.CodeMissing, "9"},
		"hears that the customer was deleted": {func(t *testing.T, l *ledger.Ledger, c ledger.Customer, _ ledger.Grant) {
			if err := l.CustomerDeleted(ctx, c.Ref); err != nil {
				t.Error(err)
			}
		}, ledger.CodeFrozen, "9"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := ledgertest.URL(t)
			l, other := ledgertest.New(t, ledger.Options{URL: url}), ledgertest.New(t, ledger.Options{URL: url})
			c := newCustomer(t, l, "acme", "")
			g := grant(t, l, ledger.GrantInput{Customer: "acme", Amount: dec(t, "10")})
			if _, _, err := debit(t, l, "acme", "1", ""); err != nil { // from here on it is remembered
				t.Fatal(err)
			}
			tt.other(t, other, c, g)
			_, _, err := debit(t, l, "acme", "1", "")
			if tt.want == "" && err != nil || tt.want != "" && !ledger.IsCode(err, tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
			if got := available(t, l, "acme"); got != tt.after {
				t.Errorf("available %s, want %s", got, tt.after)
			}
			if n := len(topups(t, l, "acme")); (name == "arms a rule") != (n == 1) {
				t.Errorf("%d top-ups", n)
			}
		})
	}
}

// Expiry ends remembered credit in its instant too.
func TestMemoryNoticesExpiry(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	now := time.Now()
	l := ledgertest.New(t, ledger.Options{Now: func() time.Time { mu.Lock(); defer mu.Unlock(); return now }})
	newCustomer(t, l, "acme", "")
	ends := now.Add(time.Hour)
	grant(t, l, ledger.GrantInput{Customer: "acme", Amount: dec(t, "10"), ExpiresAt: &ends})
	if _, _, err := debit(t, l, "acme", "1", ""); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	now = ends
	mu.Unlock()
	if _, _, err := debit(t, l, "acme", "1", ""); !ledger.IsCode(err, ledger.CodeInsufficient) {
		t.Errorf("in the instant of expiry: %v", err)
	}
}

// Random verbs from many callers of two processes leave books in which every invariant holds, and every
// acknowledged debit once.
func TestRandomVerbsKeepTheBooks(t *testing.T) {
	t.Parallel()
	url := ledgertest.URL(t)
	replicas := []*ledger.Ledger{ledgertest.New(t, ledger.Options{URL: url}), ledgertest.New(t, ledger.Options{URL: url})}
	const customers = 5
	for i := range customers {
		id := fmt.Sprint("c", i)
		newCustomer(t, replicas[0], id, "50")
		in := rule(t, 100_000)
		in.Settlement = []string{"on_payment", "immediate"}[i%2]
		putRule(t, replicas[0], id, in)
	}
	var mu sync.Mutex
	booked := make(map[string]int) // per customer
	var wg sync.WaitGroup
	for caller := range 24 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(caller), 42))
			for n := range 60 {
				l, id := replicas[r.IntN(2)], fmt.Sprint("c", r.IntN(customers))
				switch verb := r.IntN(20); {
				case verb == 0:
					grant(t, l, ledger.GrantInput{Customer: id, Amount: dec(t, "3"), Priority: int16(r.IntN(100))})
				case verb == 1:
					g := grant(t, l, ledger.GrantInput{Customer: id, Amount: dec(t, "2")})
					if _, _, err := l.VoidGrant(ctx, g.ID, "", ledger.Once{}); err != nil && !ledger.IsCode(err, ledger.CodeState) {
						t.Error(err)
					}
				case verb == 2:
					for _, top := range topups(t, l, id) {
						if top.InFlight() {
							settle(t, l, ledger.Outcome{Topup: top.ID, Status: []string{"succeeded", "failed", "processing"}[r.IntN(3)], PaymentIntent: "pi_" + top.ID})
						}
					}
				case verb == 3:
					if _, err := l.ResumeRule(ctx, wallet(t, l, id).ID); err != nil {
						t.Error(err)
					}
				default:
					key := fmt.Sprintf("k%d-%d", caller, n)
					for range 1 + r.IntN(2) { // now and then twice
						_, replayed, err := debit(t, replicas[r.IntN(2)], id, "0.1", key)
						if err != nil && !ledger.IsCode(err, ledger.CodeInsufficient) {
							t.Error(err)
						}
						if err == nil && !replayed {
							mu.Lock()
							booked[id]++
							mu.Unlock()
						}
					}
				}
			}
		})
	}
	wg.Wait()
	for id, n := range booked {
		w := wallet(t, replicas[0], id)
		var entries int
		if err := replicas[0].DB().Get(&entries, `select count(*) from entries where wallet_id = $1 and type = 'debit'`, w.ID); err != nil {
			t.Fatal(err)
		}
		if entries != n {
			t.Errorf("%s: %d debits in the books, %d acknowledged", id, entries, n)
		}
	}
}

// What a lane remembers survives no failure to write it: after its connections were cut in the middle of
// traffic, every acknowledged debit is in the books, and none that was not.
func TestMemoryAfterCutConnections(t *testing.T) {
	t.Parallel()
	l := ledgertest.New(t, ledger.Options{})
	newCustomer(t, l, "acme", "1000")
	var mu sync.Mutex
	acknowledged := map[string]bool{}
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for caller := range 8 {
		wg.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				key := fmt.Sprintf("k%d-%d", caller, n)
				if _, _, err := debit(t, l, "acme", "0.01", key); err == nil {
					mu.Lock()
					acknowledged[key] = true
					mu.Unlock()
				}
			}
		})
	}
	enough := func() bool { mu.Lock(); defer mu.Unlock(); return len(acknowledged) >= 300 }
	for end, cuts := time.Now().Add(30*time.Second), time.Duration(0); (cuts < 10 || !enough()) && time.Now().Before(end); cuts++ {
		time.Sleep(100 * time.Millisecond * (1 + cuts/10)) // on a slow machine, to connect takes longer than that
		if _, err := l.DB().Exec(`select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()`); err != nil {
			t.Log(err) // this one was cut too
		}
	}
	close(stop)
	wg.Wait()
	if len(acknowledged) < 300 {
		t.Fatalf("only %d debits were acknowledged", len(acknowledged))
	}
	var booked []string
	if err := l.DB().Select(&booked, `select key from entries where type = 'debit'`); err != nil {
		if err = l.DB().Select(&booked, `select key from entries where type = 'debit'`); err != nil { // the pool may hold a cut connection
			t.Fatal(err)
		}
	}
	is := make(map[string]bool, len(booked))
	for _, key := range booked {
		is[key] = true
	}
	for key := range acknowledged {
		if !is[key] {
			t.Errorf("%s was acknowledged and is not in the books", key)
		}
	}
	// One that was not acknowledged may have been booked all the same; asked again, it says so, and is booked once.
	for _, key := range booked[:100] {
		if _, replayed, err := debit(t, l, "acme", "0.01", key); err != nil || !replayed {
			t.Fatalf("%s again: replayed %v, %v", key, replayed, err)
		}
	}
}

// A customer that a process has not seen before is read without a lock, and the debit written behind the fence.
func TestUnknownCustomerGoesTheShortWay(t *testing.T) {
	t.Parallel()
	url := ledgertest.URL(t)
	first := ledgertest.New(t, ledger.Options{URL: url})
	newCustomer(t, first, "acme", "10")
	var sooner []string // more grants than are read at first, which burn before that of the ten
	for _, priority := range []int16{30, 10, 20, 40, 45} {
		sooner = append(sooner, grant(t, first, ledger.GrantInput{Customer: "acme", Amount: dec(t, "1"), Kind: "promotional", Priority: priority}).ID)
	}
	if _, _, err := first.CreateHold(ctx, ledger.HoldInput{Customer: "acme", Amount: dec(t, "0.5"), ExpiresIn: time.Hour}, ledger.Once{}); err != nil { // of the one with priority 10
		t.Fatal(err)
	}
	newCustomer(t, first, "both", "5")
	if _, err := first.PutAsset(ctx, ledger.AssetInput{Code: "gold"}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := first.CreateWallet(ctx, ledger.WalletInput{Customer: "both", Asset: "gold"}, ledger.Once{}); err != nil {
		t.Fatal(err)
	}
	w := tap(t, url)
	l := ledgertest.New(t, ledger.Options{URL: w.url})
	d, _, err := debit(t, l, "acme", "1.75", "one")
	if err != nil {
		t.Fatal(err)
	}
	want := ledger.Parts{{Grant: sooner[1], Amount: 500_000}, {Grant: sooner[2], Amount: 1_000_000}, {Grant: sooner[0], Amount: 250_000}}
	if !slices.Equal(d.Parts, want) {
		t.Errorf("paid by %v, want %v", d.Parts, want)
	}
	for _, s := range w.take() {
		if strings.Contains(s, "for update") || strings.HasPrefix(s, "begin") {
			t.Errorf("the debit went the long way: %s", s)
		}
	}
	if got := available(t, l, "acme"); got != "12.75" {
		t.Errorf("%s available, want 12.75", got)
	}
	if _, _, err := debit(t, l, "acme", "12.75", "rest"); err != nil { // by all six
		t.Errorf("the rest: %v", err)
	}
	if _, _, err := debit(t, l, "both", "1", "either"); !ledger.IsCode(err, ledger.CodeMissing) { // a wallet without a grant is one all the same
		t.Errorf("from either of two wallets: %v", err)
	}
}

// Writes need no connection beside that of their transaction: those who hold all there are must not wait for each other.
func TestOneConnectionIsEnough(t *testing.T) {
	t.Parallel()
	l := ledgertest.New(t, ledger.Options{Connections: 1})
	newCustomer(t, l, "acme", "")
	done := make(chan struct{})
	go func() {
		defer close(done)
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() { grant(t, l, ledger.GrantInput{Customer: "acme", Amount: dec(t, "1")}) })
		}
		wg.Wait()
	}()
	select {
	case <-done:
	case <-time.After(30 * time.Second):
		t.Fatal("the writes wait for each other")
	}
	if got := available(t, l, "acme"); got != "4" {
		t.Errorf("%s available, want 4", got)
	}
}

// A key that another kind of call has used between a debit's look at the keys and its write is found when the debit looks
// again: it is refused as used, not as a failure of ours.
func TestKeyUsedMeanwhile(t *testing.T) {
	t.Parallel()
	url := ledgertest.URL(t)
	l, other := ledgertest.New(t, ledger.Options{URL: url}), ledgertest.New(t, ledger.Options{URL: url})
	c := newCustomer(t, l, "acme", "1")
	if _, err := l.ChangeWallet(ctx, wallet(t, l, "acme").ID, ledger.WalletChange{Overdraft: decp(t, "10")}); err != nil { // debits into debt go the long way
		t.Fatal(err)
	}
	tx, err := l.DB().Begin()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback() }()
	if _, err := tx.Exec(`select from wallets where customer_id = 'acme' for update`); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		_, _, err := debit(t, l, "acme", "5", "same")
		done <- err
	}()
	eventually(t, "the debit waits for the wallet", func() (waits bool) {
		if err := other.DB().Get(&waits, `select exists (select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock')`); err != nil {
			t.Fatal(err)
		}
		return waits
	})
	if _, _, err := other.KeepAnswer(ctx, ledger.Once{Bucket: c.Bucket, Key: "same", Request: 1}, 201, "{}"); err != nil {
		t.Fatal(err)
	}
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; !ledger.IsCode(err, ledger.CodeKeyReused) {
		t.Error(err)
	}
	if got := available(t, l, "acme"); got != "1" {
		t.Errorf("available %s, want 1", got)
	}
}
