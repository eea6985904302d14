package handlers_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"lockstep/ledger"
	"lockstep/stripeutil"
	"lockstep/stripeutil/stripesim"
)

// The order of flushes and the pace of calls to Stripe together, on a clock of their own (testing/synctest): a quarter of
// an hour takes seconds, and every wait is exact. What a flush does in the books is left out.

// stripeTook is the time of one call.
const stripeTook = 200 * time.Millisecond

// wire is Stripe in the same process.
type wire func(*http.Request) *http.Response

// RoundTrip answers after the time of a call.
func (w wire) RoundTrip(r *http.Request) (*http.Response, error) {
	select {
	case <-r.Context().Done():
		return nil, r.Context().Err()
	case <-time.After(stripeTook):
		return w(r), nil
	}
}

// paid is a Stripe where every payment has succeeded.
func paid(*http.Request) *http.Response {
	body := `{"id":"pi_1","object":"payment_intent","status":"succeeded","amount":500,"currency":"usd"}`
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body))}
}

// crowd is customers whose balance in Stripe has to follow.
type crowd struct {
	t      *testing.T
	client *stripeutil.Client
	queue  *ledger.FlushQueue
	stripe func(ledger.Ref) string // the Stripe customer; nil: a flush takes its turn and its time, and is not sent

	mu      sync.Mutex
	moved   map[ledger.Ref]time.Time // the first time since the last flush
	dirty   map[ledger.Ref]int64     // not looked at since: the drift
	flushed map[ledger.Ref]time.Time
	order   []ledger.Ref
	longest time.Duration // that one waited
	looks   int
	lag     time.Duration // the longest that the queue told of
	after   func(ledger.Ref)
}

func newCrowd(t *testing.T, c *stripeutil.Client) *crowd {
	return &crowd{t: t, client: c, queue: ledger.NewFlushQueue(time.Now),
		moved: map[ledger.Ref]time.Time{}, dirty: map[ledger.Ref]int64{}, flushed: map[ledger.Ref]time.Time{}, after: func(ledger.Ref) {}}
}

// move has a customer's balance differ by so much.
func (c *crowd) move(ref ledger.Ref, minor int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.moved[ref]; !ok {
		c.moved[ref] = time.Now()
	}
	c.dirty[ref] = minor
}

// look is what the mirror does each interval.
func (c *crowd) look() {
	c.mu.Lock()
	defer c.mu.Unlock()
	refs := make([]ledger.Ref, 0, len(c.dirty))
	for ref := range c.dirty {
		refs = append(refs, ref)
	}
	refs = c.queue.ToLook(refs)
	behind := make([]ledger.Behind, len(refs))
	for i, ref := range refs {
		behind[i] = ledger.Behind{Ref: ref, Minor: c.dirty[ref]}
		if at, ok := c.flushed[ref]; ok {
			behind[i].Flushed = &at
		}
	}
	clear(c.dirty)
	c.queue.Looked(refs, behind)
	if c.looks++; c.looks%10 == 0 {
		c.lag = max(c.lag, c.queue.State().Lag)
	}
}

func (c *crowd) flush(ctx context.Context, ref ledger.Ref) ledger.FlushOutcome {
	c.mu.Lock()
	since := c.moved[ref]
	delete(c.moved, ref)
	c.order = append(c.order, ref)
	c.mu.Unlock()
	var err error
	if c.stripe == nil {
		time.Sleep(stripeTook)
	} else {
		_, err = c.client.CreateBalanceTransaction(context.WithoutCancel(ctx), stripeutil.BalanceTransactionParams{
			Customer: c.stripe(ref), Amount: -1, Currency: "usd", IdempotencyKey: fmt.Sprint(ref.ID, ":", since.UnixNano())})
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if stripeutil.NoRoom(err) {
		c.moved[ref] = since
		return ledger.Hurried
	}
	if err != nil {
		c.t.Errorf("%s: %v", ref.ID, err)
	}
	c.longest = max(c.longest, time.Since(since))
	c.flushed[ref] = time.Now()
	c.after(ref)
	return ledger.Flushed
}

// count is how many were flushed.
func (c *crowd) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.flushed)
}

// start flushes and looks until stop is called, which waits for the last flush.
func (c *crowd) start(interval time.Duration) (stop func()) {
	ctx, end := context.WithCancel(c.t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		c.queue.Run(ctx, 50, func(ctx context.Context) (context.Context, func(), error) {
			ctx, turn, err := c.client.Turn(stripeutil.Later(ctx))
			if err != nil {
				return ctx, nil, err
			}
			if c.stripe == nil {
				return ctx, func() {}, nil
			}
			return ctx, turn.GiveBack, nil
		}, c.flush)
	})
	wg.Go(func() {
		for ctx.Err() == nil {
			c.look()
			select {
			case <-ctx.Done():
			case <-time.After(interval):
			}
		}
	})
	return func() { end(); wg.Wait() }
}

