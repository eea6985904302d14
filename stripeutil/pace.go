package stripeutil

import (
	"container/list"
	"context"
	"encoding/json"
	"math"
	"net/http"
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
// once a second, and comes back by a twentieth of its full height each second. It never falls below a twentieth.
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
	full    float64 // turns a second, as long as Stripe takes them
	low     float64 // what the last cut left
	cut     time.Time
	until   time.Time // no turn before
	limiter *rate.Limiter
	spare   int // turns that were given back
	waiting [classes]*list.List
	armed   bool // a timer will call run

	sent    [classes]atomic.Int64 // attempts
	limited atomic.Int64
}

// newPace allows so many turns a second, and a small burst, which keeps the first second of a busy start below Stripe's
// limit as well: rate + burst ≤ 100 (or 25).
func newPace(perSecond float64) *pace {
	p := &pace{full: perSecond, low: perSecond, limiter: rate.NewLimiter(rate.Limit(perSecond), max(1, int(perSecond/10)))}
	for c := range p.waiting {
		p.waiting[c] = list.New()
	}
	return p
}

// at is the pace of a moment.
func (p *pace) at(now time.Time) float64 {
	since := p.cut
	if p.until.After(since) {
		since = p.until
	}
	if since.IsZero() || p.low >= p.full {
		return p.full
	}
	return min(p.full, p.low+p.full*paceRaise*max(0, now.Sub(since).Seconds()))
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
	turns := float64(ahead+1-p.spare) - p.limiter.TokensAt(now)
	return max(seconds(turns/p.full), p.until.Sub(now), 0)
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
		next := p.waiting[classFirst]
		if next.Len() == 0 {
			next = p.waiting[classLater]
		}
		if next.Len() == 0 {
			return
		}
		if d := p.take(time.Now()); d > 0 {
			p.arm(d)
			return
		}
		if w, ok := next.Remove(next.Front()).(*waiter); ok {
			close(w.ready)
		}
	}
}

// take takes a turn, or answers when to ask again.
func (p *pace) take(now time.Time) time.Duration {
	if d := p.until.Sub(now); d > 0 {
		return d
	}
	if p.spare > 0 {
		p.spare--
		return 0
	}
	p.limiter.SetLimitAt(now, rate.Limit(p.at(now)))
	if p.limiter.AllowN(now, 1) {
		return 0
	}
	return max(seconds((1-p.limiter.TokensAt(now))/p.at(now)), time.Microsecond)
}

func (p *pace) arm(d time.Duration) {
	if p.armed {
		return
	}
	p.armed = true
	time.AfterFunc(d, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.armed = false
		p.run()
	})
}

// giveBack is for a turn that nothing was sent in.
func (p *pace) giveBack() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.spare = min(p.spare+1, p.limiter.Burst())
	p.run()
}

// slow hears of a 429 to an attempt that was sent at that time, and for how long Stripe asked to be left alone.
func (p *pace) slow(sent time.Time, asked time.Duration) {
	p.limited.Add(1)
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if !p.cut.IsZero() && sent.Before(p.cut.Add(cutEvery)) {
		p.pause(now, asked)
		return // it says nothing of the pace since
	}
	p.low, p.cut = max(p.at(now)/2, p.full*paceFloor), now
	p.pause(now, asked)
}

func (p *pace) pause(now time.Time, asked time.Duration) {
	if until := now.Add(min(asked, longestPause)); asked > 0 && until.After(p.until) {
		p.until = until
	}
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
		paused := p.until.After(time.Now())
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
	FirstWaiting, LaterWaiting   int     // calls that wait for a turn, of each class
	FirstAttempts, LaterAttempts int64   // attempts sent so far
	Limited                      int64   // answers so far that said we call too often
}

// Pace answers how fast Stripe is called now.
func (c *Client) Pace() Pace {
	p := c.pace
	p.mu.Lock()
	defer p.mu.Unlock()
	return Pace{PerSecond: p.at(time.Now()), Full: p.full,
		FirstWaiting: p.waiting[classFirst].Len(), LaterWaiting: p.waiting[classLater].Len(),
		FirstAttempts: p.sent[classFirst].Load(), LaterAttempts: p.sent[classLater].Load(), Limited: p.limited.Load()}
}
