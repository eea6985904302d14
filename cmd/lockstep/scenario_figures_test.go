package main

import (
	"errors"
	"fmt"
)

// figure is what can be said after an arrow. is answers what is so instead, "" where the figure is right. who is the
// customer that the sentence before the arrow begins with, or names first.
type figure struct {
	says string
	is   func(p *part, who string, a []string) (instead string)
}

// ruleStates are an auto top-up's states, and why it is paused.
var ruleStates = map[string][2]string{
	"is armed": {"armed", ""}, "is off": {"disabled", ""}, "is topping up": {"topping_up", ""},
	"is paused: the payment failed": {"paused", "payment_failed"}, "is paused: there is no card": {"paused", "no_payment_method"},
	"is paused: the customer must confirm": {"paused", "action_required"}, "is paused: the limit is reached": {"paused", "spend_cap"},
	"is paused: a payment is disputed": {"paused", "dispute"}, "is paused by hand": {"paused", "manual"},
}

// figures is all that can be said after an arrow. To add one, add a line.
var figures = []figure{
	{"credit {amount}", func(p *part, who string, a []string) string { return p.balance(who, "available", a[0]) }},
	{"{who} has {amount}", func(p *part, _ string, a []string) string { return p.balance(a[0], "available", a[1]) }},
	{"set aside {amount}", func(p *part, who string, a []string) string { return p.balance(who, "held", a[0]) }},
	{"pending {amount}", func(p *part, who string, a []string) string { return p.balance(who, "pending", a[0]) }},
	{"Stripe shows {amount}", func(p *part, who string, a []string) string {
		want, err := cents(a[0])
		c := p.s.customer(p.asked(who).str("stripe_customer"))
		return unless(err == nil && c.Balance == -want, "Stripe shows %d cents", -c.Balance)
	}},
	{"charged {amount} in all", func(p *part, who string, a []string) string {
		want, err := cents(a[0])
		sum := int64(0)
		for _, ch := range p.s.w.sim.Charges(p.asked(who).str("stripe_customer")) {
			if ch.Status == "succeeded" {
				sum += ch.Amount
			}
		}
		return unless(err == nil && sum == want, "charged %d cents", sum)
	}},
	{"tried {n} times", func(p *part, who string, a []string) string {
		n := len(p.s.w.sim.Charges(p.asked(who).str("stripe_customer")))
		return unless(fmt.Sprint(n) == a[0], "%d times", n)
	}},
	{"the rule {state}", func(p *part, who string, a []string) string {
		w := p.asked(who)
		got := [2]string{w.str("wallets.0.auto_topup.state"), w.str("wallets.0.auto_topup.pause.reason")}
		return unless(got == ruleStates[a[0]], "the rule is %s %s", got[0], got[1])
	}},
	{"refused", func(p *part, _ string, _ []string) string {
		var r *refused
		return unless(errors.As(p.err, &r), "%v", p.err)
	}},
	{"declined", func(p *part, _ string, _ []string) string { // by Stripe's page, or through the gateway
		var r *refused
		return unless(p.err != nil && (!errors.As(p.err, &r) || r.a.str("error.type") == "card_error"), "%v", p.err)
	}},
	{"a card is saved", func(p *part, who string, _ []string) string {
		c := p.s.customer(p.asked(who).str("stripe_customer"))
		return unless(c.DefaultPaymentMethod != "", "no card is saved")
	}},
	{"a page is open", func(p *part, who string, _ []string) string {
		tops := p.s.w.call("GET", "/v1/topups?customer="+p.person(who).id, nil)
		return unless(tops.str("data.0.url") != "", "no page is open")
	}},
	{"the customer is deleted", func(p *part, who string, _ []string) string {
		c := p.asked(who)
		return unless(c.str("status") == "deleted", "the customer is %s", c.str("status"))
	}},
}

func unless(ok bool, format string, args ...any) string {
	if ok {
		return ""
	}
	return fmt.Sprintf(format, args...)
}

// balance compares a part of the balance of the wallet that an amount is of.
func (p *part) balance(who, name, text string) string {
	want, asset := amountOf(text)
	a := p.asked(who)
	wallets, _ := a.at("wallets").([]any)
	for _, v := range wallets {
		m, _ := v.(map[string]any)
		if w := (answer{m: m}); w.str("asset") == asset {
			return unless(w.str("balance."+name) == want, "%s %s is %s", asset, name, w.str("balance."+name))
		}
	}
	return unless(false, "no wallet of %s: %d", asset, a.status)
}