func client(t *testing.T, perSecond float64, key string, w wire) *stripeutil.Client {
	t.Helper()
	c, err := stripeutil.New(stripeutil.Config{SecretKey: key, APIBase: "http://stripe.test", RequestsPerSecond: perSecond, Transport: w})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// A hundred thousand customers are behind, 100 calls a second are allowed, five of them are top-ups, and whoever was
// flushed moves again at once, by more. Everybody is flushed within what the README states, the largest first; a top-up
// waits for two turns at most.
func TestAHundredThousandCustomersAreFlushedInTime(t *testing.T) {
	const customers, perSecond, topups, interval = 100_000, 100, 5, 2 * time.Second
	bound := interval + customers*time.Second/(perSecond-topups) + stripeTook
	synctest.Test(t, func(t *testing.T) {
		stripe := client(t, perSecond, "sk_test_123", paid)
		c := newCrowd(t, stripe)
		size := make(map[ledger.Ref]int64, customers)
		for i := range customers {
			ref := ledger.Ref{ID: fmt.Sprint("c", i)}
			size[ref] = int64(i)
			c.move(ref, int64(i))
		}
		c.after = func(ref ledger.Ref) { c.moved[ref], c.dirty[ref] = time.Now(), 1_000_000_000 }
		stop := c.start(interval)
		end := time.Now().Add(bound + 20*time.Second)
		var slowest time.Duration
		for n := 0; time.Now().Before(end); n++ {
			start := time.Now()
			if _, err := stripe.ChargeSavedMethod(t.Context(), stripeutil.ChargeParams{Customer: "cus_1", PaymentMethod: "pm_1", Amount: 500, Currency: "usd",
				IdempotencyKey: fmt.Sprint("topup", n)}); err != nil {
				t.Fatal(err)
			}
			slowest = max(slowest, time.Since(start)-stripeTook)
			time.Sleep(time.Until(start.Add(time.Second / topups)))
		}
		stop()
		t.Logf("of %d flushes the longest wait was %s and the longest lag told %s, bound %s; a top-up waited %s at most", len(c.order), c.longest, c.lag, bound, slowest)
		if len(c.flushed) != customers || c.longest > bound || c.longest < bound*9/10 {
			t.Errorf("%d customers flushed; the longest wait was %s, bound %s", len(c.flushed), c.longest, bound)
		}
		if c.lag > bound || c.lag < bound*9/10 {
			t.Errorf("the longest lag told was %s, bound %s", c.lag, bound)
		}
		if slowest > 2*time.Second/perSecond {
			t.Errorf("a top-up waited %s", slowest)
		}
		seen := make(map[ledger.Ref]bool, customers)
		last := int64(customers)
		for i, ref := range c.order[:customers] {
			if seen[ref] {
				t.Fatalf("flush %d was the second of %s before everybody had one", i, ref.ID)
			}
			if seen[ref] = true; size[ref] > last+50 { // so many may be begun in one moment
				t.Fatalf("flush %d was of %d, after one of %d of the same age", i, size[ref], last)
			}
			last = min(last, size[ref])
		}
	})
}

// account is a simulated Stripe with customers.
func account(t *testing.T, n int, o stripesim.Options) (*stripesim.Sim, *crowd, []ledger.Ref) {
	t.Helper()
	sim, err := stripesim.New(o)
	if err != nil {
		t.Fatal(err)
	}
	stripe := client(t, 100, sim.SecretKey(), func(r *http.Request) *http.Response {
		w := httptest.NewRecorder()
		sim.ServeHTTP(w, r)
		return w.Result()
	})
	c := newCrowd(t, stripe)
	ids := map[ledger.Ref]string{}
	c.stripe = func(ref ledger.Ref) string { return ids[ref] }
	refs := make([]ledger.Ref, n)
	var wg sync.WaitGroup
	for i := range refs {
		refs[i] = ledger.Ref{ID: fmt.Sprint("c", i)}
		wg.Go(func() {
			for {
				cus, err := stripe.CreateCustomer(t.Context(), stripeutil.CustomerParams{IdempotencyKey: refs[i].ID})
				if err == nil {
					c.mu.Lock()
					defer c.mu.Unlock()
					ids[refs[i]] = cus.ID
					return
				}
				if !stripeutil.NoRoom(err) {
					t.Error(err)
					return
				}
				time.Sleep(time.Second)
			}
		})
	}
	wg.Wait()
	time.Sleep(time.Minute) // whatever that has slowed has passed
	return sim, c, refs
}

// settled waits until everybody was flushed, and ends.
func settled(t *testing.T, sim *stripesim.Sim, c *crowd, refs []ledger.Ref, stop func()) (took time.Duration) {
	t.Helper()
	start := time.Now()
	for c.count() < len(refs) && time.Since(start) < time.Hour {
		time.Sleep(100 * time.Millisecond)
	}
	took = time.Since(start)
	stop()
	for _, ref := range refs {
		if b, _ := sim.Customer(c.stripe(ref)); b.Balance != -1 {
			t.Errorf("%s has %d in Stripe", ref.ID, b.Balance)
		}
	}
	if err := sim.Check(); err != nil {
		t.Error(err)
	}
	sim.Close()
	return took
}

func limited(sim *stripesim.Sim) (n int) {
	for _, r := range sim.Requests() {
		if r.Status == http.StatusTooManyRequests {
			n++
		}
	}
	return n
}

// 429s slow the mirror and everything else, cost as long as they last and ten seconds more, starve nobody, hold up no
// charge, and are over by themselves.
func TestA429SlowsAndPasses(t *testing.T) {
	for name, lasts := range map[string]time.Duration{"a burst": 0, "half a minute": 30 * time.Second} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { slowsAndPasses(t, lasts) })
		})
	}
}

