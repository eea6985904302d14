package handlers_test

import (
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"lockstep/handlers"
	"lockstep/ledger"
	"lockstep/stripeutil"
)

// How fast Stripe is called, who waits for it, and how far the mirror is behind can be seen from outside.
func TestTheWayToStripeIsMeasured(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := client(t, 10, "sk_test_123", paid)
		s := &handlers.Server{Stripe: c, Flushes: ledger.NewFlushQueue(time.Now)}
		refs := []ledger.Ref{{ID: "a"}, {ID: "b"}}
		s.Flushes.Looked(refs, []ledger.Behind{{Ref: refs[0], Minor: 1}, {Ref: refs[1], Minor: 2}})
		if _, err := c.PaymentIntent(t.Context(), "pi_1"); err != nil {
			t.Error(err)
		}
		time.Sleep(90 * time.Second)
		for range 4 {
			go func() { _, _, _ = c.Turn(stripeutil.Later(t.Context())) }()
		}
		synctest.Wait()
		s.Flushed()
		w := httptest.NewRecorder()
		s.MetricsHandler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
		for _, line := range []string{"lockstep_mirror_waiting 2", "lockstep_mirror_lag_seconds 90.2", "lockstep_mirror_flushes_total 1", "lockstep_stripe_pace 10",
			"lockstep_stripe_pace_later 10", "lockstep_stripe_pace_full 10", `lockstep_stripe_calls_waiting{class="first"} 0`, `lockstep_stripe_calls_waiting{class="later"} 3`,
			`lockstep_stripe_attempts_total{class="first"} 1`, `lockstep_stripe_attempts_total{class="later"} 0`, "lockstep_stripe_rate_limited_total 0"} {
			if !strings.Contains(w.Body.String(), "\n"+line+"\n") {
				t.Errorf("%s is missing", line)
			}
		}
		if t.Failed() {
			t.Log(w.Body.String())
		}
	})
}
