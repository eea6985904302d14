package main

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"lockstep/stripeutil/stripesim"
)

// verb is a sentence of a scenario. It happens to each of the stories that run side by side, and time passes for all
// of them at once.
type verb struct {
	says string
	time func(s *scene, a []string) error // once
	do   func(p *part, a []string) error  // in each story
}

// cardsThat are the cards of scenarios by how they behave.
var cardsThat = map[string]string{
	"pays":                "pm_card_visa",
	"is declined":         "pm_card_chargeCustomerFail",
	"has no money":        "pm_card_stripesim_insufficient_funds",
	"has expired":         "pm_card_stripesim_expired_card",
	"was stolen":          "pm_card_stripesim_stolen_card",
	"asks for a code":     "pm_card_authenticationRequired",
	"is disputed at once": "pm_card_createDispute",
}

// verbs is every sentence that there is. To add one, add a line.
var verbs = []verb{
	// Customers and their cards.
	{says: "{who} is a customer.", do: func(p *part, a []string) error { return p.customer(a[0], "") }},
	{says: "{who} is a customer with a card that {card}.", do: func(p *part, a []string) error { return p.customer(a[0], a[1]) }},
	{says: "{who} is a customer with a bank account.", do: func(p *part, a []string) error {
		if err := p.customer(a[0], ""); err != nil {
			return err
		}
		return p.method(a[0], "pm_usBankAccount_processing")
	}},
	{says: "{who} lives in Germany.", do: func(p *part, a []string) error {
		p.s.w.atStripe("/v1/customers/"+p.person(a[0]).stripe, "address[country]=DE")
		return nil
	}},
	{says: "{who} gets a card that {card}.", do: func(p *part, a []string) error { return p.card(a[0], a[1]) }},
	{says: "The bank replaces {who}'s card by one that {card}.", do: func(p *part, a []string) error {
		who := p.person(a[0])
		return did(p.op().RenewCard(who.card, cardsThat[a[1]]))
	}},
	{says: "{who}'s card is removed.", do: func(p *part, a []string) error { return did(p.op().DetachPaymentMethod(p.person(a[0]).card)) }},
	{says: "{who} saves a card that {card} on Stripe's page.", do: savesCard},
	{says: "{who} is deleted in Stripe.", do: func(p *part, a []string) error { return did(p.op().DeleteCustomer(p.person(a[0]).stripe)) }},

	// Credit.
	{says: "{who} is given {amount}.", do: func(p *part, a []string) error { return p.grant(a[0], a[1], "promotional", "") }},
	{says: "{who} is given {amount} for {n} days.", do: func(p *part, a []string) error { return p.grant(a[0], a[1], "promotional", a[2]) }},
	{says: "{who} is sold {amount} outside Stripe.", do: func(p *part, a []string) error { return p.grant(a[0], a[1], "purchased", "") }},
	{says: "{who} is sold {amount} outside Stripe for {n} days.", do: func(p *part, a []string) error { return p.grant(a[0], a[1], "purchased", a[2]) }},
	{says: "{who} uses {amount}.", do: func(p *part, a []string) error { return p.post("/v1/usage", p.amount(a[0], a[1])) }},
	{says: "{who} sets {amount} aside.", do: func(p *part, a []string) error {
		ans, err := p.called("POST", "/v1/holds", with(p.amount(a[0], a[1]), "expires_in", 7*24*3600))
		p.person(a[0]).hold = ans.str("id")
		return err
	}},
	{says: "{who} settles {amount} of what was set aside.", do: func(p *part, a []string) error {
		amount, _ := amountOf(a[1])
		return p.post("/v1/holds/"+p.person(a[0]).hold+"/capture", map[string]any{"amount": amount, "final": true})
	}},
	{says: "{who} lets go of what was set aside.", do: func(p *part, a []string) error { return p.post("/v1/holds/"+p.person(a[0]).hold+"/release", nil) }},
	{says: "One token costs {amount}.", do: func(p *part, a []string) error {
		amount, _ := amountOf(a[0])
		_, err := p.called("PUT", "/v1/assets/tokens", map[string]any{"scale": 0, "price_per_unit": amount, "currency": "usd"})
		return err
	}},

	// Top-ups.
	{says: "{who} buys {amount} by card.", do: func(p *part, a []string) error { return p.post("/v1/topups", p.amount(a[0], a[1])) }},
	{says: "{who} buys {amount} by invoice.", do: func(p *part, a []string) error {
		return p.post("/v1/topups", with(p.amount(a[0], a[1]), "mode", "invoice"))
	}},
	{says: "{who} buys {amount} from the bank account.", do: func(p *part, a []string) error { return p.post("/v1/topups", p.amount(a[0], a[1])) }},
	{says: "{who}'s bank pays.", do: func(p *part, a []string) error { return p.bank(a[0], true) }},
	{says: "{who}'s bank says no.", do: func(p *part, a []string) error { return p.bank(a[0], false) }},
	{says: "{who} buys {amount} by invoice, with tax.", do: func(p *part, a []string) error {
		return p.post("/v1/topups", with(with(p.amount(a[0], a[1]), "mode", "invoice"), "invoice", map[string]any{"automatic_tax": true}))
	}},
	{says: "{who} is sent an invoice for {amount}.", do: func(p *part, a []string) error {
		return p.post("/v1/topups", with(with(p.amount(a[0], a[1]), "mode", "invoice"), "invoice", map[string]any{"collection_method": "send_invoice"}))
	}},
	{says: "{who} pays the invoice.", do: func(p *part, a []string) error { return did(p.op().PayInvoice(p.invoice(a[0]), false)) }},
	{says: "{who} pays the invoice outside Stripe.", do: func(p *part, a []string) error { return did(p.op().PayInvoice(p.invoice(a[0]), true)) }},
	{says: "{who} opens a page to buy {amount}.", do: func(p *part, a []string) error {
		ans, err := p.called("POST", "/v1/topups", with(with(p.amount(a[0], a[1]), "mode", "checkout"), "success_url", "https://app.example.com"))
		if who := p.person(a[0]); err == nil {
			who.topup, who.page = ans.str("id"), ans.str("stripe.checkout_session")
		}
		return err
	}},
	{says: "{who} pays on the page with a card that {card}.", do: func(p *part, a []string) error {
		return did(p.op().CompleteCheckout(p.person(a[0]).page, cardsThat[a[1]]))
	}},
	{says: "{who} gives the page up.", do: func(p *part, a []string) error { return p.post("/v1/topups/"+p.person(a[0]).topup+"/cancel", nil) }},
	{says: "{who}'s rule: below {amount} buy {amount}.", do: func(p *part, a []string) error { return p.rule(a[0], a[1], a[2]) }},
	{says: "{who}'s rule: below {amount} buy {amount}, at most {amount} a month.", do: func(p *part, a []string) error {
		cents, err := cents(a[3])
		if err != nil {
			return err
		}
		return p.rule(a[0], a[1], a[2], "spend_cap", map[string]any{"amount": cents, "currency": "usd", "interval": "month"})
	}},
	{says: "{who}'s rule: below {amount} buy {amount}, with the credit at once.", do: func(p *part, a []string) error {
		return p.rule(a[0], a[1], a[2], "settlement", "immediate")
	}},
	{says: "{who} finishes the payment with a card that {card}.", do: func(p *part, a []string) error {
		tops, err := p.called("GET", "/v1/topups?customer="+p.person(a[0]).id, nil)
		if err != nil {
			return err
		}
		return did(p.op().CompleteCheckout(tops.str("data.0.stripe.checkout_session"), cardsThat[a[1]]))
	}},
	{says: "{who}'s rule: below {amount} buy {amount} by invoice.", do: func(p *part, a []string) error { return p.rule(a[0], a[1], a[2], "mode", "invoice") }},
	{says: "{who}'s rule: below {amount} buy {amount}, trying a declined card {n} times more.", do: func(p *part, a []string) error {
		n, err := strconv.Atoi(a[3])
		if err != nil {
			return err
		}
		return p.rule(a[0], a[1], a[2], "decline_retries", n)
	}},
	{says: "{who}'s rule is paused.", do: func(p *part, a []string) error {
		return p.post("/v1/wallets/"+p.person(a[0]).wallet+"/auto_topup/pause", nil)
	}},
	{says: "{who}'s rule is resumed.", do: func(p *part, a []string) error {
		return p.post("/v1/wallets/"+p.person(a[0]).wallet+"/auto_topup/resume", nil)
	}},

	// Money that goes back.
	{says: "The merchant refunds {amount} of {who}'s payment of {amount}.", do: func(p *part, a []string) error { return p.refund(a[1], a[0], a[2]) }},
	{says: "The merchant refunds all of {who}'s payment of {amount}.", do: func(p *part, a []string) error { return p.refund(a[0], "0.00", a[1]) }},
	{says: "{who}'s bank sends the last refund back.", do: func(p *part, a []string) error { return did(p.op().FailRefund(p.person(a[0]).refund)) }},
	{says: "{who} disputes the payment of {amount}.", do: func(p *part, a []string) error { return p.dispute(a[0], a[1], (*stripesim.Operator).OpenDispute) }},
	{says: "{who}'s bank asks about the payment of {amount}.", do: func(p *part, a []string) error { return p.dispute(a[0], a[1], (*stripesim.Operator).OpenInquiry) }},
	{says: "The merchant wins against {who}.", do: func(p *part, a []string) error { return did(p.op().CloseDispute(p.disputed, true)) }},
	{says: "The merchant loses against {who}.", do: func(p *part, a []string) error { return did(p.op().CloseDispute(p.disputed, false)) }},
	{says: "{who}'s bank asks no more.", do: func(p *part, a []string) error { return did(p.op().CloseDispute(p.disputed, false)) }},

	{says: "The merchant gives {amount} of {who}'s invoice back outside Stripe.", do: func(p *part, a []string) error {
		return p.note(a[1], a[0], func(n int64) stripesim.CreditParts { return stripesim.CreditParts{OutOfBand: n} })
	}},
	{says: "The merchant credits {amount} of {who}'s invoice to the balance.", do: func(p *part, a []string) error {
		return p.note(a[1], a[0], func(n int64) stripesim.CreditParts { return stripesim.CreditParts{Credit: n} })
	}},
	{says: "The merchant refunds {amount} of {who}'s invoice by a credit note.", do: func(p *part, a []string) error {
		return p.note(a[1], a[0], func(n int64) stripesim.CreditParts { return stripesim.CreditParts{Refund: n} })
	}},
	{says: "The merchant voids {who}'s credit note.", do: func(p *part, a []string) error { return did(p.op().VoidCreditNote(p.person(a[0]).note)) }},
	{says: "The merchant voids {who}'s invoice.", do: func(p *part, a []string) error { return did(p.op().VoidInvoice(p.invoice(a[0]))) }},

	// Others in Stripe's dashboard.
	{says: "Somebody gives {who} {amount} in Stripe.", do: func(p *part, a []string) error { return p.adjust(a[0], a[1], -1) }},
	{says: "Somebody takes {amount} from {who} in Stripe.", do: func(p *part, a []string) error { return p.adjust(a[1], a[0], 1) }},
	{says: "{who} gets a bill of {amount} for something else.", do: func(p *part, a []string) error {
		n, err := cents(a[1])
		if err != nil {
			return err
		}
		return did(p.op().Invoice(p.person(a[0]).stripe, n, "usd"))
	}},

	// Packs and plans, as they are set up in Stripe's dashboard.
	{says: "Pack {name} costs {amount} and gives {amount}.", do: func(p *part, a []string) error { return p.price(a[0], a[1], a[2], "") }},
	{says: "Pack {name} costs {amount} and gives {amount} for {n} days.", do: func(p *part, a []string) error { return p.price(a[0], a[1], a[2], "", "credits_expire", a[3]+"d") }},
	{says: "Plan {name} costs {amount} a month and gives {amount}.", do: func(p *part, a []string) error { return p.price(a[0], a[1], a[2], "month") }},
	{says: "Plan {name} costs {amount} a month and gives {amount}, carrying over what is left.", do: func(p *part, a []string) error {
		return p.price(a[0], a[1], a[2], "month", "credits_rollover", "all")
	}},
	{says: "Plan {name} costs {amount} a month and gives {amount}, carrying over at most {amount}.", do: func(p *part, a []string) error {
		most, _ := amountOf(a[3])
		return p.price(a[0], a[1], a[2], "month", "credits_rollover", most)
	}},
	{says: "{who} buys pack {name} with a card that {card}.", do: func(p *part, a []string) error {
		return p.link(stripesim.Link{Customer: p.person(a[0]).stripe}, a[1], a[2])
	}},
	{says: "{who} buys pack {name} with a card that {card}, and gets an invoice.", do: func(p *part, a []string) error {
		return p.link(stripesim.Link{Customer: p.person(a[0]).stripe, Invoices: true}, a[1], a[2])
	}},
	{says: "A guest, {who}, buys pack {name} with a card that {card}.", do: func(p *part, a []string) error {
		return p.link(stripesim.Link{ClientReference: p.person(a[0]).id}, a[1], a[2])
	}},
	{says: "{who} is invoiced for pack {name}.", do: func(p *part, a []string) error {
		return did(p.op().InvoicePrice(p.person(a[0]).stripe, p.prices[a[1]], 1, nil))
	}},
	{says: "A guest, {who}, subscribes to plan {name} with a card that {card}.", do: func(p *part, a []string) error {
		who := p.person(a[0])
		return p.link(stripesim.Link{ClientReference: who.id, Email: who.id + "@example.com"}, a[1], a[2])
	}},
	{says: "{who} subscribes to plan {name}.", do: func(p *part, a []string) error { return p.subscribe(a[0], a[1], stripesim.Terms{}) }},
	{says: "{who} subscribes to plan {name}, the first {n} days free.", do: func(p *part, a []string) error {
		n, err := strconv.ParseInt(a[2], 10, 64)
		if err != nil {
			return err
		}
		return p.subscribe(a[0], a[1], stripesim.Terms{TrialDays: n})
	}},
	{says: "{who} subscribes to plan {name} at {n} % off.", do: func(p *part, a []string) error {
		n, err := strconv.ParseInt(a[2], 10, 64)
		if err != nil {
			return err
		}
		return p.subscribe(a[0], a[1], stripesim.Terms{PercentOff: n})
	}},
	{says: "{who} changes to plan {name}.", do: func(p *part, a []string) error { return did(p.op().ChangePlan(p.person(a[0]).sub, p.prices[a[1]], 1)) }},
	{says: "{who} asks for plan {name} from the next month on.", do: func(p *part, a []string) error {
		return did(p.op().ChangeNextPeriod(p.person(a[0]).sub, p.prices[a[1]], 1))
	}},
	{says: "{who} cancels the plan.", do: func(p *part, a []string) error { return did(p.op().CancelSubscription(p.person(a[0]).sub)) }},
	{says: "{who}'s month ends.", time: monthEnds},
	{says: "{who}'s next month is collected.", do: func(p *part, a []string) error { return did(p.op().CollectNow(p.person(a[0]).sub)) }},
	{says: "{who}'s unpaid invoice is paid.", do: func(p *part, a []string) error {
		sub, _ := p.s.w.sim.Subscription(p.person(a[0]).sub)
		return did(p.op().PayInvoice(sub.LatestInvoice, false))
	}},

	{says: "{n} days pass.", time: func(s *scene, a []string) error {
		n, err := strconv.Atoi(a[0])
		s.w.advance(time.Duration(n) * day)
		return err
	}},
}

