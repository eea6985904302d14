package stripesim

import (
	"net/http"
	"slices"
	"strings"
	"time"
)

// FaultKind is what goes wrong with a call.
type FaultKind int

const (
	NoFault        FaultKind = iota // nothing: for a Fault that only sets EventFirst
	DropBefore                      // connection closed, nothing executed
	DropAfter                       // executed, then connection closed without an answer
	Error500Before                  // 500 saved under the key, effect not done
	Error500After                   // 500 saved under the key, effect done, events sent
	RateLimited                     // 429 rate_limit
	LockTimeout                     // 429 lock_timeout
	Conflict                        // 409 idempotency_key_in_use
	Unavailable                     // 503
	Unauthorized                    // 401
	Forbidden                       // 403: a restricted key without the right
	Slow                            // waits Delay of real time, then executes
	TruncateBody                    // executes, answers half the body
)

// Fault is something that goes wrong with matching calls. Faults are looked at
// in the order they were injected and the first that matches is used, so a call
// meets one fault at most.
type Fault struct {
	Method, Path string // "POST", "/v1/payment_intents"; Path may end in *; empty: any
	Kind         FaultKind
	Delay        time.Duration
	RetryAfter   string // Retry-After header
	ShouldRetry  string // Stripe-Should-Retry header: "", "true", "false"
	EventFirst   bool   // deliver this call's webhooks, and wait for the outcome, before answering
	Times        int    // calls it is used for: 0 is once, negative for ever
}

func (f *Fault) is(k FaultKind) bool { return f != nil && f.Kind == k }

// changesOutcome tells the faults that alter what is executed. A replayed answer
// is not executed, so they wait for a call that is.
func (f *Fault) changesOutcome() bool {
	return f.Kind == Error500Before || f.Kind == Error500After || f.Kind == Slow || f.EventFirst
}

// Inject adds a fault.
func (s *Sim) Inject(f Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f.Times = atLeastOnce(f.Times)
	s.faults = append(s.faults, &f)
}

// ClearFaults forgets all faults on calls and deliveries. Events already held
// stay held until Release.
func (s *Sim) ClearFaults() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults, s.delivering, s.choose = nil, nil, nil
}

func atLeastOnce(times int) int {
	if times == 0 {
		return 1
	}
	return times
}

// takeFault finds the fault for a request and uses it up.
func (s *Sim) takeFault(q *request) *Fault {
	replay := q.key != "" && s.unexpired(q.key) != nil
	for i, f := range s.faults {
		if f.Method != "" && f.Method != q.method || !matchPath(f.Path, q.path) || replay && f.changesOutcome() {
			continue
		}
		if f.EventFirst && q.method == http.MethodGet { // reading makes no events
			continue
		}
		used := *f
		if f.Times > 0 {
			if f.Times--; f.Times == 0 {
				s.faults = slices.Delete(s.faults, i, i+1)
			}
		}
		return &used
	}
	return nil
}

func matchPath(pattern, path string) bool {
	if prefix, wild := strings.CutSuffix(pattern, "*"); wild {
		return strings.HasPrefix(path, prefix)
	}
	return pattern == "" || pattern == path
}

// DeliveryFaultKind is what goes wrong with a webhook.
type DeliveryFaultKind int

const (
	Lose      DeliveryFaultKind = iota // never delivered: GET /v1/events is the only way to it
	LoseOnce                           // the first attempt is lost, then it is retried
	Duplicate                          // delivered twice
	Twin                               // a second Event, with an id of its own, for the same change
	Delay                              // delivered after Delay on the simulator's clock
	Hold                               // kept until Release
	Past                               // kept until the next event was accepted, or until Release
	First                              // the call that made the event is answered only after it was delivered
	// The rest spoil one attempt each, so that a retry arrives sound.
	WrongSecret
	StaleTimestamp // signed an hour ago
	WrongAPIVersion
	WrongLivemode
	HugeBody // padded to a few megabytes, correctly signed
)

// DeliveryFault is something that goes wrong with matching webhooks.
type DeliveryFault struct {
	Type  string // event type; "" and "*" are any
	Kind  DeliveryFaultKind
	Delay time.Duration
	Times int // events, or attempts, it is used for: 0 is once, negative for ever

	// Next says, of Past, which event is the next: of those made after it the first that it is true of; nil: any.
	Next func(Event) bool
	// Until is called, of Past with the next event and of First with the event itself, once it was delivered; what
	// waits for the delivery goes on when it returns.
	Until func(event string)
}

// ChooseDelivery has f say, of each event as it is made, what goes wrong with its delivery; nil is nothing. Injected
// faults come before it. It is called, as Next is, in the midst of what makes the event, and must not call the simulator.
// Faults of single attempts it can't choose.
func (s *Sim) ChooseDelivery(f func(Event) *DeliveryFault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.choose = f
}

// InjectDelivery adds a fault on deliveries of events that happen from now on.
func (s *Sim) InjectDelivery(f DeliveryFault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f.Times = atLeastOnce(f.Times)
	s.delivering = append(s.delivering, &f)
}

// takeDelivery finds the fault for an event (at its creation) or for an attempt
// to deliver it.
func (s *Sim) takeDelivery(kind string, atAttempt bool) *DeliveryFault {
	for i, f := range s.delivering {
		if f.Type != "" && f.Type != "*" && f.Type != kind || (f.Kind >= WrongSecret) != atAttempt {
			continue
		}
		used := *f
		if f.Times > 0 {
			if f.Times--; f.Times == 0 {
				s.delivering = slices.Delete(s.delivering, i, i+1)
			}
		}
		return &used
	}
	return nil
}