func slowsAndPasses(t *testing.T, lasts time.Duration) {
	const customers, interval = 2000, 2 * time.Second
	sim, c, refs := account(t, customers, stripesim.Options{})
	cus, err := c.client.CreateCustomer(t.Context(), stripeutil.CustomerParams{IdempotencyKey: "buyer"})
	if err != nil {
		t.Fatal(err)
	}
	card, err := c.client.AttachPaymentMethod(t.Context(), "pm_card_visa", cus.ID, "card")
	if err != nil {
		t.Fatal(err)
	}
	for _, ref := range refs {
		c.move(ref, 1)
	}
	stop := c.start(interval)
	lowest, slowest := 100.0, time.Duration(0)
	begun := time.Now()
	buy := func() {
		start := time.Now()
		if _, err := c.client.ChargeSavedMethod(t.Context(), stripeutil.ChargeParams{Customer: cus.ID, PaymentMethod: card, Amount: 500, Currency: "usd",
			IdempotencyKey: fmt.Sprint("topup", start.UnixNano())}); err != nil {
			t.Error(err)
		}
		slowest = max(slowest, time.Since(start)-stripeTook)
		time.Sleep(100 * time.Millisecond)
		lowest = min(lowest, c.client.Pace().PerSecond)
	}
	for time.Since(begun) < 5*time.Second {
		buy()
	}
	fault := stripesim.Fault{Kind: stripesim.RateLimited, Path: "/v1/customers/*", Times: 60}
	if lasts > 0 {
		fault.Times = -1
	}
	sim.Inject(fault)
	for time.Since(begun) < 10*time.Second+lasts {
		if time.Since(begun) > 5*time.Second+lasts && lasts > 0 {
			sim.ClearFaults()
		}
		buy()
	}
	settled(t, sim, c, refs, stop)
	t.Logf("%d customers in %s, the longest wait %s, %d times 429, down to %v a second, %d flushes put back; a charge waited %s at most",
		customers, time.Since(begun), c.longest, limited(sim), lowest, len(c.order)-customers, slowest)
	if lowest > 55 || limited(sim) < 60 {
		t.Errorf("%v a second at the least, %d times 429", lowest, limited(sim))
	}
	if limit := interval + customers*time.Second/97 + lasts + 10*time.Second; c.longest > limit { // 100 less the charges
		t.Errorf("one waited %s, bound %s", c.longest, limit)
	}
	if limit := time.Duration(3 / lowest * float64(time.Second)); slowest > limit {
		t.Errorf("a charge waited %s, bound %s", slowest, limit)
	}
	time.Sleep(20 * time.Second)
	if p := c.client.Pace(); p.PerSecond != p.Full {
		t.Errorf("20 seconds later: %+v", p)
	}
}

// Where Stripe allows less than we were told, the pace finds it: most of what there is is used, few calls are refused, and
// everybody is flushed.
func TestThePaceFindsWhatStripeAllows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sim, c, refs := account(t, 2000, stripesim.Options{RateLimit: 40})
		before := limited(sim)
		for _, ref := range refs {
			c.move(ref, 1)
		}
		took := settled(t, sim, c, refs, c.start(2*time.Second))
		refused := limited(sim) - before
		t.Logf("2,000 flushes at 40 a second in %s, the longest wait %s, %d times 429", took, c.longest, refused)
		if took > 2000/40*2*time.Second {
			t.Errorf("took %s", took)
		}
		if refused > 2000/5 {
			t.Errorf("%d calls were refused", refused)
		}
	})
}