// monthEnds moves time to where the month of a plan has ended in all stories.
func monthEnds(s *scene, a []string) error {
	var end time.Time
	for _, p := range s.playing {
		sub, found := s.w.sim.Subscription(p.person(a[0]).sub)
		if !found {
			return fmt.Errorf("%s has no plan", a[0])
		}
		if sub.PeriodEnd.After(end) {
			end = sub.PeriodEnd
		}
	}
	s.w.advance(end.Sub(s.w.sim.Now()) + 2*time.Second)
	return nil
}

// amountOf is an amount of the table as the API has it, and its asset.
func amountOf(text string) (amount, asset string) {
	if n, tokens := strings.CutSuffix(text, " tokens"); tokens {
		return n, "tokens"
	}
	if strings.Contains(text, ".") {
		text = strings.TrimSuffix(strings.TrimRight(text, "0"), ".")
	}
	if text == "-0" {
		text = "0"
	}
	return text, "usd"
}

func cents(text string) (int64, error) {
	return strconv.ParseInt(strings.Replace(text, ".", "", 1), 10, 64)
}

// did drops the id of what was done at Stripe.
func did(_ string, err error) error { return err }

// refused is a refusal by the gateway.
type refused struct{ a answer }

func (r *refused) Error() string { return r.a.String() }

