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

// raced is set where the race detector is on.
var raced bool

// eachEvent, set, has every single event go wrong in a story of its own, and come with a twin and last too; otherwise all
// of a type do at once.
const eachEvent = "LOCKSTEP_EACH_EVENT"

// The stories in testdata/scenarios end as they say, also when a webhook is lost for good, doubled, comes after the
// next one, or before the answer of the call that caused it: always in the same books. In short, and under the race
// detector, they only end as they say.
func TestScenarios(t *testing.T) {
	t.Parallel()
	for _, sc := range scenarios(t) {
		t.Run(sc.name, func(t *testing.T) {
			t.Parallel()
			if sc.takesTime() { // with faults it begins on the same first of June, in a world of its own
				var plain *ending
				t.Run("as it happens", func(t *testing.T) { plain = newScene(t).perform(&sc, []fault{{}}, nil) })
				if plain != nil && !testing.Short() && !raced {
					t.Run("with faults", func(t *testing.T) { newScene(t).perform(&sc, faultsOf(plain.events), plain) })
				}
				return
			}
			s := newScene(t)
			if plain := s.perform(&sc, []fault{{}}, nil); plain != nil && !testing.Short() && !raced {
				s.perform(&sc, faultsOf(plain.events), plain)
			}
		})
	}
}

// ending is what a scenario came to where nothing went wrong.
type ending struct {
	events  []told
	account []string
	revenue []string
}

// faultsOf are the faults that a story's events are to meet.
func faultsOf(events []told) []fault {
	var faults []fault
	single := os.Getenv(eachEvent) != ""
	met := map[fault]bool{}
	for _, e := range events {
		for _, how := range ways {
			f := fault{how, e.kind, e.n}
			switch {
			case e.kind == others:
				f = fault{inTurn, others, -1}
			case !single:
				f.n = -1
			}
			if met[f] || e.kind != others && (how == "before the answer" && !e.byAPI || !single && (how == "last" || how == "with a twin")) {
				continue
			}
			met[f] = true
			faults = append(faults, f)
		}
	}
	return faults
}

// newScene is a world in which scenarios begin.
func newScene(t *testing.T) *scene {
	t.Helper()
	log := &lockedBuffer{}
	t.Cleanup(func() {
		if t.Failed() && os.Getenv("LOCKSTEP_SCENARIO_LOG") != "" {
			t.Log(log)
		}
	})
	w := newWorld(t, func(o *worldOptions) { o.log, o.clock = log, &testClock{offset: time.Until(scenariosBegin)} })
	w.backfilled() // the first look for missed events is over
	s := &scene{w: w, of: map[string]*part{}, event: map[string]*part{}}
	w.sim.ChooseDelivery(s.choose)
	return s
}

// perform plays a scenario under each of the faults and compares how it ends with the scenario's books, and with the
// plain ending where there is one. It answers the first story's ending, nil where that is not as it should be.
func (s *scene) perform(sc *scenario, faults []fault, plain *ending) *ending {
	t := s.w.t
	t.Helper()
	s.cast(faults)
	whole := s.run(sc)
	end := &ending{}
	s.mu.Lock() // an event may come at any time
	end.events = slices.Clone(s.playing[0].events)
	met := make([]int, len(faults))
	for i, p := range s.playing {
		met[i] = p.met
	}
	s.mu.Unlock()
	for i, p := range s.playing {
		if p.broken {
			continue
		}
		account, err := p.account()
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			end.account = account
		}
		if plain != nil {
			if d := differences(plain.account, account); d != "" {
				t.Errorf("%s, %s: other books:%s", sc.at, p.name, d)
			}
		}
		if p.fault.how != "" && met[i] == 0 && p.fault.kind != "customer.updated" { // of those there are as many as flushes
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
