package stripeutil

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// These tests run on a clock of their own (testing/synctest): what takes minutes in them takes no time, and every wait is
// exact.

// answering answers each attempt at once.
func answering(status int, body string, header ...string) roundTrip {
	return func(*http.Request) (*http.Response, error) {
		h := http.Header{}
		for i := 0; i+1 < len(header); i += 2 {
			h.Set(header[i], header[i+1])
		}
		return &http.Response{StatusCode: status, Header: h, Body: io.NopCloser(strings.NewReader(body))}, nil
	}
}

// paced is a client that may call so often and is answered like this.
func paced(t *testing.T, perSecond float64, answer http.RoundTripper) *Client {
	t.Helper()
	c, err := New(Config{SecretKey: testKey, APIBase: "http://stripe.test", RequestsPerSecond: perSecond, Transport: answer})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// refused has a client hear a 429, with a Retry-After, to a charge that was sent at that time.
func refused(c *Client, sent time.Time, after time.Duration) {
	h := http.Header{"Retry-After": {strconv.Itoa(int(after.Seconds()))}}
	c.pace.slow(classFirst, &http.Response{StatusCode: 429, Header: h}, sent)
}

// crowd has n calls wait, which end with the test's context.
func crowd(c *Client, ctx context.Context, n int) {
	for range n {
		go func() { _, _, _ = c.Turn(ctx) }()
	}
	synctest.Wait()
}

// However many wait for what can be later, a charge waits for one turn, and ten charges for ten.
func TestWhatSomebodyWaitsForGoesFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := paced(t, 100, answering(200, paymentJSON))
		crowd(c, Later(t.Context()), 10_000)
		for range 20 {
			time.Sleep(333 * time.Millisecond)
			start := time.Now()
			if err := charge(c); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(start); took > 11*time.Millisecond {
				t.Errorf("a charge waited %s", took)
			}
		}
		start := time.Now()
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				if err := charge(c); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if took := time.Since(start); took > 101*time.Millisecond {
			t.Errorf("ten charges waited %s", took)
		}
		if p := c.Pace(); p.FirstAttempts != 30 || p.FirstWaiting != 0 || p.LaterWaiting < 9000 {
			t.Errorf("%+v", p)
		}
	})
}

// While charges need every turn, the rest waits, which shows; then it goes on.
func TestTheRestTakesWhatIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := paced(t, 50, answering(200, paymentJSON))
		crowd(c, Later(t.Context()), 100)
		busy, stop := context.WithCancel(t.Context())
		for range 60 {
			go func() {
				for busy.Err() == nil {
					_, _ = c.Customer(busy, "cus_1")
				}
			}()
		}
		synctest.Wait()
		before := c.Pace()
		time.Sleep(time.Minute)
		if p := c.Pace(); p.LaterWaiting != before.LaterWaiting || p.FirstWaiting < 50 || p.FirstAttempts-before.FirstAttempts < 2990 {
			t.Errorf("under full load: %+v, before %+v", p, before)
		}
		stop()
		time.Sleep(3 * time.Second)
		if p := c.Pace(); p.LaterWaiting != 0 || p.FirstWaiting != 0 {
			t.Errorf("after it: %+v", p)
		}
	})
}

// In no second more is sent than the pace and its burst, retries and both classes included.
func TestNoMoreThanThePace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var sent []time.Time
		c := paced(t, 90, roundTrip(func(r *http.Request) (*http.Response, error) {
			mu.Lock()
			defer mu.Unlock()
			if sent = append(sent, time.Now()); len(sent)%7 == 0 {
				return nil, errors.New("the connection is gone")
			}
			return answering(200, customerJSON)(r)
		}))
		var wg sync.WaitGroup
		for i := range 400 {
			ctx := t.Context()
			if i%2 == 0 {
				ctx = Later(ctx)
			}
			wg.Go(func() {
				own, turn, err := c.Turn(ctx)
				if err != nil {
					t.Error(err)
					return
				}
				if i%5 == 0 { // nothing to be sent after all
					turn.GiveBack()
				}
				if _, err := c.Customer(own, "cus_1"); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		for i, at := range sent {
			n := 0
			for _, other := range sent[i:] {
				if other.Sub(at) < time.Second {
					n++
				}
			}
			if n > 90+2*9 { // the burst, and as many that were given back
				t.Fatalf("%d attempts in the second from %s", n, at)
			}
		}
		if p := c.Pace(); p.FirstAttempts+p.LaterAttempts != int64(len(sent)) || len(sent) < 400 {
			t.Errorf("%d attempts, and %+v", len(sent), p)
		}
	})
}