func (p *part) called(method, path string, body any) (answer, error) {
	a := p.s.w.call(method, path, body)
	if a.status/100 != 2 {
		return a, &refused{a}
	}
	return a, nil
}

func (p *part) post(path string, body any) error {
	_, err := p.called(http.MethodPost, path, body)
	return err
}

func (p *part) op() *stripesim.Operator { return p.s.w.sim.Operator() }

// amount is the body of a call about an amount of a customer's.
func (p *part) amount(who, text string) map[string]any {
	amount, asset := amountOf(text)
	return map[string]any{"customer": p.person(who).id, "asset": asset, "amount": amount}
}

func (p *part) customer(name, card string) error {
	who := p.person(name)
	a, err := p.called("POST", "/v1/customers", map[string]any{"id": who.id})
	if err != nil {
		return err
	}
	who.wallet, who.stripe = a.str("wallets.0.id"), a.str("stripe_customer")
	if card == "" {
		return nil
	}
	return p.card(name, card)
}

func (p *part) card(name, card string) error { return p.method(name, cardsThat[card]) }

// method is what a customer pays with from now on.
func (p *part) method(name, token string) (err error) {
	who := p.person(name)
	if who.card, err = p.op().AttachCard(who.stripe, token); err != nil {
		return err
	}
	return did(p.op().SetDefaultPaymentMethod(who.stripe, who.card))
}

