package main

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"lockstep/stripeutil/stripesim"
)

// An event that is not taken is sent again by the schedule, the same bytes under the same id, until it is given up;
// resent, it begins anew.
func TestDeliveryRetries(t *testing.T) {
	t.Parallel()
	w := newWorld(t, quiet, outward)
	w.customer("acme", "", "")
	r := w.receive()
	r.answers(always(500))
	w.giveGrants(1)
	schedule := []time.Duration{5 * time.Second, 30 * time.Second, 5 * time.Minute, 30 * time.Minute, 2 * time.Hour, 5 * time.Hour, 10 * time.Hour, 14 * time.Hour, 20 * time.Hour, 24 * time.Hour, 0}
	logged := func(n int) answer {
		t.Helper()
		w.eventually(fmt.Sprintf("%d lines in the log", n), func() bool { return len(r.log()) >= n })
		return r.log()[0]
	}
	for i, wait := range schedule {
		r.until(i + 1)
		a := logged(i + 1)
		if a.str("object") != "delivery_attempt" || a.str("attempt") != fmt.Sprint(i+1) || a.str("status") != "failed" || a.str("status_code") != "500" || a.str("error") != "answered 500" ||
			a.str("event_type") != "grant.confirmed" || !strings.HasPrefix(a.str("response"), fmt.Sprintf("answer %dxxx", i+1)) || len(a.str("response")) > 1024 {
			t.Errorf("attempt %d: %v", i+1, a)
		}
		at, _ := time.Parse(time.RFC3339, a.str("created_at"))
		next, _ := time.Parse(time.RFC3339, a.str("next_attempt_at"))
		if got := next.Sub(at); wait > 0 && (got < wait*9/10 || got > wait*11/10) || wait == 0 && a.m["next_attempt_at"] != nil {
			t.Errorf("attempt %d is followed by one after %v, want %v", i+1, got, wait)
		}
		if i == 3 { // not a moment before
			w.clock.add(wait * 8 / 10)
			time.Sleep(1500 * time.Millisecond)
			if n := r.count(); n != i+1 {
				t.Errorf("%d requests ahead of time", n)
			}
		}
		w.clock.add(wait * 11 / 10)
	}
	w.clock.add(48 * time.Hour)
	time.Sleep(1500 * time.Millisecond)
	got := r.until(11)
	if len(got) != 11 {
		t.Errorf("%d requests, want 11", len(got))
	}
	for _, e := range got {
		if e.id != got[0].id || e.body != got[0].body {
			t.Errorf("not the same again: %s %s, first %s %s", e.id, e.body, got[0].id, got[0].body)
		}
	}

	for i, body := range []any{nil, map[string]any{"endpoint": nil}, map[string]any{"endpoint": r.id}} {
		if i == 1 {
			r.answers(nil)
		}
		if a := w.must("POST", "/v1/events/"+got[0].id+"/resend", body); a.str("id") != got[0].id {
			t.Errorf("resent: %v", a)
		}
		if e := r.until(12 + i)[11+i]; e.id != got[0].id || e.body != got[0].body {
			t.Errorf("resent as %s %s", e.id, e.body)
		}
		if a := logged(12 + i); a.str("attempt") != fmt.Sprint(12+i) || (a.str("status") == "failed") != (i == 0) || (a.m["next_attempt_at"] == nil) != (i > 0) {
			t.Errorf("resent: %v", a)
		}
	}
}

