package main

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// scenariosBegin is when every scenario begins, so that months are as long in every run.
var scenariosBegin = time.Date(2080, time.June, 1, 9, 0, 0, 0, time.UTC)

// eachEvent has every single event go wrong, and not all of a type at once where a scenario has many.
const eachEvent = "LOCKSTEP_EACH_EVENT"

// manyEvents is from how many on the events of a scenario go wrong a type at a time.
const manyEvents = 8

// The stories in testdata/scenarios end as they say, also when a webhook is lost for good, doubled, has a twin, comes after
// the next one or after all others, or before the answer of the call that caused it: always in the same books.
func TestScenarios(t *testing.T) {
	t.Parallel()
	for _, sc := range scenarios(t) {
		t.Run(sc.name, func(t *testing.T) {
			t.Parallel()
			var plain *ending
			t.Run("as it happens", func(t *testing.T) { plain = perform(t, &sc, []fault{{}}, nil) })
			if plain == nil {
				return
			}
			fetched, scrambled := faultsOf(plain.events)
			t.Run("events lost", func(t *testing.T) {
				t.Parallel()
				perform(t, &sc, fetched, plain)
			})
			t.Run("events scrambled", func(t *testing.T) {
				t.Parallel()
				perform(t, &sc, scrambled, plain)
			})
		})
	}
}

// ending is what a scenario came to where nothing went wrong.
type ending struct {
	events  []told
	account []string
	revenue []string
}

// faultsOf are the faults that a story's events are to meet: those that the backfill mends, which has to look for events,
// and those that it has nothing to do with. In both one story is as it happens.
func faultsOf(events []told) (lost, scrambled []fault) {
	lost, scrambled = []fault{{}}, []fault{{}}
	single := os.Getenv(eachEvent) != "" || len(slices.DeleteFunc(slices.Clone(events), func(e told) bool { return e.kind == others })) <= manyEvents
	seen := map[string]bool{}
	for _, e := range events {
		n := e.n
		if e.kind == others || !single {
			n = -1
		}
		if n < 0 && seen[e.kind] {
			continue
		}
		seen[e.kind] = true
		byAPI := e.byAPI || n < 0 && slices.ContainsFunc(events, func(o told) bool { return o.kind == e.kind && o.byAPI })
		lost = append(lost, fault{"lost", e.kind, n})
		for _, how := range []string{"doubled", "with a twin", "after the next", "last", "before the answer"} {
			if how != "before the answer" || byAPI {
				scrambled = append(scrambled, fault{how, e.kind, n})
			}
		}
	}
	return lost, scrambled
}

// perform plays a scenario under each of the faults and compares how it ends, with the scenario's books and with the plain ending. It
// answers the first story's ending, nil where that is not as it should be.
func perform(t *testing.T, sc *scenario, faults []fault, plain *ending) *ending {
	log := &lockedBuffer{}
	t.Cleanup(func() {
		if t.Failed() && os.Getenv("LOCKSTEP_SCENARIO_LOG") != "" {
			t.Log(log)
		}
	})
	w := newWorld(t, func(o *worldOptions) {
		o.log, o.clock = log, &testClock{offset: time.Until(scenariosBegin)}
	})
	w.backfilled() // the first look for missed events is over
	s := newScene(w, faults)
	whole := s.run(sc)
	end := &ending{}
	for i, p := range s.parts {
		if p.broken {
			continue
		}
		account, err := p.account()
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			end.events, end.account = p.events, account
		}
		if plain != nil {
			if d := differences(plain.account, account); d != "" {
				t.Errorf("%s, %s: other books:%s", sc.at, p.name, d)
			}
		}
		if p.fault.how != "" && p.met == 0 && p.fault.kind != "customer.updated" { // of those there are as many as flushes
			t.Errorf("%s, %s: there was no such event", sc.at, p.name)
		}
	}
	if !whole {
		return nil
	}
	byKind, rows, err := s.revenue()
	if err != nil {
		t.Fatal(err)
	}
	for _, wrong := range sc.compare(byKind) {
		t.Error(wrong)
	}
	if end.revenue = rows; plain != nil && !slices.Equal(plain.revenue, rows) {
		t.Errorf("%s: another revenue report:\n%s\nwhere nothing goes wrong:\n%s", sc.at, strings.Join(rows, "\n"), strings.Join(plain.revenue, "\n"))
	}
	if t.Failed() {
		return nil
	}
	return end
}
