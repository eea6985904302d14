// Package stripesim is a stateful Stripe, API version 2023-10-16, that speaks
// HTTP: form-encoded requests in, JSON objects and signed webhooks out.
//
// It keeps what a prepaid-balance product depends on: customers and the
// transactions on their balance, payment methods, setup and payment intents,
// charges, refunds, disputes, invoices, events and webhook endpoints. Requests
// carry idempotency keys that replay, refuse other parameters and expire as
// Stripe's do; events are stored for GET /v1/events and delivered at least
// once, in no order, until the endpoint answers 2xx.
//
// Three things differ from Stripe on purpose. The clock can be moved (Advance).
// Calls and deliveries can be made to fail (Inject, InjectDelivery). And a
// person at the dashboard is a Go value (Operator).
//
// What is always true, and what Check verifies: a customer's balance is the sum
// of its balance transactions, a charge's amount_refunded is the sum of its
// refunds, and every event is about an object that exists.
package stripesim

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"
)

// APIVersion is the version of every object the simulator renders.
const APIVersion = "2023-10-16"

// DefaultSecretKey is the API key when Options names none.
const DefaultSecretKey = "sk_test_stripesim"

// Stripe tries for three days, ever more slowly; the first steps are short
// here so that a developer who restarts the receiver does not wait.
var defaultRetrySchedule = []time.Duration{
	time.Second, 5 * time.Second, 30 * time.Second, 2 * time.Minute, 10 * time.Minute, 30 * time.Minute,
	time.Hour, 3 * time.Hour, 6 * time.Hour, 12 * time.Hour, 24 * time.Hour, 24 * time.Hour,
}

// Options configure a simulator. The zero value is a test-mode Stripe in
// memory.
type Options struct {
	SecretKey     string           // default DefaultSecretKey; livemode is read off it
	Now           func() time.Time // base clock, default time.Now; Advance adds to it
	Logger        *slog.Logger     // nil: discard
	File          string           // state is kept here between runs; empty: memory only
	RetrySchedule []time.Duration  // waits between webhook attempts, on the simulator's clock
	RateLimit     float64          // requests per second before 429 rate_limit; 0: none
	PagesURL      string           // where this simulator can be browsed, such as http://127.0.0.1:12111: the urls of pages lead there
}

// Sim is one Stripe account. It is an http.Handler for /v1/... and for the pages that Stripe hosts.
type Sim struct {
	key      string
	livemode bool
	base     func() time.Time
	log      *slog.Logger
	retries  []time.Duration
	file     string
	pages    string
	client   *http.Client
	limiter  *bucket

	// mu guards everything below. Requests execute one at a time under it, which
	// is what makes writes to one customer serial.
	mu         sync.Mutex
	state      *state
	inFlight   map[string]bool // idempotency keys being executed
	faults     []*Fault
	delivering []*DeliveryFault
	choose     func(Event) *DeliveryFault
	overtaken  []*overtaken
	requests   []Request
	reused     []string  // descriptions of keys used with two parameter sets
	attempts   int       // webhook attempts now on the wire
	swept      time.Time // when expire last ran
	changed    chan struct{}
	generation uint64 // counts changes of state, for the file

	save sync.Mutex // one writer of the file; guards saved
	// saved is the generation that the file holds.
	saved uint64

	wake chan struct{}
	stop context.CancelFunc
	ctx  context.Context
	wg   sync.WaitGroup
}

// New returns a running simulator. Close it.
func New(o Options) (*Sim, error) {
	s := &Sim{
		key: o.SecretKey, base: o.Now, log: o.Logger, retries: o.RetrySchedule, file: o.File, pages: o.PagesURL,
		state: newState(), inFlight: map[string]bool{},
		changed: make(chan struct{}), wake: make(chan struct{}, 1),
	}
	if s.key == "" {
		s.key = DefaultSecretKey
	}
	s.livemode = strings.Contains(s.key, "_live_")
	if s.base == nil {
		s.base = time.Now
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.retries == nil {
		s.retries = defaultRetrySchedule
	}
	if o.RateLimit > 0 {
		s.limiter = &bucket{rate: o.RateLimit, tokens: o.RateLimit}
	}
	s.client = newDeliveryClient()
	if s.file != "" {
		if err := s.load(); err != nil {
			return nil, fmt.Errorf("stripesim: state file %s: %w", s.file, err)
		}
	}
	s.ctx, s.stop = context.WithCancel(context.Background())
	s.wg.Add(1)
	go s.run()
	return s, nil
}

// Close stops deliveries and waits for those on the wire to end. What was not
// delivered stays in the state file.
func (s *Sim) Close() {
	s.mu.Lock()
	s.stop() // under the lock: pump starts no attempt after it
	s.mu.Unlock()
	s.wg.Wait()
	s.client.CloseIdleConnections()
	s.flush(s.mark())
}

// SecretKey is the API key the simulator accepts.
func (s *Sim) SecretKey() string { return s.key }

// Now is the simulator's time: the base clock plus everything Advance added.
func (s *Sim) Now() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now()
}

func (s *Sim) now() time.Time { return s.base().Add(s.state.Offset) }
func (s *Sim) unix() int64    { return s.now().Unix() }

// Advance moves the clock and runs everything that falls due on the way, each
// thing at its own time. Deliveries that fall due are started; Settle waits for
// them.
func (s *Sim) Advance(d time.Duration) {
	s.mu.Lock()
	end := s.state.Offset + max(d, 0)
	target := s.base().Add(end)
	for {
		j := s.state.nextJob(target)
		if j == nil {
			break
		}
		if ahead := j.At.Sub(s.now()); ahead > 0 {
			s.state.Offset += ahead
		}
		s.runJob(j)
	}
	s.state.Offset = end
	s.expire()
	generation := s.touch()
	s.mu.Unlock()
	s.flush(generation)
	s.pump()
}

// run does what falls due while the clock moves by itself.
func (s *Sim) run() {
	defer s.wg.Done()
	// A base clock of the caller's may jump without telling, so the loop looks
	// again after a quarter of a second at the latest.
	const longest = 250 * time.Millisecond
	timer := time.NewTimer(longest)
	defer timer.Stop()
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-s.wake:
		case <-timer.C:
		}
		s.runDue()
		s.pump()
		timer.Reset(min(max(s.untilDue(), time.Millisecond), longest))
	}
}

// runDue runs the jobs whose time has come.
func (s *Sim) runDue() {
	s.mu.Lock()
	ran := false
	for {
		j := s.state.nextJob(s.now())
		if j == nil {
			break
		}
		s.runJob(j)
		ran = true
	}
	var generation uint64
	if ran {
		generation = s.touch()
	}
	s.mu.Unlock()
	if ran {
		s.flush(generation)
	}
}

// touch records that the state changed and wakes whoever waits for a change.
// The caller holds mu.
func (s *Sim) touch() uint64 {
	s.generation++
	close(s.changed)
	s.changed = make(chan struct{})
	select {
	case s.wake <- struct{}{}:
	default: // the loop has been told already
	}
	return s.generation
}

func (s *Sim) mark() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.touch()
}

// expire forgets what Stripe forgets: idempotency keys after 24 hours, events
// after 30 days. It looks at all of them, so once a minute has to do; whoever
// reads a key looks at its age again.
func (s *Sim) expire() {
	now := s.now()
	if now.Sub(s.swept) < time.Minute {
		return
	}
	s.swept = now
	for key, saved := range s.state.Keys {
		if now.Sub(saved.Created) >= keyLife {
			delete(s.state.Keys, key)
		}
	}
	s.state.dropEvents(now.Add(-eventLife).Unix())
}
