package main

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"lockstep/handlers"
	"lockstep/ledger"
	"lockstep/stripeutil/stripesim"
)

// scene is a world in which one scenario runs in several stories side by side. Each has customers of its own, and each
// something else that goes wrong with its webhooks; time passes for all of them at once, so that thirty cost little
// more than one.
type scene struct {
	w       *world
	parts   []*part // all stories that were told in this world
	playing []*part // those that go on
	last    string  // whom the last sentence was about

	mu    sync.Mutex
	of    map[string]*part // whose an object at Stripe is, by its id, or a customer, by ours
	event map[string]*part // whose an event is that has an effect
	count int              // events
	held  int              // events that wait for a release
	lost  int              // events that only the backfill brings
}

// part is one story.
type part struct {
	s        *scene
	name     string
	tag      string // ends the names of its customers
	fault    fault
	people   map[string]*person
	prices   map[string]string
	err      error   // what the last sentence came to
	disputed string  // the last payment at a bank
	now      *answer // the customer as last asked for
	nowOf    string
	broken   bool // it went another way, and is left alone

	seen   map[string]int
	events []told
	met    int // how often the fault happened
}

// told is an event that Stripe made: the n-th of its type in its story.
type told struct {
	kind  string
	n     int
	byAPI bool // made by a call of the gateway's
}

// person is a customer and what scenarios remember of them.
type person struct {
	id, stripe, wallet, card string
	topup, page, hold, sub   string
	refund, note             string
}

// fault is what goes wrong with the webhooks of one story: with the n-th of a type, or with all where n is below zero.
type fault struct {
	how  string
	kind string
	n    int
}

func (f fault) String() string {
	switch {
	case f.how == "":
		return "as it happens"
	case f.n < 0:
		return "every " + f.kind + " " + f.how
	}
	return fmt.Sprintf("%s no. %d %s", f.kind, f.n+1, f.how)
}

// others are the events that Lockstep does not act on; production does not even subscribe to them.
const others = "other event"

// acted says which events have an effect.
var acted = sync.OnceValue(func() map[string]bool {
	m := map[string]bool{}
	for _, t := range handlers.EventTypes() {
		m[t] = true
	}
	return m
})

// cast begins a story for each of the faults; those that were told before are over.
func (s *scene) cast(faults []fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.playing = nil
	for _, f := range faults {
		p := &part{s: s, name: f.String(), tag: fmt.Sprint(len(s.parts)), fault: f, people: map[string]*person{}, prices: map[string]string{}, seen: map[string]int{}}
		s.parts, s.playing = append(s.parts, p), append(s.playing, p)
	}
}

// person is a customer of a story by the name that the scenario uses.
func (p *part) person(name string) *person {
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	if p.people[name] == nil {
		id := strings.ToLower(name) + "-" + p.tag
		p.people[name] = &person{id: id}
		p.s.of[id] = p
	}
	return p.people[name]
}

// own notes whose an object at Stripe is.
func (s *scene) own(p *part, id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.of[id] = p
}

func (s *scene) owner(id string) *part {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.of[id]
}

// names finds what an object may be known by, and objects those ids of Stripe's that belong to one customer alone.
var (
	names   = regexp.MustCompile(`[A-Za-z0-9_-]+`)
	objects = regexp.MustCompile(`^(cus|pi|ch|cs|in|sub|re|dp|pm|seti|cn)_`)
)

// choose says what goes wrong with an event. Whose it is follows from what it names; what it names is theirs too.
func (s *scene) choose(e stripesim.Event) *stripesim.DeliveryFault {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.count++
	var p *part
	all := names.FindAllString(string(e.Object), -1)
	for _, name := range all {
		if p = s.of[name]; p != nil {
			break
		}
	}
	if p == nil {
		return nil
	}
	for _, name := range all {
		if objects.MatchString(name) && s.of[name] == nil {
			s.of[name] = p
		}
	}
	kind := e.Type
	if acted()[kind] {
		s.event[e.ID] = p
	} else {
		kind = others
	}
	if e.Type == "charge.dispute.created" {
		p.disputed = e.ObjectID
	}
	n := p.seen[kind]
	p.seen[kind]++
	p.events = append(p.events, told{kind, n, e.RequestID != ""})
	if f := p.fault; f.how == "" || f.kind != kind || f.n >= 0 && f.n != n {
		return nil
	}
	how := p.fault.how
	if how == inTurn {
		how = ways[p.met%len(ways)]
	}
	p.met++
	return s.goesWrong(p, how)
}