func savesCard(p *part, a []string) error {
	page, err := p.called("POST", "/v1/customers/"+p.person(a[0]).id+"/setup_sessions", map[string]any{"success_url": "https://app.example.com"})
	if err != nil {
		return err
	}
	return did(p.op().CompleteCheckout(page.str("id"), cardsThat[a[1]]))
}

// grant gives credit for so many days, "" for ever.
func (p *part) grant(who, amount, kind, days string) error {
	body := with(p.amount(who, amount), "kind", kind)
	if days != "" {
		n, err := strconv.Atoi(days)
		if err != nil {
			return err
		}
		body["expires_at"] = p.s.w.clock.now().Add(time.Duration(n) * day).UTC().Format(time.RFC3339)
	}
	return p.post("/v1/grants", body)
}

func (p *part) rule(who, threshold, amount string, more ...any) error {
	body := map[string]any{}
	body["threshold"], _ = amountOf(threshold)
	body["amount"], _ = amountOf(amount)
	for i := 0; i+1 < len(more); i += 2 {
		body[more[i].(string)] = more[i+1]
	}
	_, err := p.called("PUT", "/v1/wallets/"+p.person(who).wallet+"/auto_topup", body)
	return err
}

// payment is the newest charge of an amount that a customer paid.
func (p *part) payment(who, amount string) (charge string, err error) {
	want, err := cents(amount)
	for _, ch := range p.s.w.sim.Charges("") {
		if ch.Amount == want && ch.Status == "succeeded" && (ch.Customer == p.person(who).stripe || p.s.owner(ch.PaymentIntent) == p) {
			charge = ch.ID
		}
	}
	if charge == "" && err == nil {
		err = fmt.Errorf("%s has paid no %s", who, amount)
	}
	return charge, err
}