// An endpoint that asks to be left alone for a while is, one that says that it is gone is disabled, and what is
// disabled is sent nothing until it is enabled again.
func TestRetryAfterAndGone(t *testing.T) {
	t.Parallel()
	w := newWorld(t, quiet, outward)
	w.customer("acme", "", "")
	r := w.receive()
	for i, tt := range []struct {
		status int
		header string
		want   time.Duration
	}{{429, "120", 2 * time.Minute}, {503, "9999999", 24 * time.Hour}, {503, "1", 5 * time.Second}, {503, "soon", 5 * time.Second}, {500, "120", 5 * time.Second},
		{429, w.clock.now().Add(time.Hour).UTC().Format(http.TimeFormat), time.Hour}} {
		r.answers(func(n int, _ received) (int, [2]string) {
			if n > i+1 { // only the newest event is at issue
				return 200, [2]string{}
			}
			return tt.status, [2]string{"Retry-After", tt.header}
		})
		w.giveGrants(1)
		w.eventually("the try is in the log", func() bool { return len(r.log()) > i })
		a := r.log()[0]
		at, _ := time.Parse(time.RFC3339, a.str("created_at"))
		next, _ := time.Parse(time.RFC3339, a.str("next_attempt_at"))
		if got := next.Sub(at); got < tt.want*9/10-2*time.Second || got > tt.want*11/10 {
			t.Errorf("%d with Retry-After %s: tried again after %v, want %v", tt.status, tt.header, got, tt.want)
		}
		if _, err := w.g.ledger.DB().Exec(`update deliveries set status = 'failed'`); err != nil {
			t.Fatal(err)
		}
	}

	n := r.count()
	r.answers(always(410))
	w.giveGrants(1)
	r.until(n + 1)
	w.eventually("the endpoint is disabled", func() bool {
		a := w.must("GET", "/v1/webhook_endpoints/"+r.id, nil)
		return a.str("status") == "disabled" && a.str("disabled_reason") == "gone"
	})
	event := r.all()[n].id
	w.giveGrants(1)
	w.refused("resend to a disabled one", w.call("POST", "/v1/events/"+event+"/resend", map[string]any{"endpoint": r.id}), refusal{409, "conflict", "state_conflict", "endpoint"})
	w.refused("resend to none", w.call("POST", "/v1/events/"+event+"/resend", nil), refusal{409, "conflict", "state_conflict", "endpoint"})
	w.clock.add(time.Hour)
	time.Sleep(1500 * time.Millisecond)
	if got := r.count(); got != n+1 {
		t.Errorf("%d requests to a disabled endpoint", got-n-1)
	}
	r.answers(nil)
	a := w.must("PATCH", "/v1/webhook_endpoints/"+r.id, map[string]any{"status": "enabled"})
	if a.str("status") != "enabled" || a.m["disabled_reason"] != nil {
		t.Errorf("enabled: %v", a)
	}
	w.giveGrants(1)
	r.until(n + 2)
	w.must("POST", "/v1/events/"+event+"/resend", map[string]any{"endpoint": r.id})
	if e := r.until(n + 3)[n+2]; e.id != event {
		t.Errorf("resent %s, want %s", e.id, event)
	}
}

// An endpoint that has taken nothing for five days is disabled, with what is on its way to it; one that takes
// something now and then is not, and one that is enabled again starts anew.
func TestDisabledAfterDays(t *testing.T) {
	t.Parallel()
	w := newWorld(t, quiet, outward)
	w.customer("acme", "", "")
	r := w.receive()
	healthy := w.receive()
	status := func() string {
		a := w.must("GET", "/v1/webhook_endpoints/"+r.id, nil)
		return strings.TrimSpace(a.str("status") + " " + a.str("disabled_reason"))
	}
	// failing has an event fail for half an hour.
	failing := func() {
		t.Helper()
		n := r.count()
		w.giveGrants(1)
		for i := range 4 {
			r.until(n + i + 1)
			w.eventually("the try is in the log", func() bool { return len(r.log()) > n+i })
			if i < 3 {
				w.clock.add([]time.Duration{6 * time.Second, 36 * time.Second, 6 * time.Minute}[i])
			}
		}
		if _, err := w.g.ledger.DB().Exec(`update deliveries set run_at = run_at + interval '300 days' where status = 'pending' and tries > 0`); err != nil {
			t.Fatal(err)
		}
	}
	const day = 24 * time.Hour
	r.answers(always(500))
	failing()
	w.clock.add(3 * day)
	r.answers(nil)
	n := r.count()
	w.giveGrants(1)
	r.until(n + 1)
	w.eventually("the success is in the log", func() bool { return r.log()[0].str("status") == "succeeded" })
	r.answers(always(500))
	for range 2 {
		w.clock.add(3 * day)
		failing() // the fourth day of failing
	}
	if got := status(); got != "enabled" {
		t.Fatalf("after less than five days: %s", got)
	}
	w.clock.add(3 * day)
	failing()
	if got := status(); got != "disabled failing" {
		t.Fatalf("after six days: %s", got)
	}
	var pending int
	if err := w.g.ledger.DB().Get(&pending, `select count(*) from deliveries where status = 'pending' and endpoint_id = $1`, r.id); err != nil || pending != 0 {
		t.Errorf("%d deliveries on their way to a disabled endpoint: %v", pending, err)
	}
	w.must("PATCH", "/v1/webhook_endpoints/"+r.id, map[string]any{"status": "enabled"})
	failing()
	if got := status(); got != "enabled" {
		t.Errorf("enabled anew, at its next failure: %s", got)
	}
	if got := w.must("GET", "/v1/webhook_endpoints/"+healthy.id, nil).str("status"); got != "enabled" || healthy.count() != 6 {
		t.Errorf("the other is %s and got %d events, want 6", got, healthy.count())
	}
}

