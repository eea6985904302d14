package stripesim

import (
	"crypto/rand"
	"slices"
	"time"
)

const (
	keyLife   = 24 * time.Hour      // Stripe may prune idempotency keys from then on
	eventLife = 30 * 24 * time.Hour // GET /v1/events goes back 30 days
)

// state is all that a restart must find again: see file.go.
type state struct {
	Offset time.Duration // what Advance added to the clock

	Customers           table[customer]
	BalanceTransactions table[balanceTransaction] `json:"-"` // lines of their own in the file, like events
	PaymentMethods      table[paymentMethod]
	SetupIntents        table[setupIntent]
	PaymentIntents      table[paymentIntent]
	Charges             table[charge]
	Refunds             table[refund]
	Disputes            table[dispute]
	Invoices            table[invoice]
	InvoiceItems        table[invoiceItem]
	CreditNotes         table[creditNote]
	Products            table[product]
	Prices              table[price]
	Sessions            table[checkoutSession]
	Subscriptions       table[subscription]
	Endpoints           table[endpoint]
	Events              table[event] `json:"-"`

	Tokens  map[string]string        // payment method id -> the test token it came from
	Used    map[string]bool          // payment methods spent or detached: never usable again
	Set     map[string]bool          // payment methods authenticated in a setup: see testCard.authOnSetup
	Plans   map[string]*checkoutPlan // by checkout session
	Next    map[string]nextPlan      // by subscription: what its next period is of
	Tiers   map[string]int64         // by price in tiers: what one costs, whatever the tier
	Waiting map[string][]string      // event id -> endpoints that have not accepted it yet
	Pending []*delivery              // deliveries still to be tried
	Keys    map[string]*savedKey     // idempotency keys
	Jobs    []*job                   // what Stripe will do by itself

	Elsewhere map[string]bool // customers of the account's other mode

	Portals  map[string]portalVisit // billing portals that were opened, by the end of their url
	NoPortal bool                   // nobody has saved the billing portal's settings yet
}

func newState() *state {
	st := &state{}
	st.repair()
	return st
}

// repair makes every map of a decoded state writable.
func (st *state) repair() {
	if st.Elsewhere == nil {
		st.Elsewhere = map[string]bool{}
	}
	if st.Portals == nil {
		st.Portals = map[string]portalVisit{}
	}
	if st.Tokens == nil {
		st.Tokens = map[string]string{}
	}
	if st.Used == nil {
		st.Used = map[string]bool{}
	}
	if st.Set == nil {
		st.Set = map[string]bool{}
	}
	if st.Plans == nil {
		st.Plans = map[string]*checkoutPlan{}
	}
	if st.Tiers == nil {
		st.Tiers = map[string]int64{}
	}
	if st.Next == nil {
		st.Next = map[string]nextPlan{}
	}
	if st.Waiting == nil {
		st.Waiting = map[string][]string{}
	}
	if st.Keys == nil {
		st.Keys = map[string]*savedKey{}
	}
}

// table holds the objects of one kind in the order of their creation; created
// is in seconds, so the order cannot be read off the objects.
type table[T any] struct {
	Order []string
	Rows  map[string]*T

	kept map[string][]byte // lines of the state file; see line
}

func (t *table[T]) put(id string, row *T) {
	if t.Rows == nil {
		t.Rows = map[string]*T{}
	}
	if _, ok := t.Rows[id]; !ok {
		t.Order = append(t.Order, id)
	}
	t.Rows[id] = row
	delete(t.kept, id)
}

// line renders a row for the state file and keeps the result until the row is
// put again: whoever changes such a row must put it.
func (t *table[T]) line(id string, r record) []byte {
	if l := t.kept[id]; l != nil {
		return l
	}
	if t.kept == nil {
		t.kept = map[string][]byte{}
	}
	t.kept[id] = encode(r)
	return t.kept[id]
}

func (t *table[T]) get(id string) *T { return t.Rows[id] }

func (t *table[T]) remove(id string) {
	delete(t.Rows, id)
	t.Order = slices.DeleteFunc(t.Order, func(o string) bool { return o == id })
}

// oldest calls f for each row, oldest first.
func (t *table[T]) oldest(yield func(string, *T) bool) {
	for _, id := range t.Order {
		if !yield(id, t.Rows[id]) {
			return
		}
	}
}

// job is something that Stripe does by itself at a time.
type job struct {
	At   time.Time
	Kind string
	ID   string
}

// nextJob takes out the earliest job due by t, nil when there is none.
func (st *state) nextJob(t time.Time) *job {
	best := -1
	for i, j := range st.Jobs {
		if !j.At.After(t) && (best < 0 || j.At.Before(st.Jobs[best].At)) {
			best = i
		}
	}
	if best < 0 {
		return nil
	}
	j := st.Jobs[best]
	st.Jobs = slices.Delete(st.Jobs, best, best+1)
	return j
}

func (st *state) dropJobs(kind, id string) {
	st.Jobs = slices.DeleteFunc(st.Jobs, func(j *job) bool { return j.Kind == kind && j.ID == id })
}

// dropEvents forgets the events created before t. Events are in order of
// creation, so the old ones are at the front.
func (st *state) dropEvents(t int64) {
	for len(st.Events.Order) > 0 {
		id := st.Events.Order[0]
		if st.Events.Rows[id].Created >= t {
			return
		}
		delete(st.Events.Rows, id)
		delete(st.Events.kept, id)
		delete(st.Waiting, id)
		st.Pending = slices.DeleteFunc(st.Pending, func(d *delivery) bool { return d.Event == id })
		st.Events.Order = st.Events.Order[1:]
	}
}

const idAlphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

// newID makes an id in Stripe's form: a prefix and n random characters.
func newID(prefix string, n int) string {
	b := make([]byte, n)
	if _, err := rand.Read(b); err != nil {
		panic(err) // the operating system has no randomness: nothing can go on
	}
	for i := range b {
		b[i] = idAlphabet[int(b[i])%len(idAlphabet)]
	}
	return prefix + string(b)
}

// opt is a string that is null on the wire when empty.
type opt string

func (o opt) MarshalJSON() ([]byte, error) {
	if o == "" {
		return []byte("null"), nil
	}
	return encode(string(o)), nil
}

// optInt is an integer that is null on the wire when zero.
type optInt int64

func (o optInt) MarshalJSON() ([]byte, error) {
	if o == 0 {
		return []byte("null"), nil
	}
	return encode(int64(o)), nil
}
