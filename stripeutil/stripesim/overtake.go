package stripesim

import "slices"

// early is an event that the answer of the call that made it waits for.
type early struct {
	event string
	until func(event string)
}

func (e early) wait() {
	if e.until != nil {
		e.until(e.event)
	}
}

// overtaken is a delivery that is kept until the next event was accepted.
type overtaken struct {
	held  *delivery
	is    func(Event) bool
	until func(event string)
	next  string // the event; "" until there is one
}

// overtakes notes an event as the next one of those that wait for one.
func (s *Sim) overtakes(e *event) {
	for _, o := range s.overtaken {
		if o.next == "" && (o.is == nil || o.is(s.viewEvent(e))) {
			o.next = e.ID
		}
	}
}

// letPast delivers what waited for an event, which was accepted just now.
func (s *Sim) letPast(event string) {
	for {
		s.mu.Lock()
		i := slices.IndexFunc(s.overtaken, func(o *overtaken) bool { return o.next == event })
		if i < 0 {
			s.mu.Unlock()
			return
		}
		o := s.overtaken[i]
		s.overtaken = slices.Delete(s.overtaken, i, i+1)
		s.mu.Unlock()
		early{event, o.until}.wait()
		s.mu.Lock()
		o.held.Held = false
		s.touch()
		s.mu.Unlock()
	}
}