// A 429 halves the pace of all, once for all that was under way; more go on to a floor; then it comes back by itself. A
// Retry-After holds all up, but not for longer than a call may take.
func TestA429SlowsAllForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := paced(t, 100, answering(200, paymentJSON))
		at := func(want float64) {
			t.Helper()
			if got := c.Pace().PerSecond; got < want-0.01 || got > want+0.01 {
				t.Errorf("%v a second, want %v", got, want)
			}
		}
		sent := time.Now()
		time.Sleep(time.Second / 2)
		for range 30 {
			refused(c, sent, 0)
		}
		at(50)
		time.Sleep(2 * time.Second)
		at(60)
		time.Sleep(time.Minute)
		at(100)
		for range 20 {
			refused(c, time.Now(), 0)
			time.Sleep(time.Second)
		}
		at(10) // half of it, and what a second gives back
		for range 20 {
			refused(c, time.Now(), 2*time.Second)
			time.Sleep(2 * time.Second)
		}
		at(5) // the floor: in a pause nothing comes back
		refused(c, time.Now(), 3*time.Second)
		start := time.Now()
		if err := charge(c); err != nil || time.Since(start) < 3*time.Second || time.Since(start) > 3100*time.Millisecond {
			t.Errorf("asked to wait 3 s, a charge took %s: %v", time.Since(start), err)
		}
		time.Sleep(18 * time.Second)
		at(95)
		refused(c, time.Now(), time.Hour)
		start = time.Now()
		if err := charge(c); err != nil || time.Since(start) != 10*time.Second {
			t.Errorf("asked to wait an hour, a charge took %s: %v", time.Since(start), err)
		}
		time.Sleep(time.Minute)
		at(100)
		if n := c.Pace().Limited; n != 72 {
			t.Errorf("%d were counted", n)
		}
	})
}

// Where Stripe takes no more at one endpoint, what can be later slows down and charges do not, unless it was a charge.
func TestA429OfOneEndpointSlowsWhatCanBeLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		too := answering(429, stripeError("invalid_request_error", "rate_limit"), "Stripe-Rate-Limited-Reason", "endpoint-rate", "Retry-After", "3")
		c := paced(t, 100, roundTrip(func(r *http.Request) (*http.Response, error) {
			if r.URL.Path == "/v1/customers/cus_1" {
				return too(r)
			}
			return answering(200, paymentJSON)(r)
		}))
		go func() { _, _ = c.Customer(Later(t.Context()), "cus_1") }()
		synctest.Wait()
		if p := c.Pace(); p.PerSecond != 100 || p.LaterPerSecond != 50 {
			t.Errorf("%+v", p)
		}
		crowd(c, Later(t.Context()), 100)
		start := time.Now()
		for range 200 {
			if err := charge(c); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(start); took > 2*time.Second {
			t.Errorf("200 charges took %s", took)
		}
		if p := c.Pace(); p.LaterWaiting != 100 {
			t.Errorf("in the pause that Stripe asked for: %+v", p)
		}
		time.Sleep(20 * time.Second)
		if p := c.Pace(); p.LaterWaiting != 0 {
			t.Errorf("after it: %+v", p)
		}
		if err := readCustomer(c); !NoRoom(err) || c.Pace().PerSecond >= 100 {
			t.Errorf("a read that somebody waits for: %v, %+v", err, c.Pace())
		}
	})
}

