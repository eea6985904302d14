package handlers

import (
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"lockstep/handlers/pages"
	"lockstep/ledger"
	"lockstep/stripeutil"
)

// ruleForm is the form of an auto top-up rule: what was typed, or what the rule says, and what is wrong with it.
type ruleForm struct {
	Enabled   bool
	Threshold string // of the asset, or in percent where the rule is
	Percent   bool
	Fill      string // amount or target
	Amount    string
	Target    string
	Cap       string // in the currency; "" is no limit
	Interval  string
	Card      string // a saved card's id; "" is the default
	Wrong     map[string]string
}

type ruleFormView struct {
	Wallet   *ledger.Wallet
	Form     ruleForm
	Rule     *ruleView
	Currency string
	Cards    []cardView
	NoCards  bool   // Stripe could not be asked
	Was      string // what the form was made of
}

// asked is what a rule asks for, of all that the form shows but the card.
func asked(in ledger.RuleInput) string {
	text := func(d *ledger.Decimal) string {
		if d == nil {
			return "-"
		}
		return d.String()
	}
	most := "-"
	if in.Cap != nil {
		most = strconv.FormatInt(in.Cap.Amount, 10) + " " + in.CapInterval
	}
	return strings.Join([]string{strconv.FormatBool(in.Enabled), text(in.Threshold), strconv.Itoa(int(deref(in.ThresholdPercent))), text(in.Amount), text(in.Target), most}, ",")
}

// cardView is a saved card as its owner knows it.
type cardView struct {
	ID      string
	Name    string
	Default bool
	Chosen  bool
}

// cards are the customer's saved cards, the default one first. Where Stripe can't be asked, the page says so, and the
// rest of it works.
func (s *Server) cards(p *portalVisit) (views []cardView, ok bool) {
	if p.cust.StripeCustomer == "" {
		return nil, true
	}
	cards, err := s.Stripe.Cards(p.ctx(), p.cust.StripeCustomer)
	var standard stripeutil.Method
	if err == nil {
		standard, err = s.Stripe.DefaultMethod(p.ctx(), p.cust.StripeCustomer)
	}
	if err != nil {
		s.complain("cards not shown", "request", p.id, "error", err)
		return nil, false
	}
	for _, c := range cards {
		views = append(views, cardView{ID: c.ID, Default: c.ID == standard.ID,
			Name: p.locale.T("portal.card.name", "brand", brandName(c.Brand), "last", c.Last4, "until", strconv.Itoa(c.ExpMonth)+"/"+strconv.Itoa(c.ExpYear))})
	}
	slices.SortStableFunc(views, func(a, b cardView) int {
		if a.Default == b.Default {
			return 0
		} else if a.Default {
			return -1
		}
		return 1
	})
	return views, true
}

// brandName is a brand as it stands on the card.
func brandName(brand string) string {
	switch brand {
	case "amex":
		return "American Express"
	case "jcb":
		return "JCB"
	case "unionpay":
		return "UnionPay"
	case "":
		return "Card"
	}
	return strings.ToUpper(brand[:1]) + brand[1:]
}

// portalRefill shows the rule of a wallet.
func (s *Server) portalRefill(p *portalVisit) error {
	w, err := p.wallet()
	if err != nil {
		return err
	}
	view, err := s.ruleFormView(p, &w)
	if err != nil {
		return err
	}
	return s.showRule(p, http.StatusOK, view)
}

func (s *Server) showRule(p *portalVisit, status int, view ruleFormView) error {
	view.Cards, view.NoCards = nil, false
	cards, ok := s.cards(p)
	view.NoCards = !ok
	for i := range cards {
		cards[i].Chosen = cards[i].ID == view.Form.Card
	}
	view.Cards = cards
	if chosen := view.Form.Card; chosen != "" && !slices.ContainsFunc(cards, func(c cardView) bool { return c.Chosen }) {
		// The rule names what is no saved card, such as a bank account: it stays unless another is chosen.
		view.Cards = append(view.Cards, cardView{ID: chosen, Name: p.locale.T("portal.card.other"), Chosen: true})
	}
	return s.show(p.visit, status, "refill", pages.Frame{Title: p.locale.T("portal.rule.title"), Notice: p.notice(), Data: view})
}

