package handlers

import (
	"errors"
	"net/http"
	"time"

	"lockstep/handlers/pages"
	"lockstep/ledger"
	"lockstep/stripeutil"
)

// linedUp is how many balance transactions of each side stand beside each other.
const linedUp = 25

type lockstepPage struct {
	ledger.Customer
	Verdict  lockstepJSON
	Findings []difference
	Lines    []transactionLine
	Whole    bool // these are all that Stripe has
	Failed   string
}

// transactionLine is one balance transaction, as either side has it.
type transactionLine struct {
	ID      string
	At      time.Time
	What    string
	Books   *int64 // credit that it gave, in minor units: Stripe's sign turned; nil: not booked here
	Stripe  *int64 // nil: Stripe has none of that id
	Differs bool
}

// showLockstep compares one customer with Stripe as it is now: the verdict, and both ledgers side by side. What can't be
// asked of Stripe is said, and what is booked here is shown all the same.
func (s *Server) showLockstep(v *visit) error {
	cust, err := s.customerIn(v)
	if err != nil {
		return err
	}
	p := lockstepPage{Customer: cust}
	var se *stripeutil.Error
	p.Verdict, p.Findings, err = s.judge(v.ctx(), cust)
	if errors.As(err, &se) {
		p.Failed, err = "Stripe could not be asked: "+se.Error(), nil
		p.Verdict.State = "unknown"
	}
	if err != nil {
		return err
	}
	if v.query.Get("part") == "verdict" {
		return s.show(v, http.StatusOK, "lockstep#verdict", pages.Frame{Data: p})
	}
	m, mirrored, err := s.Ledger.MirrorOf(v.ctx(), cust.Ref)
	if err != nil {
		return err
	}
	if mirrored {
		p.Lines, p.Whole, err = s.lineUp(v, &m)
		if errors.As(err, &se) {
			p.Failed, err = "Stripe could not be asked: "+se.Error(), nil
		}
		if err != nil {
			return err
		}
	}
	return s.show(v, http.StatusOK, "lockstep", pages.Frame{Title: "In step: " + cust.ID, Data: p})
}

// lineUp reads the newest balance transactions of both sides. What is booked here and older than the oldest that was read
// of Stripe's is none that Stripe lacks.
func (s *Server) lineUp(v *visit, m *ledger.MirrorView) (lines []transactionLine, whole bool, err error) {
	booked, err := s.Ledger.BookedTransactions(v.ctx(), m.Ref(), 2*linedUp)
	if err != nil {
		return nil, false, err
	}
	here := make(map[string]*ledger.BookedTransaction, len(booked))
	for i := range booked {
		here[booked[i].ID] = &booked[i]
	}
	var oldest time.Time
	whole = true
	err = s.Stripe.BalanceTransactions(v.ctx(), m.StripeCustomer, func(t stripeutil.BalanceTransaction) bool {
		if len(lines) == linedUp {
			whole = false
			return false
		}
		credit := -t.Amount
		line := transactionLine{ID: t.ID, At: t.Created, What: reasonOf(t), Stripe: &credit}
		if t.Metadata[FlushMetadata] != "" {
			line.What = "ours: brings the balance up to date"
		}
		if b := here[t.ID]; b != nil {
			n := -b.Amount
			line.Books, line.Differs = &n, n != credit
			delete(here, t.ID)
		}
		oldest, lines = t.Created, append(lines, line)
		return true
	})
	if err != nil && !unknownAtStripe(err) {
		return nil, false, err
	}
	for _, b := range booked {
		if _, only := here[b.ID]; only && (whole || b.Created.After(oldest)) && len(lines) < 2*linedUp {
			n := -b.Amount
			lines = append(lines, transactionLine{ID: b.ID, At: b.Created, What: b.Type, Books: &n})
		}
	}
	for i := range lines { // Stripe's older ones may be booked further back than was read
		if l := &lines[i]; l.Books == nil {
			known, err := s.Ledger.KnownTransactions(v.ctx(), m.Ref(), []string{l.ID})
			if err != nil {
				return nil, false, err
			}
			if known[l.ID] {
				l.Books = l.Stripe
			}
		}
	}
	return lines, whole, nil
}

type pausedPage struct {
	Reason, Said string
	Rules        []ledger.PausedRule
	Page         listPage
}

// showPaused lists the rules that are paused for one reason.
func (s *Server) showPaused(v *visit) error {
	var p pausedPage
	after := ""
	if err := v.asked(map[string]*string{"reason": &p.Reason, "after": &after}); err != nil {
		return err
	}
	p.Said = clears[p.Reason]
	if p.Said == "" {
		return invalid("reason", "no rule is paused for that")
	}
	rules, err := s.Ledger.PausedRules(v.ctx(), p.Reason, after, onPage+1)
	if err != nil {
		return err
	}
	n, page := v.pageOf(len(rules), func(i int) string { return rules[i].Wallet })
	p.Rules, p.Page = rules[:n], page
	return s.show(v, http.StatusOK, "paused", pages.Frame{Title: "Paused rules", Data: p})
}

type driftedPage struct {
	Customers []string
	Page      listPage
}

// showDrifted lists the customers who are out of step with Stripe, as far as was told.
func (s *Server) showDrifted(v *visit) error {
	after, err := v.ask("after")
	if err != nil {
		return err
	}
	ids, err := s.Ledger.Drifted(v.ctx(), after, onPage+1)
	if err != nil {
		return err
	}
	n, page := v.pageOf(len(ids), func(i int) string { return ids[i] })
	return s.show(v, http.StatusOK, "drifted", pages.Frame{Title: "Out of step", Data: driftedPage{ids[:n], page}})
}