// ways are what can go wrong with a webhook.
var ways = []string{"lost", "doubled", "with a twin", "after the next", "last", "before the answer"}

// inTurn is each of the ways in turn.
const inTurn = "goes wrong, each in another way"

// goesWrong is what the simulator is to do, with the lock held.
func (s *scene) goesWrong(p *part, how string) *stripesim.DeliveryFault {
	switch how {
	case "lost":
		s.lost++
		return &stripesim.DeliveryFault{Kind: stripesim.Lose}
	case "doubled":
		return &stripesim.DeliveryFault{Kind: stripesim.Duplicate}
	case "with a twin":
		return &stripesim.DeliveryFault{Kind: stripesim.Twin}
	case "after the next":
		s.held++
		return &stripesim.DeliveryFault{Kind: stripesim.Past, Until: s.workedOff, Next: func(e stripesim.Event) bool {
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.event[e.ID] == p
		}}
	case "last":
		s.held++
		return &stripesim.DeliveryFault{Kind: stripesim.Hold}
	case "before the answer":
		return &stripesim.DeliveryFault{Kind: stripesim.First, Until: s.workedOff}
	}
	panic("no such fault: " + how)
}

// workedOff waits until an event has had its effect. Where that waits for something else in turn, it gives up soon.
func (s *scene) workedOff(event string) {
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		var n int
		if err := s.w.g.ledger.DB().Get(&n, `select count(*) from stripe_events where id = $1 and status <> 'pending'`, event); err != nil || n > 0 {
			return
		}
	}
}

// each does something for every story that goes on, a few at a time.
func each(parts []*part, f func(*part)) {
	var wg sync.WaitGroup
	room := make(chan struct{}, 6)
	for _, p := range parts {
		if p.broken {
			continue
		}
		room <- struct{}{}
		wg.Go(func() {
			defer func() { <-room }()
			f(p)
		})
	}
	wg.Wait()
}

// run plays a scenario, and answers whether all stories went as it says.
func (s *scene) run(sc *scenario) bool {
	s.w.t.Helper()
	for i := range sc.steps {
		st := &sc.steps[i]
		if st.verb.time != nil {
			if err := st.verb.time(s, st.args); err != nil {
				s.w.t.Fatalf("%s: %v", st.at, err)
			}
			if err := s.w.g.sweep(s.w.t.Context()); err != nil { // what is due, which the sweep would come to in a moment
				s.w.t.Fatal(err)
			}
		}
		s.last = st.about(s.last)
		each(s.playing, func(p *part) {
			if p.err = nil; st.verb.do != nil {
				p.err = st.verb.do(p, st.args)
			}
		})
		if len(st.figures) > 0 {
			s.settle(st)
			continue
		}
		for _, p := range s.playing {
			if p.err != nil && !p.broken {
				s.breaks(p, st, "failed: "+p.err.Error())
			}
		}
	}
	for _, p := range s.playing {
		if p.broken {
			return false
		}
	}
	return true
}

func (s *scene) breaks(p *part, st *step, why string) {
	s.w.t.Helper()
	p.broken = true
	s.w.t.Errorf("%s, %s: %s %s", st.at, p.name, st.text, why)
}

// about is the customer whom a sentence names first, or the one before.
func (st *step) about(before string) string {
	for i, m := range placeholder.FindAllStringSubmatch(st.verb.says, -1) {
		if m[1] == "who" {
			return st.args[i]
		}
	}
	return before
}

// settle waits until everything is quiet and every story shows the figures of a step, and still does when all that came
// of it is worked off. What is held back comes when all else is quiet, what was lost when somebody looks for missed events.
func (s *scene) settle(st *step) {
	s.w.t.Helper()
	open, checked, before := s.playing, -1, -1
	var end time.Time
	for {
		if !s.quiet() {
			s.w.t.Fatalf("%s: %s is never worked off: %s", st.at, st.text, s.pending())
		}
		if made := s.made(); made != before { // it goes on, on a slow machine too
			before, end = made, time.Now().Add(2*patience)
		}
		if s.bring() {
			continue
		}
		if made := s.made(); len(open) == 0 {
			if made == checked {
				return
			}
			open = s.playing
		}
		made := s.made()
		wrong := s.wrong(open, st)
		if len(open) == len(s.playing) {
			checked = made
		}
		if open = nil; time.Now().After(end) {
			for p, why := range wrong {
				s.breaks(p, st, "-> "+why)
			}
			return
		}
		for p := range wrong {
			open = append(open, p)
		}
		if len(open) > 0 {
			checked = -1
			time.Sleep(20 * time.Millisecond)
		}
	}
}