func (p *part) refund(who, amount, of string) error {
	charge, err := p.payment(who, of)
	if err != nil {
		return err
	}
	n, err := cents(amount)
	if err != nil {
		return err
	}
	p.person(who).refund, err = p.op().Refund(charge, n)
	return err
}

func (p *part) dispute(who, amount string, open func(*stripesim.Operator, string, string) (string, error)) error {
	charge, err := p.payment(who, amount)
	if err != nil {
		return err
	}
	return did(open(p.op(), charge, "fraudulent"))
}

// invoice is the customer's newest.
func (p *part) invoice(who string) (id string) {
	for _, in := range p.s.w.sim.Invoices(p.person(who).stripe) {
		id = in.ID
	}
	return id
}

// note gives back of the customer's newest invoice.
func (p *part) note(who, amount string, parts func(int64) stripesim.CreditParts) error {
	n, err := cents(amount)
	if err != nil {
		return err
	}
	p.person(who).note, err = p.op().CreditNote(p.invoice(who), parts(n))
	return err
}

// bank is the late word on a debit that is on its way.
func (p *part) bank(who string, pays bool) error {
	for _, pi := range p.s.w.sim.PaymentIntents(p.person(who).stripe) {
		if pi.Status == "processing" {
			return did(p.op().FinishProcessing(pi.ID, pays))
		}
	}
	return fmt.Errorf("the bank of %s has been asked for nothing", who)
}

