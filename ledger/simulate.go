package ledger

import (
	"math"
	"time"
)

// Simulation is what a rule would have done: a replay of movements that really were, but for the credit that auto
// top-up bought and what became of it. A top-up of the simulation is settled in the instant in which the rule acts, and
// what it buys does not expire. What is held is part of the balance until it is captured.
//
// It is pure: the same movements give the same outcome. Amounts are steps, charges minor units of Currency.
type Simulation struct {
	From, To time.Time
	Scale    int16
	Currency string

	Events  int
	Topups  int
	Bought  int64
	Charged int64
	Charges []SimulatedCharge // the first hundred

	CapRefused   int        // how often the rule stopped at its cap, as it would have paused: once a period or so
	CapRefusedAt *time.Time // the first time

	DebitsRefused int        // debits and captures for which there was too little, the overdraft included; they take nothing
	DepletedAt    *time.Time // the first of them
	Short         int64      // what they asked for

	Lowest, Highest, Ending int64

	rule        Rule
	price       price
	overdraft   int64
	full        int64 // what percents are of
	spent       int64 // since the period's beginning
	period      time.Time
	pausedUntil *time.Time          // stopped at the cap
	refused     map[string]struct{} // debits: a reversal of one gives nothing back
	rate        rateRing
}

// SimulatedCharge is one top-up of a simulation.
type SimulatedCharge struct {
	At             time.Time
	Amount, Charge int64
}

// movement is one entry as a simulation sees it.
type movement struct {
	at     time.Time
	kind   movementKind
	debit  string // of usage and what gives it back: the debit's id
	amount int64  // above zero
}

type movementKind int

const (
	movedUsage  movementKind = iota // a debit or a capture: takes all of it, or is refused
	movedBack                       // usage given back
	movedCredit                     // credit in force
	movedLoss                       // what expired, was taken back, or was spent by Stripe: takes what there is
)

// Bounds of a simulation.
const (
	simulatedCharges = 100     // shown
	simulatedTopups  = 100_000 // made
	simulatedMemory  = 100_000 // refused debits remembered; reversals of later ones count as credit
)

// newSimulation is one that begins with a balance.
func newSimulation(r Rule, scale int16, p price, overdraft, balance int64, from time.Time) *Simulation {
	return &Simulation{From: from, Scale: scale, Currency: p.currency, Lowest: balance, Highest: balance, Ending: balance,
		rule: r, price: p, overdraft: overdraft, full: max(balance, 0), refused: make(map[string]struct{})}
}

// begin has a rule that finds the balance below its threshold act at once. It is left out for a wallet that begins in
// the window: nobody refills what has not had its first credit.
func (s *Simulation) begin() error { return s.act(s.From) }

// move replays one movement; they come in the order of their times.
func (s *Simulation) move(m movement) error {
	if err := s.turn(m.at); err != nil {
		return err
	}
	s.Events++
	switch m.kind {
	case movedUsage:
		if left, ok := add(s.Ending, -m.amount); !ok || left < -s.overdraft {
			if err := s.refuse(m); err != nil {
				return err
			}
			return s.act(m.at) // nothing, unless this is a wallet's first movement
		}
		s.Ending -= m.amount
		s.rate.use(m.at, m.amount)
	case movedBack:
		if _, refused := s.refused[m.debit]; refused {
			return nil
		}
		s.give(m.amount)
		s.rate.use(m.at, -m.amount)
	case movedCredit:
		s.give(m.amount)
		s.full = max(s.Ending, 0)
	case movedLoss:
		s.Ending -= min(m.amount, max(s.Ending, 0))
	}
	s.see()
	return s.act(m.at)
}

// end closes the window at to.
func (s *Simulation) end(to time.Time) error {
	s.To = to
	return s.turn(to)
}

// give adds credit, as far as a balance can count.
func (s *Simulation) give(amount int64) {
	sum, ok := add(s.Ending, amount)
	if !ok {
		sum = math.MaxInt64
	}
	s.Ending = sum
}

func (s *Simulation) see() {
	s.Lowest, s.Highest = min(s.Lowest, s.Ending), max(s.Highest, s.Ending)
}