// ruleFormView is the form of a wallet's rule as it is now, or of one to begin with.
func (s *Server) ruleFormView(p *portalVisit, w *ledger.Wallet) (v ruleFormView, err error) {
	asset, err := p.own.Asset(p.ctx(), w.Asset)
	if err == nil && asset.Currency == "" {
		err = p.missing(&ledger.Refusal{Code: ledger.CodeNotFound})
	}
	if err != nil {
		return v, err
	}
	v = ruleFormView{Wallet: w, Currency: asset.Currency, Form: ruleForm{Fill: "amount", Interval: "month"}}
	if v.Rule, err = s.ruleView(p, w); err != nil || v.Rule == nil {
		return v, err
	}
	r := v.Rule
	show := func(n *int64) string {
		if n == nil {
			return ""
		}
		return p.locale.Number(ledger.FormatSteps(*n, w.Scale))
	}
	f := &v.Form
	f.Enabled, f.Threshold, f.Amount, f.Target, f.Card = r.Enabled, show(r.Threshold), show(r.Amount), show(r.Target), deref(r.PaymentMethod)
	if r.ThresholdPercent != nil {
		f.Percent, f.Threshold = true, strconv.Itoa(int(*r.ThresholdPercent))
	}
	if r.Target != nil {
		f.Fill = "target"
	}
	if r.CapAmount != nil {
		amount, _, _ := strings.Cut(ledger.FormatMinor(*r.CapAmount, r.Currency), " ")
		f.Cap, f.Interval = p.locale.Number(amount), deref(r.CapInterval)
	}
	as := v
	as.Form.Wrong = map[string]string{}
	v.Was = asked(s.ruleInput(p, &as))
	return v, nil
}

// saveRefill sets the rule of a wallet by PutRule, as the API does. What the form does not show stays as it was: how it is
// paid, when it settles, the terms of its grants. Sent twice it sets the same.
func (s *Server) saveRefill(p *portalVisit) error {
	w, err := p.wallet()
	if err != nil {
		return err
	}
	view, err := s.ruleFormView(p, &w)
	if err != nil {
		return err
	}
	if p.form.Get("was") != view.Was { // by the merchant, or in another window
		view.Form.Wrong = map[string]string{"form": p.locale.T("portal.rule.changed")}
		return s.showRule(p, http.StatusConflict, view)
	}
	percent, before := view.Form.Percent, view.Form.Card
	view.Form = ruleForm{Enabled: p.form.Get("enabled") != "", Percent: percent, Threshold: p.form.Get("threshold"), Fill: p.form.Get("fill"), Amount: p.form.Get("amount"),
		Target: p.form.Get("target"), Cap: p.form.Get("cap"), Interval: p.form.Get("interval"), Card: p.form.Get("card"), Wrong: map[string]string{}}
	in := s.ruleInput(p, &view)
	if asked(in) != view.Was {
		// Credit that comes before it is paid is the merchant's risk, taken for a rule that they know.
		in.Settlement = "on_payment"
	}
	if card := view.Form.Card; card != "" && card != before {
		if cards, ok := s.cards(p); !ok || !slices.ContainsFunc(cards, func(c cardView) bool { return c.ID == card }) {
			view.Form.Wrong["card"] = p.locale.T("portal.rule.wrong.card")
		}
	}
	if len(view.Form.Wrong) == 0 {
		_, err = s.Ledger.PutRule(p.ctx(), w.ID, in)
		var r *ledger.Refusal
		switch {
		case err == nil:
			return p.goTo("/portal/refill/" + w.ID + "?done=rule")
		case !errors.As(err, &r) || r.Param == "":
			return err
		}
		view.Form.Wrong[ruleField(r.Param)] = s.ruleWrong(p, &view, ruleField(r.Param))
	}
	return s.showRule(p, http.StatusUnprocessableEntity, view)
}

// ruleInput is the rule that a form asks for, with all that it does not show; what can't be read is wrong in the form.
func (s *Server) ruleInput(p *portalVisit, view *ruleFormView) ledger.RuleInput {
	f := &view.Form
	in := ledger.RuleInput{Enabled: f.Enabled, GrantPriority: ledger.DefaultPriority, PaymentMethod: f.Card, MinimumCharge: stripeutil.MinimumCharge}
	if r := view.Rule; r != nil {
		in.RunwayMinutes, in.DeclineRetries, in.Mode, in.Settlement = r.RunwayMinutes, r.DeclineRetries, r.Mode, r.Settlement
		in.GrantKind, in.GrantPriority, in.GrantExpiresInDays = r.GrantKind, r.GrantPriority, r.GrantExpiresInDays
		if r.Mode == "invoice" {
			in.Invoice = &r.InvoiceTerms
		}
	}
	number := func(field, typed string) *ledger.Decimal {
		d, ok := ledger.ParseDecimal(p.locale.Decimal(typed))
		if !ok {
			f.Wrong[field] = s.ruleWrong(p, view, field)
			return nil
		}
		return &d
	}
	if n, err := strconv.ParseInt(strings.TrimSpace(f.Threshold), 10, 16); f.Percent && err == nil {
		percent := int16(n)
		in.ThresholdPercent = &percent
	} else if f.Percent {
		f.Wrong["threshold"] = s.ruleWrong(p, view, "threshold")
	} else {
		in.Threshold = number("threshold", f.Threshold)
	}
	if f.Fill == "target" {
		in.Target = number("target", f.Target)
	} else {
		f.Fill, in.Amount = "amount", number("amount", f.Amount)
	}
	if strings.TrimSpace(f.Cap) == "" {
		return in
	}
	if d := number("cap", f.Cap); d != nil {
		minor, ok := d.Minor(view.Currency)
		if !ok {
			f.Wrong["cap"] = s.ruleWrong(p, view, "cap")
		}
		in.Cap, in.CapInterval = &ledger.Money{Amount: minor, Currency: view.Currency}, f.Interval
	}
	return in
}