func (p *part) adjust(who, amount string, sign int64) error {
	n, err := cents(amount)
	if err != nil {
		return err
	}
	return did(p.op().AdjustBalance(p.person(who).stripe, sign*n, "usd", "by hand"))
}

// price is a pack, or a plan of an interval.
func (p *part) price(name, costs, gives, interval string, terms ...string) (err error) {
	n, err := cents(costs)
	if err != nil {
		return err
	}
	amount, asset := amountOf(gives)
	terms = append(terms, "credits", amount, "credits_asset", asset)
	p.prices[name], err = p.op().AddPrice(stripesim.NewPrice{Unit: n, Interval: interval, Metadata: pairs(terms)})
	p.s.own(p, p.prices[name])
	return err
}

// link is somebody buying at a payment link.
func (p *part) link(l stripesim.Link, name, card string) error {
	l.Price = p.prices[name]
	session, err := p.op().PaymentLink(l)
	if err != nil {
		return err
	}
	p.s.own(p, session)
	if err := did(p.op().CompleteCheckout(session, cardsThat[card])); err != nil {
		return err
	}
	if sub := p.s.w.sim.Session(session).Subscription; sub != "" {
		for _, who := range p.people {
			if who.id == l.ClientReference {
				who.sub = sub
			}
		}
	}
	return nil
}

func (p *part) subscribe(who, plan string, t stripesim.Terms) (err error) {
	p.person(who).sub, err = p.op().Subscribe(p.person(who).stripe, p.prices[plan], 1, t)
	return err
}
