package ledger_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"lockstep/ledger"
	"lockstep/ledger/ledgertest"
)

// A session is its key's and its person's: it ends with its time, with an idle hour, when it is signed out, and when its
// key is revoked or replaced. What a page fetches by itself keeps nobody signed in.
func TestSessions(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	now := time.Now()
	l := ledgertest.New(t, ledger.Options{Now: func() time.Time { mu.Lock(); defer mu.Unlock(); return now }})
	pass := func(d time.Duration) { mu.Lock(); now = now.Add(d); mu.Unlock() }
	k, key, err := l.CreateKey(ctx, "ops", []string{"admin"})
	if err != nil {
		t.Fatal(err)
	}
	_, weak, err := l.CreateKey(ctx, "reader", []string{"read", "write", "usage"})
	if err != nil {
		t.Fatal(err)
	}
	for name, secret := range map[string]string{"a key without admin": weak, "no key": "", "another": key + "x"} {
		if _, found, err := l.SignIn(ctx, secret, "Eve"); found || err != nil {
			t.Errorf("%s signs in: %v", name, err)
		}
	}
	in := func() string {
		t.Helper()
		secret, found, err := l.SignIn(ctx, key, "Anna")
		if err != nil || !found {
			t.Fatalf("%v %v", found, err)
		}
		return secret
	}
	there := func(what, secret string, here, want bool) {
		t.Helper()
		o, found, err := l.OperatorOf(ctx, secret, here)
		if err != nil || found != want || found && (o.Name != "Anna" || o.KeyID != k.ID) {
			t.Errorf("%s: %v %+v %v", what, found, o, err)
		}
	}
	first := in()
	there("at once", first, true, true)
	there("with the key itself", key, true, false)
	for range 3 { // a page that fetches by itself does not count
		pass(ledger.IdleLife / 4)
		there("while the page is open", first, false, true)
	}
	pass(ledger.IdleLife/4 + time.Second)
	there("after an idle hour", first, false, false)
	second := in()
	for range 12 * 4 { // busy all day
		there("in a day's work", second, true, true)
		pass(15 * time.Minute)
	}
	there("after twelve hours", second, true, false)
	third, fourth := in(), in()
	if err := l.SignOut(ctx, third); err != nil {
		t.Fatal(err)
	}
	there("signed out", third, true, false)
	there("another's session", fourth, true, true)
	if err := l.RevokeKey(ctx, k.ID); err != nil {
		t.Fatal(err)
	}
	there("its key revoked", fourth, true, false)
	if err := l.SetFirstKey(ctx, "lsk_of_the_environment"); err != nil {
		t.Fatal(err)
	}
	fifth, _, err := l.SignIn(ctx, "lsk_of_the_environment", "Anna")
	if err != nil {
		t.Fatal(err)
	}
	if err := l.SetFirstKey(ctx, "lsk_another_of_the_environment"); err != nil {
		t.Fatal(err)
	}
	there("its key replaced", fifth, true, false)
	var stored int
	if err := l.DB().Get(&stored, `select count(*) from console_sessions where encode(hash, 'escape') like '%' || $1 || '%'`, fourth); err != nil || stored != 0 {
		t.Errorf("the secret itself is kept: %v", err)
	}
}