// ruleField is the form's name of a field of the API.
func ruleField(param string) string {
	switch param {
	case "threshold", "amount", "target":
		return param
	case "threshold_percent":
		return "threshold"
	case "spend_cap.amount", "spend_cap.interval", "spend_cap.currency":
		return "cap"
	case "payment_method":
		return "card"
	}
	return "form"
}

// ruleWrong says what a field takes.
func (s *Server) ruleWrong(p *portalVisit, view *ruleFormView, field string) string {
	key := "portal.rule.wrong." + field
	if field == "threshold" && view.Form.Percent {
		key = "portal.rule.wrong.percent"
	}
	return p.locale.T(key, "least", p.locale.Money(max(1, stripeutil.MinimumCharge(view.Currency)), view.Currency), "example", p.locale.Number("12.5"))
}

// resumeRefill ends a pause.
func (s *Server) resumeRefill(p *portalVisit) error {
	w, err := p.wallet()
	if err != nil {
		return err
	}
	r, found, err := p.own.Rule(p.ctx(), &w)
	if err != nil {
		return err
	}
	// Of the pauses, this one alone the customer may end without more: a card that was declined is not tried again because
	// somebody presses a button, and who paused the rule by hand, or waits for a bank, had a reason.
	if !found || deref(r.PauseReason) != ledger.PauseActionRequired {
		return p.goTo("/portal")
	}
	if _, err = s.Ledger.ResumeRule(p.ctx(), w.ID); err != nil {
		return err
	}
	return p.goTo("/portal?done=resumed")
}

// portalCards shows the saved cards.
func (s *Server) portalCards(p *portalVisit) error {
	cards, ok := s.cards(p)
	return s.show(p.visit, http.StatusOK, "cards", pages.Frame{Title: p.locale.T("portal.cards.title"), Notice: p.notice(), Data: struct {
		Cards []cardView
		Known bool
		Nonce string
	}{cards, ok, nonce()}})
}

// addCard leads to Stripe's page for saving a card, and manageCards to its billing portal.
func (s *Server) addCard(p *portalVisit) error {
	return s.toStripe(p, func(back, key string) (stripeutil.PageSession, error) {
		return s.setupPage(p.ctx(), &p.cust, back+"?done=card", back, key)
	})
}

func (s *Server) manageCards(p *portalVisit) error {
	return s.toStripe(p, func(back, key string) (stripeutil.PageSession, error) {
		return s.billingPage(p.ctx(), &p.cust, back, key)
	})
}

// toStripe opens a page of Stripe's for the cards and leads there. The form's nonce is part of Stripe's key: the form sent
// again leads to the same page.
func (s *Server) toStripe(p *portalVisit, open func(back, key string) (stripeutil.PageSession, error)) error {
	if p.cust.StripeCustomer == "" {
		return p.refuse(http.StatusConflict, "conflict", string(ledger.CodeState), "portal.cards.soon")
	}
	key, err := p.nonce()
	if err != nil {
		return err
	}
	page, err := open(s.base(p.call)+"/portal/cards", p.cust.StripeCustomer+":"+key)
	if err != nil {
		return err
	}
	return s.leave(p, page.URL)
}

// leave answers a form with a page that leads to Stripe's. A redirect would not: the browser holds it to the policy that
// forms are sent to this site alone.
func (s *Server) leave(p *portalVisit, url string) error {
	return s.show(p.visit, http.StatusOK, "leave", pages.Frame{Title: p.locale.T("portal.leave.title"), Data: url})
}

// nonce is the one that the form was made with.
func (p *portalVisit) nonce() (string, error) {
	n := p.form.Get("nonce")
	if len(n) != len(nonce()) || strings.Trim(n, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567") != "" {
		return "", invalid("", p.locale.T("portal.stale"))
	}
	return n, nil
}
