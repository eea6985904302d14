package handlers

import (
	"net/http"

	"lockstep/handlers/pages"
	"lockstep/ledger"
)

type topupsPage struct {
	Topups                    []ledger.Topup
	Page                      listPage
	Customer, Status, Trigger string
	CustomerError             string
	Statuses, Triggers        []option
}

// topupStatus is how a top-up stands, in words.
var topupStatus = map[string]string{"pending": "waiting to be charged", "processing": "on its way", "action_required": "needs the customer", "succeeded": "paid",
	"failed": "failed", "canceled": "canceled"}

func (s *Server) showTopups(v *visit) error {
	p := topupsPage{Triggers: []option{{"auto", "By a rule"}, {"manual", "By hand"}}}
	for _, status := range ledger.TopupStatuses {
		p.Statuses = append(p.Statuses, option{status, topupStatus[status]})
	}
	after := ""
	if err := v.asked(map[string]*string{"after": &after, "customer": &p.Customer, "status": &p.Status, "trigger": &p.Trigger}); err != nil {
		return err
	}
	f := ledger.TopupFilter{Status: p.Status, Trigger: p.Trigger}
	var err error
	status := http.StatusOK
	if p.Customer != "" {
		var c ledger.Customer
		c, err = s.Ledger.Customer(v.ctx(), p.Customer)
		f.Customer = c.Ref
		if ledger.IsCode(err, ledger.CodeNotFound) {
			p.CustomerError, err, status = "There is no such customer.", nil, http.StatusNotFound
		}
	}
	var tops []ledger.Topup
	if err == nil && p.CustomerError == "" {
		tops, err = s.Ledger.ListTopups(v.ctx(), f, after, onPage+1)
	}
	if err != nil {
		return err
	}
	n, page := v.pageOf(len(tops), func(i int) string { return tops[i].ID })
	p.Topups, p.Page = tops[:n], page
	return s.show(v, status, "topups", pages.Frame{Title: "Top-ups", Data: p})
}

type topupPage struct {
	ledger.Topup
	ledger.TopupStory
	Asset     string
	Word      string // how it stands
	Stripe    []namedLink
	Failure   string // in words
	Told      []toldOf
	CanCancel bool
}

// toldOf is an event that told of something.
type toldOf struct {
	ledger.Event
	Says string
}

func (s *Server) showTopup(v *visit) error {
	top, err := s.Ledger.TopupByID(v.ctx(), v.r.PathValue("id"))
	if err != nil {
		return err
	}
	p := topupPage{Topup: top, Word: topupStatus[top.Status], CanCancel: top.InFlight() && !top.Cancel}
	w, err := s.Ledger.Wallet(v.ctx(), top.Wallet)
	if err != nil {
		return err
	}
	p.Asset = w.Asset
	if p.TopupStory, err = s.Ledger.TopupStory(v.ctx(), &top); err != nil {
		return err
	}
	for _, one := range []struct{ what, id string }{{"Payment", deref(top.PaymentIntent)}, {"Invoice", deref(top.Invoice)},
		{"Page", deref(top.CheckoutSession)}, {"Customer", top.StripeCustomer}, {"Payment method", deref(top.PaymentMethod)}} {
		if one.id != "" {
			p.Stripe = append(p.Stripe, s.namedLink(one.what, one.id))
		}
	}
	p.Failure = failureInWords(&top)
	for _, e := range p.Events {
		p.Told = append(p.Told, toldOf{e, eventWords[e.Type]})
	}
	return s.show(v, http.StatusOK, "topup", pages.Frame{Title: "Top-up", Data: &p})
}

// declines are what a bank's or Stripe's words for a decline mean, and what helps.
var declines = map[string]string{
	"insufficient_funds":        "The card had not enough money on it. Another day, or another card, may do.",
	"card_declined":             "The customer's bank said no, without saying why. The customer can ask it, or use another card.",
	"generic_decline":           "The customer's bank said no, without saying why. The customer can ask it, or use another card.",
	"do_not_honor":              "The customer's bank said no, without saying why. The customer can ask it, or use another card.",
	"expired_card":              "The card has expired. The customer needs to save another one.",
	"lost_card":                 "The bank has the card as lost. The customer needs to save another one.",
	"stolen_card":               "The bank has the card as stolen. The customer needs to save another one.",
	"incorrect_cvc":             "The card's security code was wrong. The customer needs to save the card again.",
	"incorrect_number":          "The card's number was wrong. The customer needs to save the card again.",
	"processing_error":          "Something failed at the bank or at Stripe while it was charged. Trying again may do.",
	"authentication_required":   "The bank wants the customer to confirm the payment themselves.",
	"fraudulent":                "The bank or Stripe took the payment for fraud.",
	"card_not_supported":        "The card can't be used for payments of this kind.",
	"card_velocity_exceeded":    "The card has reached a limit of its bank. Another day, or another card, may do.",
	"try_again_later":           "The bank could not answer. Trying again later may do.",
	ledger.PauseNoPaymentMethod: "The customer has no card saved that could be charged.",
}

// failureInWords says why a top-up failed, for somebody who knows no codes.
func failureInWords(top *ledger.Topup) string {
	if top.FailureCode == nil {
		return ""
	}
	for _, code := range []string{deref(top.DeclineCode), *top.FailureCode} {
		if words, ok := declines[code]; ok {
			return words
		}
	}
	return "Stripe did not take the payment."
}

// eventWords are what our own events tell.
var eventWords = map[string]string{
	ledger.EventBalanceAlert: "a balance passed a threshold", ledger.EventDepleted: "a wallet ran out", ledger.EventGrantConfirmed: "credit came in force",
	ledger.EventGrantExpiring: "credit will expire", ledger.EventGrantExpired: "credit expired", ledger.EventTopupSucceeded: "a top-up was paid",
	ledger.EventTopupFailed: "a top-up failed", ledger.EventTopupActionRequired: "a top-up needs the customer", ledger.EventRulePaused: "auto top-up was paused",
	ledger.EventRuleResumed: "auto top-up goes on", ledger.EventDrift: "the books and Stripe differ", ledger.EventDisputeOpened: "a payment is disputed",
	ledger.EventDisputeClosed: "a dispute ended",
}

func (s *Server) cancelTopupOrder(v *visit) (*order, error) {
	top, err := s.Ledger.TopupByID(v.ctx(), v.r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	money := v.locale.Money(top.Charge, top.Currency)
	return &order{action: "cancel_topup", title: "Cancel a top-up", verb: "Cancel the top-up", danger: true, customer: top.Customer, object: top.ID,
		back: "/console/topups/" + top.ID,
		plan: func() (p plan, err error) {
			if !top.InFlight() {
				return p, &fault{http.StatusConflict, "conflict", string(ledger.CodeState), "", "This top-up is not on its way any more: it is " + topupStatus[top.Status] + "."}
			}
			p.say("The charge of " + money + " to " + top.Customer + " is not made.")
			if top.CalledAt != nil {
				p.say("Stripe was asked for it already. It says whether it still can be canceled; if it was paid in the meantime, the credit is given.")
			}
			p.move("Status", topupStatus[top.Status], topupStatus["canceled"])
			return p, nil
		},
		do: func(ledger.Once) (d deed, err error) {
			now, err := s.endTopup(v.call, top.ID)
			if err != nil {
				return d, err
			}
			d.said = "The top-up of " + money + " is " + topupStatus[now.Status] + "."
			if now.InFlight() {
				d.said = "It was asked of Stripe that the top-up of " + money + " be canceled. Its page shows what comes of it."
			}
			return d, nil
		}}, nil
}
