package handlers

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"lockstep/ledger"
	"lockstep/stripeutil"
)

// The acts on a customer's credit. Each goes through the very function of the ledger that the API's call goes through.

// What the books say an act was for, which the customer reads. Why an operator did it is for the audit trail alone.
const (
	consoleGrant      = "console_grant"
	consoleAdjustment = "console_adjustment"
	consoleVoid       = "console_void"
	consoleReversal   = "console_reversal"
)

// orders are the acts' routes: one line an act.
func (s *Server) orders() map[string]http.Handler {
	all := make(map[string]http.Handler)
	for path, make := range map[string]func(*visit) (*order, error){
		"/console/wallets/{id}/grant":            s.orderGrant,
		"/console/wallets/{id}/adjust":           s.orderAdjust,
		"/console/wallets/{id}/pause_rule":       s.orderPause,
		"/console/wallets/{id}/resume_rule":      s.orderResume,
		"/console/grants/{id}/void":              s.orderVoid,
		"/console/debits/{id}/reverse":           s.orderReverse,
		"/console/customers/{customer}/freeze":   s.orderFreeze,
		"/console/customers/{customer}/unfreeze": s.orderUnfreeze,
	} {
		all["GET "+path], all["POST "+path] = s.console(s.act(make)), s.console(s.act(make))
	}
	for path, make := range map[string]func(*visit) (*order, error){
		"/console/wallets/{id}/charge":         s.orderCharge,
		"/console/customers/{customer}/repair": s.orderRepair,
	} {
		all["GET "+path], all["POST "+path] = s.consoleAtStripe(s.act(make)), s.consoleAtStripe(s.act(make))
	}
	return all
}

// walletOrder begins an act on a wallet.
func (s *Server) walletOrder(v *visit, o order) (*order, *ledger.Wallet, error) {
	w, err := s.wallet(v.call)
	o.customer, o.object, o.back = w.Customer, w.ID, "/console/wallets/"+w.ID
	return &o, &w, err
}

func refOf(w *ledger.Wallet) ledger.Ref { return ledger.Ref{Bucket: w.Bucket, ID: w.Customer} }

func amountField(help string) *formField {
	return &formField{Name: "amount", Label: "Amount", Help: help, Decimal: true}
}

func (o *order) amount() (ledger.Decimal, error) {
	text := o.value("amount")
	return amount("amount", &text)
}

var kindOptions = []option{{"promotional", "Promotional: a gift"}, {"adjustment", "Adjustment: sets something right"}, {"plan", "Plan: part of a subscription"}, {"purchased", "Purchased: paid for elsewhere"}}

func (s *Server) orderGrant(v *visit) (*order, error) {
	o, w, err := s.walletOrder(v, order{action: "grant", keyed: true, title: "Give credit", verb: "Give it", fields: []*formField{
		amountField(""),
		{Name: "kind", Label: "Kind", Kind: "select", Options: kindOptions, Value: "promotional"},
		{Name: "covers", Label: "What it pays", Kind: "select", Optional: true, Options: []option{{"", "What its kind says: gifts and plans usage alone, the others invoices too"}, {"usage", "Usage alone"}, {"all", "Usage and invoices: Stripe's balance shows it"}}},
		{Name: "expires", Label: "Last day", Help: "In UTC. Empty: it never expires.", Kind: "date", Optional: true},
	}})
	if err != nil {
		return nil, err
	}
	want := func() (in ledger.GrantInput, err error) {
		in = ledger.GrantInput{Customer: w.Customer, Wallet: w.ID, Kind: o.value("kind"), Covers: o.value("covers"), Priority: ledger.DefaultPriority, Reason: consoleGrant}
		if in.Amount, err = o.amount(); err != nil {
			return in, err
		}
		if day := o.value("expires"); day != "" {
			last, err := time.Parse(time.DateOnly, day)
			if err != nil || last.Year() < 1970 || last.Year() > 9998 {
				return in, invalid("expires", "a day is written as 2026-12-31")
			}
			end := last.AddDate(0, 0, 1)
			if !end.After(s.Ledger.Now()) {
				return in, invalid("expires", "this day is over")
			}
			in.ExpiresAt = &end
		}
		return in, nil
	}
	o.plan = func() (plan, error) {
		in, err := want()
		if err != nil {
			return plan{}, err
		}
		return s.rehearse(v, refOf(w), func(ctx context.Context) error {
			_, _, err := s.Ledger.Grant(ctx, in, ledger.Once{})
			return err
		})
	}
	o.do = func(once ledger.Once) (deed, error) {
		in, err := want()
		if err != nil {
			return deed{}, err
		}
		g, _, err := s.Ledger.Grant(v.ctx(), in, once)
		return deed{said: v.locale.Amount(g.Amount, w.Scale, w.Asset) + " given.", result: g.ID}, err
	}
	return o, nil
}

