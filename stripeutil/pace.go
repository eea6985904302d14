package stripeutil

import (
	"container/list"
	"context"
	"encoding/json"
	"math"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

// The pace: every attempt at a call, retries included, waits here for its turn.
//
// There are two classes. What somebody waits for (charges, invoices, checkouts, whatever an API request needs) goes first;
// what is asked for under Later (the mirror, lists, the backfill) takes the turns that are left over. Each class goes in
// order of arrival. That is strict on purpose: where what goes first needs every turn, the rest waits, and Pace shows it.
//
// A 429 is about the account and not about the call that met it, so all slow down together: the pace is halved, at most
// once a second, and comes back by a twentieth of its full height each second. It never falls below a twentieth. One that
// says that a single endpoint is called too often, and met a call that can be later, slows only that class.
const (
	paceFloor = 1. / 20 // of the full pace
	paceRaise = 1. / 20 // of the full pace, a second
	// cutEvery is how long a cut is given to show: what was sent in that time may have met the same full second.
	cutEvery = time.Second
	// longestPause bounds what one Retry-After holds up: less than a call's time, so that those who wait may live on.
	longestPause = 10 * time.Second
)

// The classes of calls.
const (
	classFirst = iota
	classLater
	classes
)

// waiter is one who waits for a turn.
type waiter struct {
	ready chan struct{} // closed when the turn has come
}

type pace struct {
	mu      sync.Mutex
	all     throttle
	later   throttle // in addition
	spare   int      // turns that were given back
	waiting [classes]*list.List
	timer   *time.Timer // will call run

	sent    [classes]atomic.Int64 // attempts
	limited atomic.Int64
}

// newPace allows so many turns a second.
func newPace(perSecond float64) *pace {
	p := &pace{all: newThrottle(perSecond), later: newThrottle(perSecond)}
	for c := range p.waiting {
		p.waiting[c] = list.New()
	}
	return p
}

// throttle is how often something may happen: as often as Stripe takes it.
type throttle struct {
	full    float64 // times a second
	low     float64 // what the last cut left of it
	cut     time.Time
	until   time.Time // not before
	limiter *rate.Limiter
}

// newThrottle has a small burst, which keeps the first second of a busy start below Stripe's limit as well: rate + burst
// ≤ 100 (or 25).
func newThrottle(perSecond float64) throttle {
	return throttle{full: perSecond, low: perSecond, limiter: rate.NewLimiter(rate.Limit(perSecond), max(1, int(perSecond/10)))}
}

// at is how often, at a moment.
func (h *throttle) at(now time.Time) float64 {
	since := h.cut
	if h.until.After(since) {
		since = h.until
	}
	return min(h.full, h.low+h.full*paceRaise*max(0, now.Sub(since).Seconds()))
}

// wait is how long it is until the next time; 0: it may be now.
func (h *throttle) wait(now time.Time) time.Duration {
	if d := h.until.Sub(now); d > 0 {
		return d
	}
	h.limiter.SetLimitAt(now, rate.Limit(h.at(now)))
	tokens := h.limiter.TokensAt(now)
	if tokens >= 1 {
		return 0
	}
	return max(seconds((1-tokens)/h.at(now)), time.Microsecond)
}

// slow hears of a 429 to an attempt that was sent at that time, and for how long Stripe asked to be left alone.
func (h *throttle) slow(now, sent time.Time, asked time.Duration) {
	if h.cut.IsZero() || !sent.Before(h.cut.Add(cutEvery)) { // else it says nothing of the pace since
		h.low, h.cut = max(h.at(now)/2, h.full*paceFloor), now
	}
	if until := now.Add(min(asked, longestPause)); asked > 0 && until.After(h.until) {
		h.until = until
	}
}

// wait returns once the call's turn has come; blocked says that it had to wait. It refuses at once where the turn can't
// come before the deadline.
func (p *pace) wait(ctx context.Context, class int) (blocked bool, err error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	p.mu.Lock()
	now := time.Now()
	if deadline, ok := ctx.Deadline(); ok && now.Add(p.soonest(now, class)).After(deadline) {
		p.mu.Unlock()
		return false, errNotSent
	}
	w := &waiter{ready: make(chan struct{})}
	place := p.waiting[class].PushBack(w)
	p.run()
	p.mu.Unlock()
	select {
	case <-w.ready:
		return false, nil
	default:
	}
	select {
	case <-w.ready:
		return true, nil
	case <-ctx.Done():
	}
	p.mu.Lock()
	p.waiting[class].Remove(place) // does nothing where the turn came in the same moment
	p.mu.Unlock()
	select {
	case <-w.ready:
		p.giveBack()
	default:
	}
	return true, ctx.Err()
}

// soonest is the time that has to pass before a newcomer's turn, if the pace is full until then.
func (p *pace) soonest(now time.Time, class int) time.Duration {
	ahead := p.waiting[classFirst].Len()
	if class == classLater {
		ahead += p.waiting[classLater].Len()
	}
	turns := float64(ahead+1-p.spare) - p.all.limiter.TokensAt(now)
	return max(seconds(turns/p.all.full), p.all.until.Sub(now), 0)
}

// seconds is a duration, which can't run over.
func seconds(s float64) time.Duration {
	if s >= math.MaxInt64/float64(time.Second) {
		return math.MaxInt64
	}
	return time.Duration(s * float64(time.Second))
}

// run gives out the turns that there are, and comes back when there is another. The caller holds mu.
func (p *pace) run() {
	for {
		class := classFirst
		if p.waiting[class].Len() == 0 {
			class = classLater
		}
		next := p.waiting[class]
		if next.Len() == 0 {
			return
		}
		if d := p.take(class, time.Now()); d > 0 {
			if p.timer == nil {
				p.timer = time.AfterFunc(d, func() { p.mu.Lock(); defer p.mu.Unlock(); p.run() })
			} else {
				p.timer.Reset(d)
			}
			return
		}
		if w, ok := next.Remove(next.Front()).(*waiter); ok {
			close(w.ready)
		}
	}
}

// take takes a turn, or answers when to ask again.
func (p *pace) take(class int, now time.Time) time.Duration {
	if p.spare > 0 && !p.all.until.After(now) && (class == classFirst || !p.later.until.After(now)) {
		p.spare--
		return 0
	}
	d := p.all.wait(now)
	if class == classLater {
		d = max(d, p.later.wait(now))
	}
	if d == 0 {
		p.all.limiter.AllowN(now, 1)
		if class == classLater {
			p.later.limiter.AllowN(now, 1)
		}
	}
	return d
}

// giveBack is for a turn that nothing was sent in.
func (p *pace) giveBack() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.spare = min(p.spare+1, p.all.limiter.Burst())
	p.run()
}

