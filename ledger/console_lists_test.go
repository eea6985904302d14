package ledger_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"lockstep/ledger"
	"lockstep/ledger/ledgertest"
)

func failIf(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// pages reads a list to its end, page by page, and answers the ids.
func pages[T any](t testing.TB, limit int, id func(*T) string, list func(after string, limit int) ([]T, error)) (ids []string) {
	t.Helper()
	after := ""
	for range 10_000 {
		page, err := list(after, limit)
		failIf(t, err)
		for i := range page {
			ids = append(ids, id(&page[i]))
		}
		if len(page) < limit {
			return ids
		}
		after = ids[len(ids)-1]
	}
	t.Fatal("the list has no end")
	return nil
}

// Top-ups are listed by any choice of status, trigger and customer, each once, newest first, whatever the page's size.
func TestTopupsAreListedByChoice(t *testing.T) {
	t.Parallel()
	clock := newStepClock()
	l := ledgertest.New(t, ledger.Options{Now: clock.now})
	refs := map[string]ledger.Ref{}
	type made struct{ id, customer, status, trigger string }
	var all []made
	for i := range 22 {
		id := fmt.Sprint("c", i%5)
		if _, ok := refs[id]; !ok {
			refs[id] = newCustomer(t, l, id, "").Ref
		}
		clock.step(time.Second)
		top, _, err := l.CreateTopup(ctx, ledger.TopupInput{Customer: id, Amount: dec(t, "20"), MinimumCharge: func(string) int64 { return 50 }}, ledger.Once{})
		failIf(t, err)
		status := []string{"succeeded", "failed", "canceled"}[i%3]
		o := ledger.Outcome{Topup: top.ID, Status: status}
		if status == "succeeded" {
			o.PaymentIntent, o.Received = fmt.Sprint("pi_", i), 2000
		}
		if status == "failed" {
			o.Code, o.Message = "card_declined", "declined"
		}
		settle(t, l, o)
		all = append(all, made{top.ID, id, status, "manual"})
	}
	refs["ruled"] = newCustomer(t, l, "ruled", "10").Ref
	putRule(t, l, "ruled", rule(t, 0))
	_, _, err := debit(t, l, "ruled", "8", "")
	failIf(t, err)
	tops, err := l.Topups(ctx, ledger.Ref{}, "", 1)
	failIf(t, err)
	if tops[0].Trigger != "auto" {
		t.Fatalf("the rule called for nothing: %+v", tops[0])
	}
	all = append(all, made{tops[0].ID, tops[0].Customer, tops[0].Status, "auto"})
	slices.Reverse(all)
	chosen := 0
	for _, customer := range []string{"", "c0", "ruled"} {
		for _, status := range append([]string{""}, ledger.TopupStatuses...) {
			for _, trigger := range []string{"", "manual", "auto"} {
				var want []string
				for _, m := range all {
					if (customer == "" || m.customer == customer) && (status == "" || m.status == status) && (trigger == "" || m.trigger == trigger) {
						want = append(want, m.id)
					}
				}
				chosen += len(want)
				for _, limit := range []int{2, 100} {
					got := pages(t, limit, func(top *ledger.Topup) string { return top.ID }, func(after string, limit int) ([]ledger.Topup, error) {
						return l.ListTopups(ctx, ledger.TopupFilter{Customer: refs[customer], Status: status, Trigger: trigger}, after, limit)
					})
					if !slices.Equal(got, want) {
						t.Errorf("%q %q %q by %d: %v, want %v", customer, status, trigger, limit, got, want)
					}
				}
			}
		}
	}
	if chosen < 3*len(all) {
		t.Errorf("the choices hold %d top-ups", chosen)
	}
	for _, f := range []ledger.TopupFilter{{Status: "gone"}, {Trigger: "it"}} {
		if _, err := l.ListTopups(ctx, f, "", 1); !ledger.IsCode(err, ledger.CodeInvalid) {
			t.Errorf("%+v: %v", f, err)
		}
	}
}

// A top-up's story has the grant that it bought, what went back of it, and what was told of it, of this one alone.
func TestTopupStory(t *testing.T) {
	t.Parallel()
	l := ledgertest.New(t, ledger.Options{Render: func(subject any) ([]byte, error) { // as the API does
		if top, ok := subject.(*ledger.Topup); ok {
			return json.Marshal(map[string]string{"id": top.ID})
		}
		return []byte("null"), nil
	}})
	c, topup := topped(t, l)
	settle(t, l, ledger.Outcome{Topup: topup, Status: "succeeded", PaymentIntent: "pi_topped", Received: 2000})
	failIf(t, l.ClawBack(ctx, c.Ref, ledger.Purchase{PaymentIntent: "pi_topped", Topup: topup, Received: 2000}, []ledger.MoneyBack{refund("re_1", 500, "succeeded")}))
	other, _, err := l.CreateTopup(ctx, ledger.TopupInput{Customer: "acme", Amount: dec(t, "30"), MinimumCharge: func(string) int64 { return 50 }}, ledger.Once{})
	failIf(t, err)
	settle(t, l, ledger.Outcome{Topup: other.ID, Status: "failed", Code: "card_declined", DeclineCode: "insufficient_funds", Message: "Your card has insufficient funds."})

	top, err := l.TopupByID(ctx, topup)
	failIf(t, err)
	s, err := l.TopupStory(ctx, &top)
	failIf(t, err)
	if s.Grant.ID != top.GrantID || s.Grant.Status != "confirmed" || s.SettledAt == nil || s.RunAt != nil {
		t.Errorf("the story of what was paid: %+v", s)
	}
	if len(s.Back) != 1 || s.Back[0].ID != "re_1" || s.Back[0].Steps != 5_000_000 || s.Back[0].Amount != 500 || s.Back[0].Entry == "" {
		t.Errorf("what went back: %+v", s.Back)
	}
	if len(s.Events) != 1 || s.Events[0].Type != ledger.EventTopupSucceeded {
		t.Errorf("told: %+v", s.Events)
	}
	if s, err = l.TopupStory(ctx, &other); err != nil || len(s.Back) != 0 || len(s.Events) != 1 || s.Events[0].Type != ledger.EventTopupFailed {
		t.Errorf("the story of what was declined: %+v, %v", s, err)
	}
	found, err := l.TracesOf(ctx, c.Ref, []string{"pi_topped", "ch_1", "re_1"})
	if err != nil || len(found.Topups) != 1 || found.Topups[0].ID != topup || len(found.Back) != 1 || len(found.Grants) != 0 {
		t.Errorf("traces of the payment: %+v, %v", found, err)
	}
	sold := grant(t, l, ledger.GrantInput{Customer: "acme", Amount: dec(t, "1"), Kind: "plan"})
	if _, err := l.DB().Exec(`update grants set source_id = 'in_77/il_1' where id = $1`, sold.ID); err != nil {
		t.Fatal(err)
	}
	if found, err = l.TracesOf(ctx, c.Ref, []string{"in_7", "in_77"}); err != nil || len(found.Grants) != 1 || found.Grants[0].ID != sold.ID {
		t.Errorf("traces of an invoice: %+v, %v", found, err)
	}
	if found, err = l.TracesOf(ctx, c.Ref, []string{"in_7"}); err != nil || len(found.Grants) != 0 {
		t.Errorf("traces of another invoice: %+v, %v", found, err)
	}
	if _, err := l.DB().Exec(`update grants set source_id = $2 where id = $1`, sold.ID, sold.SourceID); err != nil {
		t.Fatal(err)
	}
	id := "other"
	for n := 0; ; n++ { // one beside whom a bucket alone would not tell
		if ref, err := l.Resolve(ctx, id); err != nil || ref.Bucket == c.Bucket {
			break
		}
		id = fmt.Sprint("other", n)
	}
	stranger := newCustomer(t, l, id, "")
	if found, err = l.TracesOf(ctx, stranger.Ref, []string{"pi_topped", topup, "re_1"}); err != nil || len(found.Topups)+len(found.Back)+len(found.Grants) != 0 {
		t.Errorf("another customer's traces: %+v, %v", found, err)
	}
}

// The inbox is listed as it came, by status and by type, also where many events came in one moment; an event tells what
// became of it.
func TestInboxIsListed(t *testing.T) {
	t.Parallel()
	l := ledgertest.New(t, ledger.Options{})
	_, err := l.DB().Exec(`insert into stripe_events (id, type, livemode, payload, origin, status, run_at, created_at, received_at, tries, last_error)
		select 'evt_' || lpad((n * 7919 % 100)::text, 3, '0'), (array['invoice.paid', 'charge.refunded', 'customer.updated'])[n % 3 + 1], false, '{"n":' || n || '}', 'webhook',
			(array['done', 'ignored', 'failed', 'pending', 'done'])[n % 5 + 1], now(), now(), '2026-01-01'::timestamptz + (n / 10) * interval '1 second', n, ''
		from generate_series(0, 99) n`)
	failIf(t, err)
	var rows []struct {
		ID     string `db:"id"`
		Status string `db:"status"`
		Type   string `db:"type"`
	}
	failIf(t, l.DB().Select(&rows, `select id, status, type from stripe_events order by received_at desc, id desc`))
	for _, status := range append([]string{""}, ledger.InboxStatuses...) {
		for _, kind := range []string{"", "charge.refunded", "nobody.knows"} {
			var want []string
			for _, r := range rows {
				if (status == "" || r.Status == status) && (kind == "" || r.Type == kind) {
					want = append(want, r.ID)
				}
			}
			for _, limit := range []int{1, 7, 100} {
				got := pages(t, limit, func(e *ledger.InboxEvent) string { return e.ID }, func(after string, limit int) ([]ledger.InboxEvent, error) {
					return l.Inbox(ctx, ledger.InboxFilter{Status: status, Type: kind}, after, limit)
				})
				if !slices.Equal(got, want) {
					t.Errorf("%q %q by %d: %v, want %v", status, kind, limit, got, want)
				}
			}
		}
	}
	types, err := l.InboxTypes(ctx)
	if err != nil || !slices.Equal(types, []string{"charge.refunded", "customer.updated", "invoice.paid"}) {
		t.Errorf("types %v, %v", types, err)
	}
	e, err := l.InboxEvent(ctx, "evt_000")
	if err != nil || e.Payload != `{"n":0}` || e.Status != "done" {
		t.Errorf("the event %+v, %v", e, err)
	}
	if _, err := l.InboxEvent(ctx, "evt_none"); !ledger.IsCode(err, ledger.CodeNotFound) {
		t.Errorf("an event that is not there: %v", err)
	}
	if _, err := l.Inbox(ctx, ledger.InboxFilter{}, "evt_none", 1); !ledger.IsCode(err, ledger.CodeNotFound) {
		t.Errorf("after an event that is not there: %v", err)
	}
}

// An endpoint's health says what waits for it and how its last tries went, and an event's deliveries where it is on its
// way to each.
func TestEndpointHealth(t *testing.T) {
	t.Parallel()
	l := ledgertest.New(t, ledger.Options{})
	url := "https://example.com"
	newCustomer(t, l, "acme", "10")
	var ids []string
	for range 2 {
		e, err := l.CreateEndpoint(ctx, ledger.EndpointInput{URL: &url, Events: []string{"*"}}, ledger.Once{})
		failIf(t, err)
		ids = append(ids, e.ID)
	}
	grant(t, l, ledger.GrantInput{Customer: "acme", Amount: dec(t, "1")})
	_, _, err := l.FanOut(ctx)
	failIf(t, err)
	var event ledger.Event
	for i, r := range []ledger.Tried{{Succeeded: true, StatusCode: 200}, {Error: "no answer"}} {
		d, found, err := l.LeaseDelivery(ctx, ids[0])
		if err != nil || !found {
			t.Fatalf("lease %d: %v %v", i, found, err)
		}
		event = d.Event
		_, err = l.EndTry(ctx, d, r)
		failIf(t, err)
	}
	health, err := l.EndpointHealths(ctx)
	failIf(t, err)
	if h := health[ids[0]]; h.Tries != 2 || h.Succeeded != 1 || h.LastError != "no answer" || h.LastCode != nil || h.FailingSince == nil || h.Waiting != 1 {
		t.Errorf("the one that failed: %+v", h)
	}
	if h := health[ids[1]]; h.Tries != 0 || h.LastAt != nil || h.FailingSince != nil || h.Waiting != 2 {
		t.Errorf("the one that was not tried: %+v", h)
	}
	on, tries, err := l.EventDeliveries(ctx, &event)
	if err != nil || len(on) != 2 || len(tries) != 1 || tries[0].Event != event.ID || on[0].Attempts+on[1].Attempts != 1 {
		t.Errorf("deliveries %+v, tries %+v, %v", on, tries, err)
	}
}

// The rate card and the assets are read page by page, and a version that is only thought of is reckoned as debits are.
func TestCatalogPages(t *testing.T) {
	t.Parallel()
	clock := newStepClock()
	l := ledgertest.New(t, ledger.Options{Now: clock.now})
	later := clock.now().Add(time.Hour)
	var want []string
	for i := range 11 {
		key := fmt.Sprintf("m%02d.tokens", i)
		want = append(want, key)
		putFeature(t, l, ledger.FeatureInput{Key: key, Asset: "usd", UnitCost: decp(t, "0.001")})
		putFeature(t, l, ledger.FeatureInput{Key: key, Asset: "usd", UnitCost: decp(t, "0.002")})
		putFeature(t, l, ledger.FeatureInput{Key: key, Asset: "usd", UnitCost: decp(t, "0.003"), EffectiveAt: &later})
	}
	for _, limit := range []int{1, 4, 100} {
		got := pages(t, limit, func(f *ledger.Feature) string { return f.Key }, func(after string, limit int) ([]ledger.Feature, error) {
			return l.ListFeatures(ctx, "", after, limit)
		})
		if !slices.Equal(got, want) {
			t.Errorf("by %d: %v", limit, got)
		}
	}
	some, err := l.ListFeatures(ctx, "m03", "", 10)
	if err != nil || len(some) != 1 || some[0].UnitCost.String() != "0.002" || some[0].Version != 2 {
		t.Errorf("those that begin so: %+v, %v", some, err)
	}
	quoted, err := l.Quote(ctx, ledger.FeatureInput{Key: "new", Asset: "usd", UnitCost: decp(t, "0.0000001")}, []ledger.Decimal{dec(t, "1"), dec(t, "1000")})
	if err != nil || quoted[0].String() != "0.000001" || quoted[1].String() != "0.0001" {
		t.Errorf("quoted %v, %v", quoted, err)
	}
	if _, err := l.Quote(ctx, ledger.FeatureInput{Key: "new", Asset: "gold", UnitCost: decp(t, "1")}, nil); !ledger.IsCode(err, ledger.CodeAssetUnknown) {
		t.Errorf("of no asset: %v", err)
	}
	if got, err := l.QuoteBy(ctx, &some[0], []ledger.Decimal{dec(t, "1000")}); err != nil || got[0].String() != rate(t, l, "m03.tokens", "1000") {
		t.Errorf("what is in force costs %v, %v", got, err)
	}
	for _, code := range []string{"b", "a", "c"} {
		_, err := l.PutAsset(ctx, ledger.AssetInput{Code: code, Scale: 2, Price: decp(t, "0.01"), Currency: "usd"})
		failIf(t, err)
	}
	got := pages(t, 2, func(a *ledger.Asset) string { return a.Code + a.Price.String() + a.Currency }, func(after string, limit int) ([]ledger.Asset, error) {
		return l.ListAssets(ctx, after[:min(1, len(after))], limit)
	})
	if !slices.Equal(got, []string{"a0.01usd", "b0.01usd", "c0.01usd"}) {
		t.Errorf("assets %v", got)
	}
}

// A key is made once under an idempotency key; its secret is told the first time alone.
func TestKeyIsMadeOnce(t *testing.T) {
	t.Parallel()
	l := ledgertest.New(t, ledger.Options{})
	once := ledger.Once{Key: "console:1", Bucket: ledger.BucketOfKey("console:1"), Request: 1}
	first, secret, replayed, err := l.MakeKey(ctx, "reports", []string{"read"}, once)
	if err != nil || replayed || secret == "" {
		t.Fatalf("%+v %q %t %v", first, secret, replayed, err)
	}
	again, none, replayed, err := l.MakeKey(ctx, "reports", []string{"read"}, once)
	if err != nil || !replayed || none != "" || again.ID != first.ID {
		t.Errorf("again: %+v %q %t %v", again, none, replayed, err)
	}
	once.Request = 2
	if _, _, _, err := l.MakeKey(ctx, "reports", []string{"write"}, once); !ledger.IsCode(err, ledger.CodeKeyReused) {
		t.Errorf("another under it: %v", err)
	}
	if all, err := l.Keys(ctx); err != nil || len(all) != 1 {
		t.Errorf("%d keys, %v", len(all), err)
	}
	if k, err := l.KeyByID(ctx, first.ID); err != nil || k.Hint != secret[len(secret)-4:] || k.FromEnvironment() {
		t.Errorf("the key %+v, %v", k, err)
	}
	failIf(t, l.SetFirstKey(ctx, "lsk_from_environment"))
	if k, err := l.KeyByID(ctx, "key_environment"); err != nil || !k.FromEnvironment() {
		t.Errorf("the environment's: %+v, %v", k, err)
	}
}

// Each page of an operator's list is found by an index, in order: none reads or sorts what is not shown.
func TestListsAreFoundByIndex(t *testing.T) {
	t.Parallel()
	url := ledgertest.URL(t)
	w := tap(t, url)
	conn, _ := planner(t, ledgertest.New(t, ledger.Options{URL: url}))
	l, err := ledger.Open(ctx, ledger.Options{URL: w.url})
	failIf(t, err)
	t.Cleanup(func() { _ = l.Close() })
	c, topup := topped(t, l)
	top := settle(t, l, ledger.Outcome{Topup: topup, Status: "succeeded", PaymentIntent: "pi_topped", Received: 2000})
	fill := func(statement string) {
		t.Helper()
		_, err := l.DB().Exec(statement)
		failIf(t, err)
	}
	fill(`insert into stripe_events (id, type, livemode, payload, origin, status, run_at, created_at, received_at)
		select 'evt_' || n, 'type.' || n % 20, false, '{}', 'webhook', case when n % 5000 = 0 then 'failed' else 'done' end, now(), now(), now() - n * interval '1 second'
		from generate_series(1, 30000) n`)
	fill(`insert into topups (bucket, id, wallet_id, customer_id, trigger, mode, status, amount, charge, currency, grant_id, run_at, created_at)
		select w.bucket, 'top_' || lpad(n::text, 20, '0'), w.id, w.customer_id, case when n % 3 = 0 then 'auto' else 'manual' end, 'charge',
			case when n % 5000 = 0 then 'failed' else 'canceled' end, 1, 1, 'usd', 'grt_x' || n, now(), now() from wallets w, generate_series(1, 30000) n`)
	fill(`insert into delivery_attempts (bucket, id, endpoint_id, event_id, event_type, attempt, succeeded, duration_ms, created_at)
		select n % 64, 'atm_' || lpad(n::text, 20, '0'), 'whk_' || n % 3, 'evt_' || n % 9000, 'x', 1, true, 1, now() from generate_series(1, 30000) n`)
	fill(`insert into features (key, version, asset, unit_cost, effective_at, created_at)
		select 'k' || lpad(n::text, 6, '0'), v, 'usd', '1', now(), now() from generate_series(1, 10000) n, generate_series(1, 3) v`)
	fill(`insert into grants (bucket, id, wallet_id, amount, remaining, kind, kind_rank, priority, covers, status, live, in_force, effective_at, source_type, source_id, created_at)
		select w.bucket, 'grt_x' || n, w.id, 1, 0, 'plan', 0, 50, 'usage', 'voided', false, false, now(), 'stripe_invoice', 'in_' || n || '/il_1', now() from wallets w, generate_series(1, 30000) n`)
	fill(`analyze grants, stripe_events, topups, delivery_attempts, features`)
	t.Cleanup(func() { // before the books are checked: these are of no purchase
		for _, table := range []string{"topups where grant_id", "grants where id"} {
			if _, err := l.DB().Exec(`delete from ` + table + ` like 'grt\_x%'`); err != nil {
				t.Error(err)
			}
		}
	})
	w.take()
	event := ledger.Event{Bucket: 5, ID: "evt_5"}
	for name, read := range map[[2]string]func() error{ // by what is read, and the index that finds it
		{"top-ups that failed", "topups_of_status"}:            func() error { _, err := l.ListTopups(ctx, ledger.TopupFilter{Status: "failed"}, "", 50); return err },
		{"top-ups that a rule called for", "topups_of_status"}: func() error { _, err := l.ListTopups(ctx, ledger.TopupFilter{Trigger: "auto"}, "", 50); return err },
		{"all top-ups", "topups_newest"}:                       func() error { _, err := l.ListTopups(ctx, ledger.TopupFilter{}, "", 50); return err },
		{"the inbox", "stripe_events_newest"}:                  func() error { _, err := l.Inbox(ctx, ledger.InboxFilter{}, "evt_15000", 50); return err },
		{"events that failed", "stripe_events_of_status"}: func() error {
			_, err := l.Inbox(ctx, ledger.InboxFilter{Status: "failed"}, "evt_15000", 50)
			return err
		},
		{"events of a type", "stripe_events_of_type"}:            func() error { _, err := l.Inbox(ctx, ledger.InboxFilter{Type: "type.3"}, "evt_15000", 50); return err },
		{"types", "stripe_events_of_type"}:                       func() error { _, err := l.InboxTypes(ctx); return err },
		{"deliveries of an event", "delivery_attempts_of_event"}: func() error { _, _, err := l.EventDeliveries(ctx, &event); return err },
		{"features", "features_pkey"}:                            func() error { _, err := l.ListFeatures(ctx, "", "k000500", 50); return err },
		{"a top-up's story", "events_of_customer"}:               func() error { _, err := l.TopupStory(ctx, &top); return err },
		{"what came of a payment at Stripe", "grants_source"}:    func() error { _, err := l.TracesOf(ctx, c.Ref, []string{"pi_1"}); return err },
	} {
		failIf(t, read())
		looked, found := 0, false
		for _, statement := range w.take() {
			if !readsOrWrites.MatchString(statement) {
				continue
			}
			looked++
			wrong, plan := wholeReads(t, conn.GetContext, statement)
			for _, wrong := range wrong {
				t.Errorf("%s: %s by\n%s", name[0], wrong, statement)
			}
			found = found || strings.Contains(plan, `"`+name[1]+`"`)
		}
		if looked == 0 || !found {
			t.Errorf("%s: %d statements were sent, and %s found nothing", name[0], looked, name[1])
		}
	}
}

// wholeReads are the big tables that a statement reads without a condition or whole, as PostgreSQL plans it for whatever
// its parameters are; and the plan.
func wholeReads(t *testing.T, get func(ctx context.Context, dest any, query string, args ...any) error, statement string) (wrong []string, plan string) {
	t.Helper()
	var none int
	_ = get(ctx, &none, `deallocate all`)
	_ = get(ctx, &none, `prepare looked_at as `+statement)
	var parameters int
	failIf(t, get(ctx, &parameters, `select cardinality(parameter_types) from pg_prepared_statements where name = 'looked_at'`))
	call := `execute looked_at`
	if parameters > 0 {
		call += `(` + strings.TrimSuffix(strings.Repeat(`null, `, parameters), `, `) + `)`
	}
	failIf(t, get(ctx, &plan, `explain (format json) `+call))
	type node struct {
		Type     string  `json:"Node Type"`
		Relation string  `json:"Relation Name"`
		Rows     float64 `json:"Plan Rows"`
		Plans    []node  `json:"Plans"`
	}
	var plans []struct{ Plan node }
	failIf(t, json.Unmarshal([]byte(plan), &plans))
	big := []string{"grants", "stripe_events", "topups", "delivery_attempts", "features"}
	var walk func(n node)
	walk = func(n node) {
		if n.Type == "Seq Scan" && slices.Contains(big, n.Relation) {
			wrong = append(wrong, n.Relation+" is read whole")
		}
		if n.Type == "Sort" && n.Rows > 5000 {
			wrong = append(wrong, fmt.Sprintf("%.0f rows are sorted", n.Rows))
		}
		for _, p := range n.Plans {
			walk(p)
		}
	}
	walk(plans[0].Plan)
	return wrong, plan
}