// An act is begun once, however many senders there are, and gets its outcome once; the same form for something else is refused.
func TestActs(t *testing.T) {
	t.Parallel()
	l := ledgertest.New(t, ledger.Options{})
	a := ledger.Act{ID: l.NewActID(), Operator: "Anna", KeyID: "key_1", KeyName: "ops", Action: "grant", Customer: "acme", Object: "wal_1", Reason: "because", Request: 7, Shown: `{"says":["x"]}`}
	var wg sync.WaitGroup
	var mu sync.Mutex
	firsts := 0
	for range 8 {
		wg.Go(func() {
			_, first, err := l.BeginAct(ctx, a)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				t.Error(err)
			}
			if first {
				firsts++
			}
		})
	}
	wg.Wait()
	if firsts != 1 {
		t.Errorf("begun %d times", firsts)
	}
	other := a
	other.Request = 8
	if _, _, err := l.BeginAct(ctx, other); !ledger.IsCode(err, ledger.CodeState) {
		t.Errorf("another request: %v", err)
	}
	other.ID = "act_mine"
	if _, _, err := l.BeginAct(ctx, other); !ledger.IsCode(err, ledger.CodeInvalid) {
		t.Errorf("an id of the caller's own: %v", err)
	}
	if unknown, err := l.Acts(ctx, ledger.ActFilter{Unknown: true}, "", 10); err != nil || len(unknown) != 1 || unknown[0].Shown != a.Shown || unknown[0].Reason != "because" {
		t.Errorf("%+v %v", unknown, err)
	}
	for _, outcome := range []string{"done", "refused"} {
		if got, err := l.EndAct(ctx, a.ID, outcome, outcome, "grt_1"); err != nil || got.Outcome != "done" || got.Said != "done" || got.EndedAt == nil {
			t.Errorf("%+v %v", got, err)
		}
	}
	// A list goes on where the page before ended, by each filter.
	for i := range 25 {
		b := a
		b.ID, b.Action, b.Operator = l.NewActID(), []string{"freeze", "grant"}[i%2], []string{"Anna", "Bo"}[i%2]
		if _, _, err := l.BeginAct(ctx, b); err != nil {
			t.Fatal(err)
		}
	}
	for f, want := range map[ledger.ActFilter]int{{}: 26, {Action: "freeze"}: 13, {Operator: "bo"}: 12, {Customer: "acme"}: 26, {Customer: "nobody"}: 0, {Unknown: true}: 25} {
		var seen []string
		for after := ""; ; {
			page, err := l.Acts(ctx, f, after, 7)
			if err != nil {
				t.Fatal(err)
			}
			for _, a := range page {
				seen = append(seen, a.ID)
			}
			if len(page) < 7 {
				break
			}
			after = page[6].ID
		}
		slices.Sort(seen)
		if len(slices.Compact(seen)) != want {
			t.Errorf("%+v: %d, want %d", f, len(seen), want)
		}
	}
}

// What was shown before an act is kept for a day.
func TestPreviews(t *testing.T) {
	t.Parallel()
	now := time.Now()
	l := ledgertest.New(t, ledger.Options{Now: func() time.Time { return now }})
	p := ledger.Preview{ID: l.NewActID(), Request: 1, Shown: "{}"}
	for _, shown := range []string{"{}", `{"says":["y"]}`} {
		p.Shown = shown
		if err := l.SavePreview(ctx, p); err != nil {
			t.Fatal(err)
		}
		if got, found, err := l.Previewed(ctx, p.ID); err != nil || !found || got.Shown != shown {
			t.Errorf("%+v %v %v", got, found, err)
		}
	}
	if err := l.SavePreview(ctx, ledger.Preview{ID: "x"}); !ledger.IsCode(err, ledger.CodeInvalid) {
		t.Errorf("a form of somebody's own: %v", err)
	}
	now = now.Add(25 * time.Hour)
	if _, found, err := l.Previewed(ctx, p.ID); found || err != nil {
		t.Errorf("after a day: %v %v", found, err)
	}
}