func (s *Server) orderVoid(v *visit) (*order, error) {
	g, err := s.Ledger.GrantByID(v.ctx(), v.r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	w, err := s.Ledger.Wallet(v.ctx(), g.Wallet)
	if err != nil {
		return nil, err
	}
	o := &order{action: "void_grant", keyed: true, title: "Void a grant", verb: "Void it", danger: true, customer: w.Customer, object: g.ID, back: "/console/grants/" + g.ID}
	o.plan = func() (plan, error) {
		p, err := s.rehearse(v, refOf(&w), func(ctx context.Context) error {
			_, _, err := s.Ledger.VoidGrant(ctx, g.ID, consoleVoid, ledger.Once{})
			return err
		})
		if g.Held > 0 {
			p.say("What is held of it stays held until its hold ends.")
		}
		if g.SourceType != "api" {
			p.say("No money goes back to the customer. A refund is made in Stripe, and takes its credit back by itself: void nothing for one.")
		}
		return p, err
	}
	o.do = func(once ledger.Once) (deed, error) {
		_, _, err := s.Ledger.VoidGrant(v.ctx(), g.ID, consoleVoid, once)
		return deed{said: "What was left of the grant is void."}, err
	}
	return o, nil
}

func (s *Server) orderAdjust(v *visit) (*order, error) {
	o, w, err := s.walletOrder(v, order{action: "adjust", keyed: true, title: "Adjust", verb: "Adjust", danger: true, fields: []*formField{
		{Name: "way", Label: "What to do", Kind: "select", Options: []option{{"give", "Give credit"}, {"take", "Take credit away"}}, Value: "give"},
		amountField(""),
	}})
	if err != nil {
		return nil, err
	}
	give := func(ctx context.Context, once ledger.Once) (g ledger.Grant, err error) {
		in := ledger.GrantInput{Customer: w.Customer, Wallet: w.ID, Kind: "adjustment", Priority: ledger.DefaultPriority, Reason: consoleAdjustment}
		if in.Amount, err = o.amount(); err == nil {
			g, _, err = s.Ledger.Grant(ctx, in, once)
		}
		return g, err
	}
	o.plan = func() (plan, error) {
		if o.value("way") != "take" {
			p, err := s.rehearse(v, refOf(w), func(ctx context.Context) error { _, err := give(ctx, ledger.Once{}); return err })
			return p, err
		}
		return s.planTaking(v, w, o)
	}
	o.do = func(once ledger.Once) (deed, error) {
		if o.value("way") != "take" {
			g, err := give(v.ctx(), once)
			return deed{said: v.locale.Amount(g.Amount, w.Scale, w.Asset) + " given.", result: g.ID}, err
		}
		n, err := o.amount()
		if err != nil {
			return deed{}, err
		}
		if _, err := s.foreseeTaking(v, w, n); err != nil { // another wallet may pay now than when it was shown
			return deed{}, err
		}
		d, _, err := s.Ledger.Debit(v.ctx(), ledger.DebitInput{Customer: w.Customer, Asset: w.Asset, Amount: n, Reason: consoleAdjustment, Once: once})
		return deed{said: v.locale.Amount(d.Amount, d.Scale, w.Asset) + takenFrom(w.ID, d.Wallet), result: d.ID}, err
	}
	return o, nil
}

// planTaking is what taking credit away would do. It is a debit, which the ledger takes from the wallet that usage is
// paid from: where that is another than the one asked for, somebody has to decide.
func (s *Server) planTaking(v *visit, w *ledger.Wallet, o *order) (plan, error) {
	n, err := o.amount()
	if err != nil {
		return plan{}, err
	}
	seen, err := s.foreseeTaking(v, w, n)
	if err != nil {
		return plan{}, err
	}
	p, err := s.planOf(v, seen)
	for _, after := range seen.After.Wallets {
		if after.ID == w.ID && after.RefillBelow != nil && after.Available()+after.Pending < *after.RefillBelow {
			p.say("The balance is then below what its rule refills at: the rule acts at once, and may charge the customer's card.")
		}
	}
	p.say("It is booked as a debit: in the books it counts as spent, and what was paid for it as earned. Credit that is to count as taken back is voided grant by grant.")
	p.say("No money goes back to the customer. A refund is made in Stripe, and takes its credit back by itself: adjust nothing for one.")
	return p, err
}

// foreseeTaking refuses to take credit away where another wallet would pay.
func (s *Server) foreseeTaking(v *visit, w *ledger.Wallet, n ledger.Decimal) (ledger.Rehearsal, error) {
	pays, seen, err := s.Ledger.ForeseeDebit(v.ctx(), w.Customer, w.Asset, n)
	if err == nil && pays.ID != w.ID {
		err = invalid("amount", "usage of "+w.Asset+" is paid from the customer's wallet "+pays.ID+" first: take it away there, or void a grant here")
	}
	return seen, err
}

// takenFrom says that credit was taken away, and from which wallet where, in the last moment, it came to be another.
func takenFrom(asked, paid string) string {
	if paid == asked {
		return " taken away."
	}
	return " taken away, from the customer's wallet " + paid + ": it came to be the one that pays while this was done."
}

func (s *Server) orderReverse(v *visit) (*order, error) {
	d, err := s.Ledger.DebitByID(v.ctx(), v.r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	w, err := s.Ledger.Wallet(v.ctx(), d.Wallet)
	if err != nil {
		return nil, err
	}
	left, err := s.Ledger.LeftToReverse(v.ctx(), &d)
	if err != nil {
		return nil, err
	}
	o := &order{action: "reverse", keyed: true, title: "Reverse a debit", verb: "Give it back", customer: d.Customer, object: d.ID, back: "/console/debits/" + d.ID,
		fields: []*formField{{Name: "amount", Label: "Amount", Optional: true, Decimal: true,
			Help: "Empty: all that is left of it, which is " + v.locale.Amount(left, d.Scale, w.Asset) + " now."}}}
	part := func() (*ledger.Decimal, error) {
		if o.value("amount") == "" {
			return nil, nil
		}
		n, err := o.amount()
		return &n, err
	}
	o.plan = func() (plan, error) {
		n, err := part()
		if err != nil {
			return plan{}, err
		}
		return s.rehearse(v, refOf(&w), func(ctx context.Context) error {
			_, _, err := s.Ledger.Reverse(ctx, d.ID, n, consoleReversal, ledger.Once{})
			return err
		})
	}
	o.do = func(once ledger.Once) (deed, error) {
		n, err := part()
		if err != nil {
			return deed{}, err
		}
		r, _, err := s.Ledger.Reverse(v.ctx(), d.ID, n, consoleReversal, once)
		return deed{said: v.locale.Amount(r.Amount, r.Scale, w.Asset) + " given back.", result: r.ID}, err
	}
	return o, nil
}

func (s *Server) orderFreeze(v *visit) (*order, error) {
	return s.orderStatus(v, order{action: "freeze", title: "Freeze a customer", verb: "Freeze", danger: true}, "frozen",
		"Nothing is spent from the customer's wallets any more, and nothing bought for them: usage is refused with wallet_frozen. Credit, holds and payments that are under way stay as they are.", "The customer is frozen.")
}

func (s *Server) orderUnfreeze(v *visit) (*order, error) {
	return s.orderStatus(v, order{action: "unfreeze", title: "Unfreeze a customer", verb: "Unfreeze"}, "active",
		"Credit can be spent and bought again. A rule whose balance is too low acts at once.", "The customer is active again.")
}

func (s *Server) orderStatus(v *visit, o order, status, says, said string) (*order, error) {
	cust, err := s.customerIn(v)
	if err != nil {
		return nil, err
	}
	o.customer, o.object, o.back = cust.ID, cust.ID, "/console/customers/"+cust.ID
	change := ledger.CustomerChange{Status: &status}
	o.plan = func() (plan, error) {
		if cust.Status == status {
			return plan{}, invalid("", "the customer is "+status+" already")
		}
		p, err := s.rehearse(v, cust.Ref, func(ctx context.Context) error { _, err := s.Ledger.ChangeCustomer(ctx, cust.Ref, change); return err })
		p.Says = append([]string{says}, p.Says...)
		return p, err
	}
	o.do = func(ledger.Once) (deed, error) {
		_, err := s.Ledger.ChangeCustomer(v.ctx(), cust.Ref, change)
		return deed{said: said}, err
	}
	return &o, nil
}

func (s *Server) orderPause(v *visit) (*order, error) {
	return s.orderRule(v, order{action: "pause_rule", title: "Pause the automatic top-up", verb: "Pause"}, s.Ledger.PauseRule,
		"The rule charges nothing until somebody resumes it. A payment that is under way goes on.", "The rule is paused.")
}

func (s *Server) orderResume(v *visit) (*order, error) {
	return s.orderRule(v, order{action: "resume_rule", title: "Resume the automatic top-up", verb: "Resume"}, s.Ledger.ResumeRule,
		"The pause ends, whatever its reason. Where the balance is too low the rule acts at once. A payment that waits for the customer is canceled first.", "The rule goes on.")
}

func (s *Server) orderRule(v *visit, with order, change func(context.Context, string) (ledger.Wallet, error), says, said string) (*order, error) {
	o, w, err := s.walletOrder(v, with)
	if err != nil {
		return nil, err
	}
	o.plan = func() (plan, error) {
		p, err := s.rehearse(v, refOf(w), func(ctx context.Context) error { _, err := change(ctx, w.ID); return err })
		p.Says = append([]string{says}, p.Says...)
		return p, err
	}
	o.do = func(ledger.Once) (deed, error) {
		_, err := change(v.ctx(), w.ID)
		return deed{said: said}, err
	}
	return o, nil
}

func (s *Server) orderCharge(v *visit) (*order, error) {
	o, w, err := s.walletOrder(v, order{action: "charge", keyed: true, title: "Charge now", verb: "Charge the card", danger: true, fields: []*formField{amountField("What to buy. The customer's saved card is charged its price.")}})
	if err != nil {
		return nil, err
	}
	want := func() (in ledger.TopupInput, err error) {
		in = ledger.TopupInput{Customer: w.Customer, Wallet: w.ID, Mode: "charge", MinimumCharge: stripeutil.MinimumCharge}
		in.Amount, err = o.amount()
		return in, err
	}
	o.plan = func() (plan, error) {
		in, err := want()
		if err != nil {
			return plan{}, err
		}
		p, err := s.rehearse(v, refOf(w), func(ctx context.Context) error {
			_, _, err := s.Ledger.CreateTopup(ctx, in, ledger.Once{})
			return err
		})
		if err != nil {
			return p, err
		}
		err = s.planCard(v, w, &p)
		return p, err
	}
	o.do = func(once ledger.Once) (deed, error) {
		in, err := want()
		if err != nil {
			return deed{}, err
		}
		top, _, err := s.Ledger.CreateTopup(v.ctx(), in, once)
		if err != nil {
			return deed{}, err
		}
		if made := top.ID; top.InFlight() {
			if top, err = s.Charge(v.ctx(), made); err != nil {
				return deed{result: made, made: true}, err
			}
		}
		did := deed{result: top.ID, said: "Top-up of " + v.locale.Money(top.Charge, top.Currency) + ": " + strings.ReplaceAll(top.Status, "_", " ") + "."}
		if top.Status == "failed" || top.Status == "canceled" {
			did.failed = true
			did.said += " " + deref(top.FailureMessage)
		}
		return did, nil
	}
	return o, nil
}

// planCard says which card is charged, and refuses where there is none.
func (s *Server) planCard(v *visit, w *ledger.Wallet, p *plan) error {
	cust, err := s.Ledger.Customer(v.ctx(), w.Customer)
	if err != nil {
		return err
	}
	if cust.StripeCustomer == "" {
		return invalid("", "the customer is not linked to Stripe yet")
	}
	method, err := s.Stripe.DefaultMethod(v.ctx(), cust.StripeCustomer)
	if err != nil {
		return err
	}
	if method.ID == "" {
		return invalid("", "the customer has no default payment method saved in Stripe: nothing can be charged")
	}
	p.say(fmt.Sprintf("Charged is the customer's default payment method in Stripe (%s %s). The credit is there when Stripe says that it was paid.", strings.ReplaceAll(method.Type, "_", " "), method.ID))
	p.say("A spend cap is for the automatic top-up alone: this charge does not count toward it.")
	return nil
}

func (s *Server) orderRepair(v *visit) (*order, error) {
	cust, err := s.customerIn(v)
	if err != nil {
		return nil, err
	}
	o := &order{action: "repair", title: "Repair what differs from Stripe", verb: "Repair", customer: cust.ID, object: cust.ID, back: "/console/customers/" + cust.ID}
	o.plan = func() (plan, error) {
		r, err := s.ReconcileOne(v.ctx(), cust.ID, false, DefaultGrace)
		if err != nil {
			return plan{}, err
		}
		var p plan
		if len(r.Findings) == 0 {
			p.say("Nothing differs between the ledger and Stripe: there is nothing to repair.")
		}
		for _, f := range r.Findings {
			p.say(sentence(strings.ReplaceAll(f.Kind, "_", " ")) + ": " + f.Explanation + ".")
			if f.Repairable {
				p.say("Repair: " + f.Action + ".")
			} else if f.Action != "" {
				p.say("No repair does this; somebody has to: " + f.Action + ".")
			}
		}
		return p, nil
	}
	o.do = func(ledger.Once) (deed, error) {
		r, err := s.ReconcileOne(v.ctx(), cust.ID, true, DefaultGrace)
		repaired := 0
		for _, f := range r.Findings {
			if f.Repaired {
				repaired++
			}
		}
		return deed{said: fmt.Sprintf("Differences found: %d; repaired: %d.", len(r.Findings), repaired)}, err
	}
	return o, nil
}

func sentence(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}