// wrong asks stories for what is not as a step says.
func (s *scene) wrong(parts []*part, st *step) map[*part]string {
	s.w.t.Helper()
	var mu sync.Mutex
	wrong, err := s.outOfStep()
	if err != nil {
		s.w.t.Fatal(err)
	}
	each(parts, func(p *part) {
		if why := p.wrong(st, s.last); why != "" {
			mu.Lock()
			defer mu.Unlock()
			wrong[p] = why
		}
	})
	return wrong
}

// quiet waits until every event that was delivered has been worked off, as long as one after the other is.
func (s *scene) quiet() bool {
	s.w.t.Helper()
	last, end := "", time.Time{}
	for ; ; time.Sleep(10 * time.Millisecond) {
		if err := s.w.sim.Settle(s.w.t.Context()); err != nil {
			s.w.t.Fatal(err)
		}
		what := s.pending()
		switch {
		case what == "":
			return true
		case what != last:
			last, end = what, time.Now().Add(2*patience)
		case time.Now().After(end):
			return false
		}
	}
}

// pending are the events that are yet to be worked off, and what they wait for.
func (s *scene) pending() (what string) {
	if err := s.w.g.ledger.DB().Get(&what, `select coalesce(string_agg(concat_ws(' ', type, 'tried', tries, last_error), '; '), '') from stripe_events where status = 'pending'`); err != nil {
		s.w.t.Fatal(err)
	}
	return what
}

// made is how many events there were.
func (s *scene) made() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.count
}

// bring delivers what was held back, or, when there is nothing of that, fetches what was lost; there may be neither.
func (s *scene) bring() bool {
	s.w.t.Helper()
	s.mu.Lock()
	held, lost := s.held, s.lost
	if s.held = 0; held == 0 {
		s.lost = 0
	}
	s.mu.Unlock()
	switch {
	case held > 0:
		s.w.sim.Release()
	case lost > 0:
		if err := s.w.g.backfill(s.w.t.Context()); err != nil {
			s.w.t.Fatal(err)
		}
	default:
		return false
	}
	return true
}

// wrong is what is not as a step's figures say, or not yet.
func (p *part) wrong(st *step, who string) string {
	expected := slices.ContainsFunc(st.figures, func(f figureOf) bool { return f.text == "refused" || f.text == "declined" })
	if p.err != nil && !expected {
		return p.err.Error()
	}
	p.now = nil
	for _, f := range st.figures {
		if instead := f.figure.is(p, who, f.args); instead != "" {
			return fmt.Sprintf("%s, but %s", f.text, instead)
		}
	}
	return ""
}

// asked asks for a customer, once for all the figures of a step.
func (p *part) asked(who string) answer {
	if p.now == nil || p.nowOf != who {
		a := p.s.w.call("GET", "/v1/customers/"+p.person(who).id, nil)
		p.now, p.nowOf = &a, who
	}
	return *p.now
}

// outOfStep says which of the stories have a customer whose balance in Stripe is not what the ledger says, or not what
// the ledger knows of it. One who is deleted has none.
func (s *scene) outOfStep() (map[*part]string, error) {
	var mirrors []struct {
		Bucket int16  `db:"bucket"`
		ID     string `db:"customer_id"`
		Stripe string `db:"stripe_customer"`
		Credit int64  `db:"credit"`
	}
	ctx := s.w.t.Context()
	if err := s.w.g.ledger.DB().SelectContext(ctx, &mirrors, `select bucket, customer_id, stripe_customer, credit from mirrors`); err != nil {
		return nil, err
	}
	out := map[*part]string{}
	var refs []ledger.Ref
	for _, m := range mirrors {
		p, c := s.owner(m.ID), s.customer(m.Stripe)
		if p == nil || p.broken || c.Deleted || !slices.Contains(s.playing, p) {
			continue
		}
		s.own(p, m.Stripe)
		if c.Balance != -m.Credit {
			out[p] = fmt.Sprintf("%s has %d in Stripe, and %d is known of", m.ID, -c.Balance, m.Credit)
		}
		refs = append(refs, ledger.Ref{Bucket: m.Bucket, ID: m.ID})
	}
	refs, err := s.w.g.ledger.OutOfStep(ctx, refs, false)
	for _, ref := range refs {
		out[s.owner(ref.ID)] = ref.ID + " is not in step"
	}
	return out, err
}

func (s *scene) customer(stripe string) stripesim.Customer {
	c, _ := s.w.sim.Customer(stripe)
	return c
}