// A rehearsal shows what the act then does, to the step, and leaves nothing behind.
func TestRehearse(t *testing.T) {
	t.Parallel()
	l := ledgertest.New(t, ledger.Options{})
	c := newCustomer(t, l, "acme", "10")
	gift := grant(t, l, ledger.GrantInput{Customer: "acme", Amount: dec(t, "3")})
	d, _, err := debit(t, l, "acme", "4", "")
	if err != nil {
		t.Fatal(err)
	}
	putRule(t, l, "acme", rule(t, 0))
	w := wallet(t, l, "acme")
	for _, act := range []struct {
		name string
		do   func(context.Context) error
	}{
		{"grant", func(ctx context.Context) error {
			_, _, err := l.Grant(ctx, ledger.GrantInput{Customer: "acme", Amount: dec(t, "2.5"), Kind: "purchased", Wallet: w.ID}, ledger.Once{})
			return err
		}},
		{"reverse", func(ctx context.Context) error {
			_, _, err := l.Reverse(ctx, d.ID, decp(t, "1.5"), "", ledger.Once{})
			return err
		}},
		{"pause", func(ctx context.Context) error { _, err := l.PauseRule(ctx, w.ID); return err }},
		{"void", func(ctx context.Context) error { _, _, err := l.VoidGrant(ctx, gift.ID, "", ledger.Once{}); return err }},
		{"debit", nil},
		{"resume, which buys", func(ctx context.Context) error { _, err := l.ResumeRule(ctx, w.ID); return err }},
		{"freeze", func(ctx context.Context) error {
			_, err := l.ChangeCustomer(ctx, c.Ref, ledger.CustomerChange{Status: new("frozen")})
			return err
		}},
	} {
		if act.name == "void" { // the debit has taken all of it
			gift = grant(t, l, ledger.GrantInput{Customer: "acme", Amount: dec(t, "3")})
		}
		before := state(t, l)
		var seen ledger.Rehearsal
		var err error
		if act.do != nil {
			seen, err = l.Rehearse(ctx, c.Ref, act.do)
		} else {
			_, seen, err = l.ForeseeDebit(ctx, "acme", "usd", dec(t, "9.5"))
		}
		if err != nil {
			t.Fatalf("%s: %v", act.name, err)
		}
		if got := state(t, l); got != before {
			t.Errorf("the rehearsal of %s changed the books:\n%s\n%s", act.name, before, got)
		}
		if act.do != nil {
			err = act.do(ctx)
		} else {
			_, _, err = debit(t, l, "acme", "9.5", "")
		}
		if err != nil {
			t.Fatalf("%s: %v", act.name, err)
		}
		is, after := wallet(t, l, "acme"), seen.After.Wallets[0]
		m, _, err := l.MirrorOf(ctx, c.Ref)
		if err != nil {
			t.Fatal(err)
		}
		if after.Balance() != is.Balance() && act.name != "debit" || after.Total != is.Total || after.Barred != is.Barred || seen.After.Stripe != m.Want {
			t.Errorf("%s: foreseen %+v, barred %v, in Stripe %d; it is %+v, %v, %d", act.name, after.Balance(), after.Barred, seen.After.Stripe, is.Balance(), is.Barred, m.Want)
		}
		if act.name == "resume, which buys" {
			top := seen.After.InFlight[w.ID]
			if booked := topups(t, l, "acme"); len(booked) != 1 || top.Charge != booked[0].Charge || top.Charge == 0 {
				t.Errorf("foreseen is a charge of %d, there are %+v", top.Charge, booked)
			}
		}
	}
	// A refusal is the act's own.
	if _, err := l.Rehearse(ctx, c.Ref, func(ctx context.Context) error { _, _, err := l.VoidGrant(ctx, gift.ID, "", ledger.Once{}); return err }); !ledger.IsCode(err, ledger.CodeState) {
		t.Errorf("voided again: %v", err)
	}
	if _, _, err := l.ForeseeDebit(ctx, "acme", "usd", dec(t, "1")); !ledger.IsCode(err, ledger.CodeFrozen) {
		t.Errorf("of a frozen customer: %v", err)
	}
}

// state is all that the books say, but for when.
func state(t *testing.T, l *ledger.Ledger) (all string) {
	t.Helper()
	for _, table := range []string{"customers", "wallets", "grants", "entries", "topups", "topup_rules", "answers", "events", "mirrors", "holds"} {
		var hash string
		if err := l.DB().Get(&hash, `select coalesce(md5(string_agg(r::text, '|' order by r::text)), '') from `+table+` r`); err != nil {
			t.Fatal(err)
		}
		all += fmt.Sprintf("%s %s\n", table, hash)
	}
	return all
}