// Rotated, both secrets verify for a day, and after it the new one alone.
func TestRotatedSecret(t *testing.T) {
	t.Parallel()
	w := newWorld(t, quiet, outward)
	w.customer("acme", "", "")
	r := w.receive()
	old := r.keys[0]
	a := w.must("POST", "/v1/webhook_endpoints/"+r.id+"/rotate_secret", nil, "Idempotency-Key", "rotate")
	again := w.must("POST", "/v1/webhook_endpoints/"+r.id+"/rotate_secret", nil, "Idempotency-Key", "rotate")
	fresh := a.str("secret")
	if !strings.HasPrefix(fresh, "whsec_") || fresh == old || string(again.raw) != string(a.raw) {
		t.Fatalf("rotated: %v, again %v", a, again)
	}
	r.mu.Lock()
	r.keys = []string{old, fresh}
	r.mu.Unlock()
	w.giveGrants(1)
	r.until(1)
	w.clock.add(23*time.Hour + 59*time.Minute)
	w.giveGrants(1)
	r.until(2)
	w.clock.add(2 * time.Minute)
	r.mu.Lock()
	r.keys = []string{fresh}
	var signatures string
	r.seen = func(req *http.Request, body []byte) {
		signatures = req.Header.Get("webhook-signature")
		if wh, err := standardwebhooks.NewWebhook(old); err != nil || wh.VerifyIgnoringTimestamp(body, req.Header) == nil {
			t.Errorf("the old secret verifies after a day: %v", err)
		}
	}
	r.mu.Unlock()
	w.giveGrants(1)
	r.until(3)
	if strings.Contains(signatures, " ") {
		t.Errorf("signatures %q, want one", signatures)
	}
	var answers int
	if err := w.g.ledger.DB().Get(&answers, `select count(*) from webhook_endpoints where id = $1 and secret = $2`, r.id, fresh); err != nil || answers != 1 {
		t.Errorf("rotated twice under one key: %v", err)
	}
}

// An endpoint that answers slowly, or never, holds up nobody else.
func TestSlowEndpoint(t *testing.T) {
	t.Parallel()
	w := newWorld(t, quiet, outward)
	w.customer("acme", "", "")
	slow, fast := w.receive(), w.receive()
	release := make(chan struct{})
	defer close(release)
	waiting := func() int { // tries that have not come to their timeout
		n := slow.count()
		return n - len(slow.log())
	}
	slow.answers(func(int, received) (int, [2]string) { <-release; return 200, [2]string{} })
	w.giveGrants(30)
	start := time.Now()
	fast.until(30)
	if d := time.Since(start); d > outboundTimeout/2 {
		t.Errorf("the last of 30 events took %v beside a slow endpoint", d)
	}
	if n := waiting(); n > outboundPerEndpoint {
		t.Errorf("%d requests at once to one endpoint, at most %d", n, outboundPerEndpoint)
	}
	w.eventually("the slow one's timeout is in the log", func() bool {
		l := slow.log()
		return len(l) > 0 && strings.Contains(l[0].str("error"), "no answer within 10s")
	})
}

// Two gateways that both have much to deliver deliver each event once.
func TestTwoGatewaysDeliverOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t, quiet, outward)
	peer := w.peer()
	w.customer("acme", "", "")
	r, other := w.receive(), w.receive("grant.confirmed")
	done := make(chan struct{})
	go func() { defer close(done); peer.giveGrants(100) }()
	w.giveGrants(100)
	<-done
	for _, r := range []*receiver{r, other} {
		r.until(200)
	}
	time.Sleep(1500 * time.Millisecond)
	for _, r := range []*receiver{r, other} {
		seen := map[string]bool{}
		for _, e := range r.all() {
			seen[e.id] = true
		}
		if len(seen) != 200 || r.count() != 200 {
			t.Errorf("%d requests for %d events, want 200", r.count(), len(seen))
		}
	}
}

// Killed between the commit and the delivery, or between the delivery and its mark, the service delivers what
// happened: under one id, and at most once more than it knows of.
func TestKilledWhileDelivering(t *testing.T) {
	t.Parallel()
	for point, most := range map[string]int{"topup.settled": 2, "outbound.fanned": 1, "outbound.leased": 1, "outbound.posted": 2} {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			w := detached(t)
			first := w.spawn("")
			w.base = first.base
			wallet, _ := w.customer("acme", "10", "pm_card_visa")
			r := w.receive("topup.succeeded")
			_ = first.cmd.Process.Kill()
			<-first.done

			doomed := w.spawn(point)
			w.base = doomed.base
			w.sim.AddEndpoint(stripesim.Endpoint{URL: doomed.base + "/webhooks/stripe", Secrets: w.o.secrets})
			path, rule := "/v1/wallets/"+wallet+"/auto_topup", `{"threshold":"11","amount":"20"}`
			go w.quietly("PUT", path, rule)
			doomed.killed(t)
			if point != "outbound.posted" && point != "topup.settled" && r.count() != 0 {
				t.Errorf("%d requests before the kill", r.count())
			}
			w.base = w.spawn("").base
			w.must("PUT", path, rule) // its caller had no answer, and asks again
			w.within(60*time.Second, "the event is delivered", func() bool {
				l := r.log()
				return len(l) > 0 && l[0].str("status") == "succeeded"
			})
			got := r.all()
			if len(got) > most {
				t.Errorf("%d requests, at most %d", len(got), most)
			}
			for _, e := range got {
				if e.id != got[0].id || e.body != got[0].body {
					t.Errorf("sent again as another: %s %s", e.id, e.body)
				}
			}
		})
	}
}