// slow hears of a 429 to an attempt of a class.
func (p *pace) slow(class int, resp *http.Response, sent time.Time) {
	p.limited.Add(1)
	p.mu.Lock()
	defer p.mu.Unlock()
	h := &p.all
	if class == classLater && strings.HasPrefix(resp.Header.Get("Stripe-Rate-Limited-Reason"), "endpoint-") {
		h = &p.later
	}
	h.slow(time.Now(), sent, retryAfter(resp))
}

// isOneObject says of a 429 that it is not about how much we send, but about one object that is in use.
func isOneObject(resp *http.Response, body []byte) bool {
	if resp.Header.Get("Stripe-Rate-Limited-Reason") == "resource-specific" {
		return true
	}
	var wire wireError
	return json.Unmarshal(body, &wire) == nil && wire.Error != nil && wire.Error.Code == "lock_timeout"
}

type laterKey struct{}

// Later marks the calls under the context as ones that nobody waits for: they take the turns that the others leave.
func Later(ctx context.Context) context.Context { return context.WithValue(ctx, laterKey{}, true) }

func classOf(ctx context.Context) int {
	if later, _ := ctx.Value(laterKey{}).(bool); later {
		return classLater
	}
	return classFirst
}

// Turn is the right to one attempt. Who has more to send than turns takes one first, and then decides what is most
// urgent at that moment.
type Turn struct {
	pace  *pace
	spent atomic.Bool
}

type turnKey struct{}

// Turn waits for a turn, for as long as ctx lives. The first attempt under the context that it returns is sent in it.
func (c *Client) Turn(ctx context.Context) (context.Context, *Turn, error) {
	t := &Turn{pace: c.pace}
	if _, err := c.pace.wait(ctx, classOf(ctx)); err != nil {
		return ctx, nil, err
	}
	return context.WithValue(ctx, turnKey{}, t), t, nil
}

// GiveBack lets another have the turn, unless something was sent in it.
func (t *Turn) GiveBack() {
	if t.spent.CompareAndSwap(false, true) {
		t.pace.giveBack()
	}
}

// turn is wait for an attempt, which may have its turn already. In a pause there is none.
func (p *pace) turn(ctx context.Context) (blocked bool, err error) {
	if t, ok := ctx.Value(turnKey{}).(*Turn); ok && t.pace == p {
		p.mu.Lock()
		now := time.Now()
		paused := p.all.until.After(now) || classOf(ctx) == classLater && p.later.until.After(now)
		p.mu.Unlock()
		switch {
		case paused:
			t.GiveBack()
		case t.spent.CompareAndSwap(false, true):
			return false, nil
		}
	}
	return p.wait(ctx, classOf(ctx))
}

// Pace is how fast Stripe is called, and who waits.
type Pace struct {
	PerSecond, Full              float64 // turns a second: now, and when Stripe refuses none
	LaterPerSecond               float64 // of those, the most that are for what can be later
	FirstWaiting, LaterWaiting   int     // calls that wait for a turn, of each class
	FirstAttempts, LaterAttempts int64   // attempts sent so far
	Limited                      int64   // answers so far that said we call too often
}

// Pace answers how fast Stripe is called now.
func (c *Client) Pace() Pace {
	p := c.pace
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	return Pace{PerSecond: p.all.at(now), Full: p.all.full, LaterPerSecond: min(p.all.at(now), p.later.at(now)),
		FirstWaiting: p.waiting[classFirst].Len(), LaterWaiting: p.waiting[classLater].Len(),
		FirstAttempts: p.sent[classFirst].Load(), LaterAttempts: p.sent[classLater].Load(), Limited: p.limited.Load()}
}