// Customers are found by how their id, their Stripe customer, their e-mail address or their name begins, once each, a page
// at a time; what LIKE takes for more than itself is itself.
func TestSearchCustomers(t *testing.T) {
	t.Parallel()
	l := ledgertest.New(t, ledger.Options{})
	for i, c := range []ledger.CustomerInput{
		{ID: "acme", Email: "Zoe@example.com", Name: "ACME Inc"}, {ID: "acme_2", Email: "acme@example.com", Name: "Other"}, {ID: "acmex2", Name: "100% Wool"},
		{ID: "b", Name: "Ünal"}, {ID: "c", Email: "d@example.com"},
		{ID: "m1", Email: "same@example.com", Name: "same 2"}, {ID: "m2", Email: "same@example.com"}, {ID: "m3", Name: "Same 1"}, {ID: "same9", Email: "same@example.com"}, {ID: "m0", Name: "same 1"},
	} {
		made, _, err := l.CreateCustomer(ctx, c, ledger.Once{})
		if err == nil {
			err = l.LinkCustomer(ctx, made.Ref, fmt.Sprintf("cus_search_%d", i), "usd", true)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for q, want := range map[string]string{"acme": "acme acme_2 acmex2", "ACME": "acme_2 acme", "acme_": "acme_2", "zoe": "acme", "a": "acme acme_2 acmex2", "d": "c", "o": "acme_2", "100%": "acmex2", "%": "", "Ünal": "b",
		"cus_search_3": "b", "cus_search": "acme acme_2 acmex2 b c m1 m2 m3 same9 m0", "example": "", `\`: "", "D@EX": "c", "same": "same9 m1 m2 m0 m3", "S": "m1 m2 same9 m0 m3"} {
		var seen string
		for after := ""; ; {
			page, err := l.SearchCustomers(ctx, q, after, 2)
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range page {
				seen += c.ID + " "
			}
			if len(page) < 2 {
				break
			}
			after = page[1].ID
		}
		if want != "" {
			want += " "
		}
		if seen != want {
			t.Errorf("%q finds %q, want %q", q, seen, want)
		}
	}
}

// Entries of one type are found however far away they are, a stretch at a time; grants come in burn order.
func TestWalletLists(t *testing.T) {
	t.Parallel()
	l := ledgertest.New(t, ledger.Options{})
	newCustomer(t, l, "acme", "10")
	later, soon := l.Now().Add(48*time.Hour), l.Now().Add(24*time.Hour)
	b := grant(t, l, ledger.GrantInput{Customer: "acme", Amount: dec(t, "1"), ExpiresAt: &later, Priority: 50})
	a := grant(t, l, ledger.GrantInput{Customer: "acme", Amount: dec(t, "1"), ExpiresAt: &soon, Priority: 50})
	begins := grant(t, l, ledger.GrantInput{Customer: "acme", Amount: dec(t, "1"), EffectiveAt: &later, Priority: 50})
	for range 7 {
		if _, _, err := debit(t, l, "acme", "0.01", ""); err != nil {
			t.Fatal(err)
		}
	}
	h, _, err := l.CreateHold(ctx, ledger.HoldInput{Customer: "acme", Amount: dec(t, "1"), ExpiresIn: time.Hour}, ledger.Once{})
	if err != nil {
		t.Fatal(err)
	}
	w := wallet(t, l, "acme")
	burn, err := l.BurnOrder(ctx, &w, 10)
	if err != nil || len(burn) != 3 || burn[0].ID != a.ID || burn[1].ID != b.ID {
		t.Errorf("%+v %v", burn, err)
	}
	if other, err := l.OtherGrants(ctx, &w, 10); err != nil || len(other) != 1 || other[0].ID != begins.ID {
		t.Errorf("%+v %v", other, err)
	}
	if holds, err := l.OpenHolds(ctx, &w, 10); err != nil || len(holds) != 1 || holds[0].ID != h.ID {
		t.Errorf("%+v %v", holds, err)
	}
	for kind, want := range map[string]int{"": 11, "debit": 7, "grant": 3, "void": 0} {
		n, below := 0, int64(0)
		for {
			page, next, err := l.EntriesOfType(ctx, &w, kind, below, 4)
			if err != nil {
				t.Fatal(err)
			}
			n += len(page)
			if next == 0 {
				break
			}
			below = next
		}
		if n != want {
			t.Errorf("%d entries of type %q, want %d", n, kind, want)
		}
	}
	pulse, err := l.Pulse(ctx)
	if err != nil || pulse.Drifted != 0 || pulse.InFlight != 0 {
		t.Errorf("%+v %v", pulse, err)
	}
	out, err := l.Outstanding(ctx)
	if err != nil || len(out) != 1 || out[0].Total != "11930000" || out[0].Held != "1000000" {
		t.Errorf("%+v %v", out, err)
	}
	if tops, err := l.TopupsSince(ctx, l.Now().Add(-time.Hour)); err != nil || len(tops) != 0 {
		t.Errorf("%+v %v", tops, err)
	}
}
