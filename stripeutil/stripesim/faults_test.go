package stripesim_test

import (
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stripe/stripe-go/v76"

	"lockstep/stripeutil/stripesim"
)

// Each fault on a call, and what the caller finds when it sends the call again
// under the same key. done says whether the effect is there after the fault.
func TestCallFaults(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		kind     stripesim.FaultKind
		status   int // 0: the call fails without an answer
		done     bool
		again    int
		replayed bool
	}{
		"DropBefore":     {stripesim.DropBefore, 0, false, 200, false},
		"DropAfter":      {stripesim.DropAfter, 0, true, 200, true},
		"TruncateBody":   {stripesim.TruncateBody, 0, true, 200, true},
		"Error500Before": {stripesim.Error500Before, 500, false, 500, true},
		"Error500After":  {stripesim.Error500After, 500, true, 500, true},
		"RateLimited":    {stripesim.RateLimited, 429, false, 200, false},
		"LockTimeout":    {stripesim.LockTimeout, 429, false, 200, false},
		"Conflict":       {stripesim.Conflict, 409, false, 200, false},
		"Unavailable":    {stripesim.Unavailable, 503, false, 200, false},
		"Unauthorized":   {stripesim.Unauthorized, 401, false, 200, false},
		"Slow":           {stripesim.Slow, 200, true, 200, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			cus := w.customer()
			path := "/v1/customers/" + cus + "/balance_transactions"
			w.Inject(stripesim.Fault{Method: "POST", Path: "/v1/customers/*", Kind: c.kind, Delay: 20 * time.Millisecond})
			w.get("/v1/customers/"+cus, "") // another method: not meant
			n := len(w.Events())
			r := w.post(path, "amount=-5&currency=usd", "Idempotency-Key", "k")
			if c.status == 0 && r.err == nil || c.status != 0 && r.status != c.status {
				t.Errorf("got %d %v %s", r.status, r.err, r.body)
			}
			events := 0
			if c.done {
				events = 1
			}
			if got := len(w.BalanceTransactions(cus)); got != events || len(w.Events())-n != events {
				t.Errorf("%d transactions, %d events", got, len(w.Events())-n)
			}
			again := w.post(path, "amount=-5&currency=usd", "Idempotency-Key", "k")
			if again.status != c.again || (again.header.Get("Idempotent-Replayed") == "true") != c.replayed {
				t.Errorf("again: %d %v %s", again.status, again.header, again.body)
			}
			want := 1
			if name == "Error500Before" {
				want = 0
			}
			if got := len(w.BalanceTransactions(cus)); got != want {
				t.Errorf("%d transactions in the end", got)
			}
		})
	}
}

// A fault is used as often as it says, in the order of injection, and not by
// replays that it could not change.
func TestFaultTimes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.must(w.post("/v1/customers", "", "Idempotency-Key", "k"))
	w.Inject(stripesim.Fault{Kind: stripesim.Error500Before})
	w.must(w.post("/v1/customers", "", "Idempotency-Key", "k"))
	if r := w.post("/v1/customers", ""); r.status != 500 {
		t.Errorf("the replay used the fault up: %d", r.status)
	}
	w.Inject(stripesim.Fault{Kind: stripesim.Unavailable, Times: 2})
	w.Inject(stripesim.Fault{Kind: stripesim.Unauthorized, Times: -1})
	for i, want := range []int{503, 503, 401, 401, 401} {
		if r := w.post("/v1/customers", ""); r.status != want {
			t.Errorf("call %d: %d, want %d", i, r.status, want)
		}
	}
	w.ClearFaults()
	w.must(w.post("/v1/customers", ""))
}

// The webhook can overtake the answer.
func TestEventFirst(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	b := w.listen()
	var answered, early atomic.Bool
	b.onEvent = func(e stripe.Event) { early.Store(!answered.Load()); time.Sleep(20 * time.Millisecond) }
	w.Inject(stripesim.Fault{EventFirst: true})
	w.must(w.post("/v1/customers", ""))
	if n := len(b.events()); n != 1 {
		t.Errorf("%d events before the answer", n)
	}
	answered.Store(true)
	if !early.Load() {
		t.Error("the event came after the answer")
	}
}

