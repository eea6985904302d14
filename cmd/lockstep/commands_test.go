package main

import (
	"bytes"
	"context"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"lockstep/ledger"
	"lockstep/ledger/ledgertest"
	"lockstep/stripeutil/stripesim"
)

// command runs a lockstep command on the world's database and Stripe.
func (w *world) command(args ...string) (stdout string, code int) {
	w.t.Helper()
	for name, value := range map[string]string{"DATABASE_URL": w.o.url, "STRIPE_SECRET_KEY": w.sim.SecretKey(), "STRIPE_API_BASE": w.o.stripeURL,
		"LOCKSTEP_API_KEY": w.key, "STRIPE_REQUESTS_PER_SECOND": "1000"} {
		w.t.Setenv(name, value)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var out, err bytes.Buffer
	code = run(ctx, args, &out, &err)
	if code != 0 {
		w.t.Logf("lockstep %s: exit %d: %s", strings.Join(args, " "), code, err.String())
	}
	return out.String(), code
}

// A key does what its scopes say from the moment it is made until it is revoked.
func TestKeysCommand(t *testing.T) {
	w := newWorld(t)
	w.customer("acme", "10", "")
	if _, code := w.command("keys", "create", "-scopes", "usage,everything"); code != 1 {
		t.Errorf("an unknown scope: exit %d", code)
	}
	out, code := w.command("keys", "create", "-name", "app", "-scopes", "usage")
	secret, id := regexp.MustCompile(`lsk_\S+`).FindString(out), regexp.MustCompile(`key_\S+`).FindString(out)
	if code != 0 || secret == "" || id == "" {
		t.Fatalf("create: exit %d, %q", code, out)
	}
	usage := func() int {
		return w.call("POST", "/v1/usage", `{"customer":"acme","amount":"1"}`, "Authorization", "Bearer "+secret).status
	}
	if got := usage(); got != http.StatusOK {
		t.Errorf("usage with the new key: %d", got)
	}
	if a := w.call("GET", "/v1/customers/acme", nil, "Authorization", "Bearer "+secret); a.status != http.StatusForbidden || a.str("error.code") != "scope_missing" {
		t.Errorf("reading with it: %v", a)
	}
	if out, _ = w.command("keys", "list"); !strings.Contains(out, id) || strings.Contains(out, secret) {
		t.Errorf("list: %q", out)
	}
	if _, code := w.command("keys", "revoke", "key_nothing"); code != 1 {
		t.Errorf("revoking nothing: exit %d", code)
	}
	if _, code := w.command("keys", "revoke", id); code != 0 {
		t.Fatalf("revoke: exit %d", code)
	}
	w.eventually("the key is revoked", func() bool { return usage() == http.StatusUnauthorized })
}

// verify is silent about right books and fails on wrong ones; archive leaves young books alone.
func TestVerifyCommand(t *testing.T) {
	w := newWorld(t)
	w.customer("acme", "10", "")
	archiveCommand(w)
	if out, code := w.command("verify"); code != 0 || !strings.Contains(out, "the books are right") {
		t.Errorf("right books: exit %d, %q", code, out)
	}
	written := w.o.url
	w.o.url += "&default_transaction_read_only=on" // as on a replica
	for _, command := range []string{"verify", "export"} {
		if out, code := w.command(command); code != 0 || out == "" {
			t.Errorf("%s where nothing can be written: exit %d, %q", command, code, out)
		}
	}
	w.o.url = written
	if _, err := w.g.ledger.DB().Exec(`update wallets set total = total + 1`); err != nil {
		t.Fatal(err)
	}
	if out, code := w.command("verify"); code != 1 || !strings.Contains(out, "a wallet's total is the sum of its entries") {
		t.Errorf("wrong books: exit %d, %q", code, out)
	}
	if _, err := w.g.ledger.DB().Exec(`update wallets set total = total - 1`); err != nil {
		t.Fatal(err)
	}
}

// archive moves what is old enough, and nothing younger.
func archiveCommand(w *world) {
	w.t.Helper()
	for _, args := range [][]string{{"archive"}, {"archive", "-before", "yesterday"}, {"archive", "-before", "2020-01-01", "now"}} {
		if _, code := w.command(args...); code != 2 {
			w.t.Errorf("%q: exit %d", args, code)
		}
	}
	if _, code := w.command("archive", "-before", time.Now().Format(time.DateOnly)); code != 1 {
		w.t.Errorf("today's entries: exit %d", code)
	}
	for args, want := range map[string]string{"": "0 entries were moved", "-dry-run": "0 entries would be moved"} {
		if out, code := w.command(strings.Fields("archive -before 2020-01-01 " + args)...); code != 0 || !strings.Contains(out, want) {
			w.t.Errorf("%s: exit %d, %q", args, code, out)
		}
	}
}

// verify names the entry that was changed; books that are right have a digest, which stays until something is booked.
func TestVerifyNamesTheChangedRow(t *testing.T) {
	w := newWorld(t, quiet)
	wallet, _ := w.customer("acme", "10", "")
	w.customer("other", "10", "")
	for range 3 {
		w.must("POST", "/v1/usage", map[string]any{"customer": "acme", "amount": "1"})
	}
	digest := func() string {
		t.Helper()
		out, code := w.command("verify")
		found := regexp.MustCompile(`(?m)^digest ([0-9a-f]{64})$`).FindStringSubmatch(out)
		if code != 0 || found == nil || !strings.Contains(out, "over 5 entries of 2 wallets") && !strings.Contains(out, "over 6 entries of 2 wallets") {
			t.Fatalf("exit %d, %q", code, out)
		}
		return found[1]
	}
	first := digest()
	if again := digest(); again != first {
		t.Errorf("digest %s, then %s", first, again)
	}
	db := w.g.ledger.DB()
	var reason string
	if err := db.Get(&reason, `update entries set reason = 'nothing to see' where wallet_id = $1 and seq = 3 returning 'usage'`, wallet); err != nil {
		t.Fatal(err)
	}
	out, code := w.command("verify")
	if code != 1 || !strings.Contains(out, "seq 3 of "+wallet+" was changed") || strings.Contains(out, "digest") || strings.Count(out, "\n") != 1 {
		t.Errorf("a changed row: exit %d, %q", code, out)
	}
	if _, err := db.Exec(`update entries set reason = $2 where wallet_id = $1 and seq = 3`, wallet, reason); err != nil {
		t.Fatal(err)
	}
	w.must("POST", "/v1/usage", map[string]any{"customer": "acme", "amount": "1"})
	if next := digest(); next == first {
		t.Errorf("the same digest after a debit: %s", next)
	}
}

// An event that was given up is worked off when it is replayed.
func TestReplayCommand(t *testing.T) {
	w := newWorld(t)
	_, stripeID := w.armed("acme", "pm_card_visa", 0)
	w.inStep("acme")
	if err := w.sim.Settle(context.Background()); err != nil {
		t.Fatal(err)
	}
	// The event of a stranger's transaction arrives and is put aside before anybody has worked it off.
	w.sim.InjectDelivery(stripesim.DeliveryFault{Kind: stripesim.Lose, Times: -1})
	if _, err := w.sim.Operator().AdjustBalance(stripeID, -500, "usd", "goodwill"); err != nil {
		t.Fatal(err)
	}
	w.sim.ClearFaults()
	db := w.g.ledger.DB()
	if _, err := db.Exec(`create function put_aside() returns trigger language plpgsql as $$ begin new.status = 'failed'; return new; end $$;
		create trigger put_aside before insert on stripe_events for each row execute function put_aside()`); err != nil {
		t.Fatal(err)
	}
	if err := w.g.backfill(context.Background()); err != nil {
		t.Fatal(err)
	}
	if _, code := w.command("replay", "evt_nothing"); code != 1 {
		t.Errorf("replaying nothing: exit %d", code)
	}
	if got := w.available("acme"); got != "10" {
		t.Fatalf("available %s before the replay", got)
	}
	if out, code := w.command("replay", "--failed"); code != 0 {
		t.Fatalf("replay: exit %d, %q", code, out)
	}
	w.eventually("the goodwill is booked", func() bool { return w.available("acme") == "15" })
}

// reconcile finds who is out of step and why; with --repair it brings them back.
func TestReconcileCommand(t *testing.T) {
	w := newWorld(t)
	_, foreign := w.customer("foreign", "10", "")
	w.customer("lost", "10", "")
	w.customer("fine", "10", "")
	for _, c := range []string{"foreign", "lost", "fine"} {
		w.inStep(c)
	}
	if out, code := w.command("reconcile"); code != 0 || !strings.Contains(out, "3 customers, 3 in step") {
		t.Errorf("all in step: exit %d, %q", code, out)
	}
	w.sim.InjectDelivery(stripesim.DeliveryFault{Kind: stripesim.Lose, Times: -1})
	if _, err := w.sim.Operator().AdjustBalance(foreign, -300, "usd", "goodwill"); err != nil {
		t.Fatal(err)
	}
	// The books think that Stripe shows 2.00 less than it does, and no transaction explains it.
	db := w.g.ledger.DB()
	if _, err := db.Exec(`insert into balance_transactions (bucket, id, customer_id, amount, type, created_at)
		select bucket, 'cbtxn_never', customer_id, 200, 'adjustment', now() from mirrors where customer_id = 'lost'`); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec(`update mirrors set credit = credit - 200 where customer_id = 'lost'`); err != nil {
		t.Fatal(err)
	}
	a := w.call("GET", "/v1/customers/foreign/lockstep", nil)
	if a.str("state") != "foreign" || a.str("drift") != "300" {
		t.Errorf("foreign: %v", a)
	}
	if a := w.call("GET", "/v1/customers/lost/lockstep", nil); a.str("state") != "stripe_ahead" || a.str("drift") != "200" {
		t.Errorf("lost: %v", a)
	}
	out, code := w.command("reconcile")
	for _, row := range []string{`(?m)^foreign +foreign_transaction +foreign +1000 +1300 +300 +can be$`, `(?m)^lost +stripe_ahead +stripe_ahead +1000 +1000 +200 +can be$`,
		`3 customers, 1 in step, 0 repaired; 2 findings, 2 open`, `(?s)--repair would: import them`} {
		if !regexp.MustCompile(row).MatchString(out) {
			t.Errorf("no %s in %s", row, out)
		}
	}
	if code != 1 {
		t.Errorf("two out of step: exit %d", code)
	}
	if out, code := w.command("reconcile", "--repair"); code != 0 || !strings.Contains(out, "3 customers, 1 in step, 2 repaired; 2 findings, 0 open") {
		t.Errorf("repair: exit %d, %q", code, out)
	}
	for _, c := range []string{"foreign", "lost", "fine"} {
		w.inStep(c)
	}
	if got := w.available("foreign"); got != "13" {
		t.Errorf("foreign has %s, want 13", got)
	}
	if got := w.available("lost"); got != "10" {
		t.Errorf("lost has %s, want 10", got)
	}
}

// migrate --citus brings the schema up to date and, on an ordinary PostgreSQL, says what it lacks; where Citus is, it
// tells of each table that it spread. (Citus is stood in for, as migrations/testdata/citus.sql says.)
func TestMigrateCitusCommand(t *testing.T) {
	url := ledgertest.Empty(t)
	command := func(url string, args ...string) (said, complained string, code int) {
		t.Setenv("DATABASE_URL", url)
		var out, err bytes.Buffer
		code = run(context.Background(), append([]string{"migrate"}, args...), &out, &err)
		return out.String(), err.String(), code
	}
	if out, err, code := command(url, "--citus"); code != 1 || !strings.Contains(err, "CREATE EXTENSION citus") || out != "the schema is up to date\n" {
		t.Errorf("without it: exit %d, %q, %q", code, out, err)
	}
	stand, err := os.ReadFile("../../migrations/testdata/citus.sql")
	if err != nil {
		t.Fatal(err)
	}
	db, err := ledger.Connect(context.Background(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec(string(stand)); err != nil {
		t.Fatal(err)
	}
	url += "&search_path=public,citus"
	if out, err, code := command(url, "--citus", "--shards", "128"); code != 0 || !strings.Contains(out, "wallets: by bucket, over 128 shards\n") {
		t.Errorf("with it: exit %d, %q, %q", code, out, err)
	}
	if out, err, code := command(url, "--citus"); code != 0 || !strings.Contains(out, "0 tables were spread") {
		t.Errorf("again: exit %d, %q, %q", code, out, err)
	}
}