func (s *Simulation) refuse(m movement) error {
	s.DebitsRefused++
	if s.DepletedAt == nil {
		s.DepletedAt = &m.at
	}
	if m.debit != "" && len(s.refused) < simulatedMemory {
		s.refused[m.debit] = struct{}{}
	}
	return sumInto(&s.Short, m.amount)
}

func sumInto(sum *int64, n int64) (err error) {
	total, ok := add(*sum, n)
	if !ok {
		return refuse(CodeInvalid, "days", "the amounts are too large to add up; take fewer days")
	}
	*sum = total
	return nil
}

// turn ends a stop at the cap with its period, and the rule acts in that moment.
func (s *Simulation) turn(now time.Time) error {
	for s.pausedUntil != nil && !s.pausedUntil.After(now) {
		at := *s.pausedUntil
		s.pausedUntil = nil
		if err := s.act(at); err != nil {
			return err
		}
	}
	return nil
}

// act has the rule buy until the balance is not below its limit, or its cap stops it. It decides as refill does.
func (s *Simulation) act(at time.Time) error {
	for s.rule.Enabled {
		amount, charge, ok := s.rule.size(s.Ending, s.Scale, s.price)
		if s.Ending >= s.limit(at) || !ok {
			s.pausedUntil = nil
			return nil
		}
		from, to := period(deref(s.rule.CapInterval), at)
		if !from.Equal(s.period) {
			s.period, s.spent = from, 0
		}
		if s.rule.CapAmount != nil && charge > *s.rule.CapAmount-s.spent {
			if s.pausedUntil == nil {
				s.CapRefused++
				s.pausedUntil = &to
			}
			if s.CapRefusedAt == nil {
				s.CapRefusedAt = &at
			}
			return nil
		}
		after, fits := add(s.Ending, amount)
		if !fits {
			return nil
		}
		if err := s.buy(at, amount, charge); err != nil {
			return err
		}
		s.pausedUntil, s.Ending, s.full = nil, after, max(after, 0)
		s.see()
	}
	return nil
}

func (s *Simulation) buy(at time.Time, amount, charge int64) error {
	if s.Topups++; s.Topups > simulatedTopups {
		return refuse(CodeInvalid, "amount", "the rule would have charged more than %d times: take fewer days, or a larger amount", simulatedTopups)
	}
	s.spent += charge
	s.Charged += charge
	if len(s.Charges) < simulatedCharges {
		s.Charges = append(s.Charges, SimulatedCharge{at, amount, charge})
	}
	return sumInto(&s.Bought, amount)
}

// limit is the balance below which the rule acts.
func (s *Simulation) limit(at time.Time) int64 {
	limit := s.rule.below(&Wallet{FullAmount: s.full})
	if s.rule.RunwayMinutes == nil {
		return limit
	}
	early, _ := s.rule.early(lasting(s.rate.used(at), *s.rule.RunwayMinutes))
	return max(limit, early)
}

// rateRing counts usage over the windows of a runway, to within ten seconds. What was used before the simulation began
// is not in it.
type rateRing struct {
	slots [360]int64 // of ten seconds each: an hour
	at    int64      // the newest
	hour  int64
}

const ringSlot = 10 // seconds

// advance forgets what has left the hour.
func (r *rateRing) advance(at time.Time) {
	now := at.Unix() / ringSlot
	for n := int64(len(r.slots)); n > 0 && r.at < now; n-- {
		r.at++
		slot := &r.slots[r.at%int64(len(r.slots))]
		r.hour -= *slot
		*slot = 0
	}
	r.at = max(r.at, now)
}

func (r *rateRing) use(at time.Time, amount int64) {
	r.advance(at)
	r.slots[r.at%int64(len(r.slots))] += amount
	r.hour += amount
}

// used is the usage in each of runwayWindows up to now.
func (r *rateRing) used(at time.Time) (used [len(runwayWindows)]int64) {
	r.advance(at)
	n := int64(len(r.slots))
	for back := range int64(runwayWindows[0]/time.Second) / ringSlot {
		used[0] += r.slots[(r.at-back+n)%n]
	}
	used[1] = r.hour
	return used
}