func TestDeliveryLost(t *testing.T) {
	t.Parallel()
	w := newWorld(t, retries(time.Minute))
	b := w.listen()
	w.InjectDelivery(stripesim.DeliveryFault{Type: "customer.created", Kind: stripesim.Lose})
	w.withCard("pm_card_visa")
	w.Advance(24 * time.Hour)
	w.settle()
	if got := b.events(); len(got) != 1 || got[0].Type != "payment_method.attached" {
		t.Errorf("%d events", len(got))
	}
	r := w.must(w.get("/v1/events", "delivery_success=false"))
	if data := r.json["data"].([]any); len(data) != 1 || data[0].(map[string]any)["type"] != "customer.created" {
		t.Errorf("backfill: %s", r.body)
	}
}

func TestDeliveryLostOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t, retries(time.Minute))
	b := w.listen()
	w.InjectDelivery(stripesim.DeliveryFault{Kind: stripesim.LoseOnce})
	w.customer()
	w.settle()
	if n := len(b.payloads); n != 0 {
		t.Errorf("%d attempts arrived", n)
	}
	w.Advance(time.Minute)
	w.settle()
	if n := len(b.events()); n != 1 {
		t.Errorf("%d events", n)
	}
}

func TestDeliveryTwice(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	b := w.listen()
	w.InjectDelivery(stripesim.DeliveryFault{Kind: stripesim.Duplicate})
	w.customer()
	w.settle()
	if got := b.ids(); len(got) != 2 || got[0] != got[1] || len(w.Events()) != 1 {
		t.Errorf("duplicate: %v", got)
	}
	w.InjectDelivery(stripesim.DeliveryFault{Kind: stripesim.Twin})
	w.customer()
	w.settle()
	events := w.Events()[1:]
	if len(events) != 2 || events[0].ID == events[1].ID || events[0].ObjectID != events[1].ObjectID || len(b.ids()) != 4 {
		t.Errorf("twins: %+v", events)
	}
}

func TestDeliveryDelayed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	b := w.listen()
	w.InjectDelivery(stripesim.DeliveryFault{Kind: stripesim.Delay, Delay: 3 * time.Hour})
	w.customer()
	w.Advance(2 * time.Hour)
	w.settle()
	if n := len(b.events()); n != 0 {
		t.Errorf("%d events too early", n)
	}
	w.Advance(time.Hour)
	w.settle()
	// Signed at the simulator's time, hours ahead of the wall clock that stripe-go
	// compares with; it minds only the past.
	if n := len(b.events()); n != 1 {
		t.Errorf("%d events; %v", n, b.failures())
	}
}

// Held events come when released, the last one first.
func TestDeliveryHeldAndReversed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	b := w.listen()
	w.InjectDelivery(stripesim.DeliveryFault{Kind: stripesim.Hold, Times: -1})
	cus, pm := w.withCard("pm_card_visa")
	w.must(w.charge(cus, pm, "500"))
	w.settle()
	if n := len(b.events()); n != 0 {
		t.Fatalf("%d events came though held", n)
	}
	w.ClearFaults()
	w.Release()
	var want []string
	for _, e := range slices.Backward(w.Events()) {
		want = append(want, e.ID)
	}
	if got := b.ids(); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// A spoiled attempt is refused by whoever checks, and the retry is sound.
func TestDeliverySpoiled(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		kind    stripesim.DeliveryFaultKind
		refused bool
	}{
		"WrongSecret":     {stripesim.WrongSecret, true},
		"StaleTimestamp":  {stripesim.StaleTimestamp, true},
		"WrongAPIVersion": {stripesim.WrongAPIVersion, true},
		"WrongLivemode":   {stripesim.WrongLivemode, false},
		"HugeBody":        {stripesim.HugeBody, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, retries(time.Second))
			b := w.listen()
			w.InjectDelivery(stripesim.DeliveryFault{Type: "customer.created", Kind: c.kind})
			w.customer()
			w.settle()
			if (len(b.failures()) == 1) != c.refused {
				t.Fatalf("refusals: %v", b.failures())
			}
			switch name {
			case "WrongLivemode":
				if !b.events()[0].Livemode {
					t.Error("livemode is right")
				}
			case "HugeBody":
				if n := len(b.payloads[0]); n < 1<<20 {
					t.Errorf("%d bytes", n)
				}
			default:
				w.Advance(time.Second)
				w.settle()
				if len(b.events()) != 1 {
					t.Error("the retry was refused too")
				}
			}
		})
	}
}