// What a 429 says is told by its reason: an object in use is no matter of the pace.
func TestWhich429Slows(t *testing.T) {
	for name, tc := range map[string]struct {
		status        int
		body, reason  string
		slows, noRoom bool
	}{
		"too many":            {429, stripeError("invalid_request_error", "rate_limit"), "global-rate", true, true},
		"too many at a path":  {429, stripeError("invalid_request_error", "rate_limit"), "endpoint-rate", true, true},
		"too many at once":    {429, stripeError("invalid_request_error", "rate_limit"), "global-concurrency", true, true},
		"unexplained":         {429, "<html>slow down</html>", "", true, true},
		"an object in use":    {429, stripeError("invalid_request_error", "lock_timeout"), "", false, false},
		"one object too much": {429, stripeError("invalid_request_error", "rate_limit"), "resource-specific", false, false},
		"unavailable":         {503, stripeError("api_error", ""), "", false, false},
		"declined":            {402, stripeError("card_error", "card_declined"), "", false, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := paced(t, 100, answering(tc.status, tc.body, "Stripe-Rate-Limited-Reason", tc.reason))
				err := charge(c)
				if p := c.Pace(); (p.PerSecond < 100) != tc.slows || (p.Limited > 0) != tc.slows {
					t.Errorf("%+v", p)
				}
				if NoRoom(err) != tc.noRoom {
					t.Errorf("no room: %v, of %v", NoRoom(err), err)
				}
			})
		})
	}
}

// A call whose turn can't come in time is refused at once, one whose turn does not come is refused at its end, and who
// goes away leaves the turn to others.
func TestATurnThatDoesNotCome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := paced(t, 10, answering(200, paymentJSON))
		ctx, leave := context.WithCancel(t.Context())
		crowd(c, ctx, 200)
		start := time.Now()
		if err := charge(c); !errors.Is(err, ErrRateLimited) || time.Since(start) != 0 {
			t.Errorf("behind 200 at 10 a second: %v after %s", err, time.Since(start))
		}
		leave()
		synctest.Wait()
		if err := charge(c); err != nil || time.Since(start) > 200*time.Millisecond {
			t.Errorf("after they had left: %v after %s", err, time.Since(start))
		}
		if p := c.Pace(); p.FirstWaiting != 0 {
			t.Errorf("%+v", p)
		}

		for range 20 { // down to the floor: half a turn a second, so that the estimate was wrong
			refused(c, time.Now(), 0)
			time.Sleep(time.Second)
		}
		refused(c, time.Now(), longestPause)
		crowd(c, t.Context(), 40)
		start = time.Now()
		if err := charge(c); !NoRoom(err) || time.Since(start) > defaultCallTimeout {
			t.Errorf("%v after %s", err, time.Since(start))
		}
		before := c.Pace().FirstAttempts
		time.Sleep(time.Minute)
		if p := c.Pace(); p.FirstAttempts != before || p.FirstWaiting != 0 {
			t.Errorf("a call that had been given up was sent: %+v", p)
		}
	})
}

// A turn that was not needed is the next one's.
func TestATurnIsGivenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := paced(t, 1, answering(200, paymentJSON))
		_, turn, err := c.Turn(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		turn.GiveBack()
		turn.GiveBack() // once is all that there was
		if err := charge(c); err != nil || time.Since(start) != 0 {
			t.Errorf("%v after %s", err, time.Since(start))
		}
		if err := charge(c); err != nil || time.Since(start) != time.Second {
			t.Errorf("the second: %v after %s", err, time.Since(start))
		}
	})
}

// A turn taken before a pause is not used in it.
func TestATurnWaitsForAPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := paced(t, 100, answering(200, paymentJSON))
		ctx, _, err := c.Turn(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		refused(c, time.Now(), 5*time.Second)
		start := time.Now()
		if _, err := c.ChargeSavedMethod(ctx, chargeParams); err != nil || time.Since(start) != 5*time.Second {
			t.Errorf("%v after %s", err, time.Since(start))
		}
	})
}