// Check notices what does not add up.
func TestCheckCanFail(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.check = false
	w.post("/v1/customers", "name=a", "Idempotency-Key", "k")
	if err := w.Check(); err != nil {
		t.Fatal(err)
	}
	w.post("/v1/customers", "name=b", "Idempotency-Key", "k")
	if err := w.Check(); err == nil || !strings.Contains(err.Error(), "two sets of parameters") {
		t.Errorf("%v", err)
	}
}

// An event may be kept until the next of a kind has come, and until the receiver is through with that.
func TestDeliveryOvertaken(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	b := w.listen()
	var mu sync.Mutex
	var story []string
	tell := func(s string) { mu.Lock(); defer mu.Unlock(); story = append(story, s) }
	told := func() []string { mu.Lock(); defer mu.Unlock(); return slices.Clone(story) }
	b.onEvent = func(e stripe.Event) { tell(string(e.Type)) }
	w.InjectDelivery(stripesim.DeliveryFault{Type: "customer.created", Kind: stripesim.Past,
		Next:  func(e stripesim.Event) bool { return e.Type == "payment_intent.succeeded" },
		Until: func(id string) { time.Sleep(20 * time.Millisecond); tell("until " + id[:4]) }}) // it takes its time
	cus, pm := w.withCard("pm_card_visa")
	w.settle()
	if got := told(); !slices.Equal(got, []string{"payment_method.attached"}) {
		t.Fatalf("before the next: %v", got)
	}
	w.must(w.charge(cus, pm, "500"))
	w.settle()
	for end := time.Now().Add(5 * time.Second); len(told()) < 6; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("what was overtaken never came: %v", told())
		}
	}
	got := told()
	next, until, at := slices.Index(got, "payment_intent.succeeded"), slices.Index(got, "until evt_"), slices.Index(got, "customer.created")
	if next > until || until > at {
		t.Errorf("%v", got)
	}
	// One that nothing overtakes comes when it is released.
	w.InjectDelivery(stripesim.DeliveryFault{Type: "customer.created", Kind: stripesim.Past})
	w.customer()
	w.settle()
	if n := len(b.events()); n != 5 {
		t.Errorf("%d events before the release", n)
	}
	w.Release()
	if n := len(b.events()); n != 6 {
		t.Errorf("%d events", n)
	}
}

// One event may come, and be worked off, before the answer of the call that made it.
func TestDeliveryBeforeTheAnswer(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	b := w.listen()
	cus, pm := w.withCard("pm_card_visa")
	w.settle()
	var seen, until atomic.Int64
	w.ChooseDelivery(func(e stripesim.Event) *stripesim.DeliveryFault {
		if e.Type != "charge.succeeded" || e.RequestID == "" || !strings.HasPrefix(e.ObjectID, "ch_") || !strings.Contains(string(e.Object), cus) {
			return nil
		}
		return &stripesim.DeliveryFault{Kind: stripesim.First, Until: func(id string) {
			for _, e := range b.events() {
				if e.ID == id {
					seen.Add(1)
				}
			}
			time.Sleep(10 * time.Millisecond)
			until.Add(1)
		}}
	})
	w.must(w.charge(cus, pm, "500"))
	if seen.Load() != 1 || until.Load() != 1 {
		t.Errorf("answered with the event seen %d times and worked off %d times", seen.Load(), until.Load())
	}
	w.ClearFaults()
	w.must(w.charge(cus, pm, "500"))
	if until.Load() != 1 {
		t.Error("a fault that was cleared")
	}
}
