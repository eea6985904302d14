package handlers

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"

	"lockstep/handlers/pages"
	"lockstep/ledger"
	"lockstep/stripeutil"
)

// buyForm is the form by which credit is bought.
type buyForm struct {
	Amount string
	How    string // card: the saved one, now; page: Stripe's
	Card   string // a saved card's id; "" is the default
	Wrong  string // what is wrong with the amount
	Refuse string // why nothing can be bought now
}

type buyView struct {
	Wallet   *ledger.Wallet
	Form     buyForm
	Currency string
	Cards    []cardView
	NoCards  bool
	Waiting  *ledger.Topup // one that is not settled yet
	Invoice  bool          // it is paid by invoice, as the wallet's rule says
	Tax      bool          // which adds tax
	Sent     bool          // and is sent

	Cost  ledger.Money // of the amount, once it is known
	Paid  string       // the card that is charged, by its name
	Terms string       // what is agreed to
	Nonce string
}

// terms are what a purchase costs and how it is paid, as the customer is shown them.
func (v *buyView) terms() string {
	return fmt.Sprint(v.Cost.Amount, v.Cost.Currency, v.Invoice, v.Tax, v.Sent)
}

// portalBuy shows the form.
func (s *Server) portalBuy(p *portalVisit) error {
	v, err := s.buyView(p)
	if err != nil {
		return err
	}
	return s.showBuy(p, http.StatusOK, v)
}

func (s *Server) showBuy(p *portalVisit, status int, v buyView) error {
	cards, ok := s.cards(p)
	v.NoCards = !ok
	for i := range cards {
		cards[i].Chosen = cards[i].ID == v.Form.Card
	}
	v.Cards = cards
	if v.Form.How == "" {
		v.Form.How = "card"
	}
	if len(cards) == 0 && !v.Invoice {
		v.Form.How = "page"
	}
	return s.show(p.visit, status, "buy", pages.Frame{Title: p.locale.T("portal.buy.title"), Data: v})
}

func (s *Server) buyView(p *portalVisit) (v buyView, err error) {
	w, err := p.wallet()
	if err != nil {
		return v, err
	}
	asset, err := p.own.Asset(p.ctx(), w.Asset)
	if err == nil && asset.Currency == "" {
		err = p.missing(&ledger.Refusal{Code: ledger.CodeNotFound})
	}
	if err != nil {
		return v, err
	}
	v = buyView{Wallet: &w, Currency: asset.Currency, Nonce: nonce()}
	tops, err := p.own.TopupsOf(p.ctx(), &w, "", 1)
	if err != nil {
		return v, err
	}
	if len(tops) == 1 && tops[0].InFlight() {
		v.Waiting = &tops[0]
	}
	r, found, err := p.own.Rule(p.ctx(), &w)
	if found && r.Mode == "invoice" {
		v.Invoice, v.Tax, v.Sent = true, r.AutomaticTax, r.DaysUntilDue != nil
	}
	return v, err
}

// buy shows what will be charged, and once that was agreed to, buys.
//
// row → commit → Stripe → settle, as postTopup: the nonce of the page that was agreed to is the key under which the top-up
// is made, so a form that is sent twice, or again after a crash, finds the same top-up and goes on with it. A worker does
// that too, when nobody comes back.
func (s *Server) buy(p *portalVisit) error {
	v, err := s.buyView(p)
	if err != nil {
		return err
	}
	v.Form = buyForm{Amount: p.form.Get("amount"), How: p.form.Get("how"), Card: p.form.Get("card")}
	agreed, typed := p.form.Get("agreed") != "", v.Form.Amount
	if !agreed { // what was agreed to comes from the page, and is written as machines do
		typed = p.locale.Decimal(typed)
	}
	amount, ok := ledger.ParseDecimal(typed)
	if ok {
		v.Cost, err = p.own.Price(p.ctx(), v.Wallet, amount, stripeutil.MinimumCharge)
	}
	if !ok || ledger.IsCode(err, ledger.CodeInvalid) {
		v.Form.Wrong = p.locale.T("portal.buy.wrong", "least", p.locale.Money(max(1, stripeutil.MinimumCharge(v.Currency)), v.Currency), "example", p.locale.Number("12.5"))
		return s.showBuy(p, http.StatusUnprocessableEntity, v)
	}
	if err != nil {
		return err
	}
	if !agreed || p.form.Get("terms") != v.terms() { // a new price, or another way to pay, is to be agreed to anew
		return s.showConfirm(p, v, amount)
	}
	return s.pay(p, v, amount)
}

// showConfirm says what will be charged.
func (s *Server) showConfirm(p *portalVisit, v buyView, amount ledger.Decimal) error {
	if v.Waiting != nil { // the form says so, with the way to it
		return s.showBuy(p, http.StatusConflict, v)
	}
	if v.Form.How != "page" && !v.Sent {
		cards, ok := s.cards(p)
		i := slices.IndexFunc(cards, func(c cardView) bool { return c.ID == v.Form.Card || v.Form.Card == "" && c.Default })
		if ok && i < 0 {
			v.Form.Refuse = p.locale.T("portal.buy.no_card")
			return s.showBuy(p, http.StatusUnprocessableEntity, v)
		}
		if ok {
			v.Paid, v.Form.Card = cards[i].Name, cards[i].ID // that card, whichever is the default when they agree
		}
	}
	v.Form.Amount, v.Terms = amount.String(), v.terms()
	return s.show(p.visit, http.StatusOK, "confirm", pages.Frame{Title: p.locale.T("portal.confirm.title"), Data: v})
}

func (s *Server) pay(p *portalVisit, v buyView, amount ledger.Decimal) error {
	key, err := p.nonce()
	if err != nil {
		return err
	}
	want := ledger.TopupInput{Customer: p.cust.ID, Asset: v.Wallet.Asset, Wallet: v.Wallet.ID, Amount: amount, Mode: "charge", PaymentMethod: v.Form.Card,
		MinimumCharge: stripeutil.MinimumCharge}
	if v.Form.How == "page" {
		want.Mode, want.PaymentMethod, want.SuccessURL = "checkout", "", s.base(p.call)+"/portal/purchases/"+v.Wallet.ID+"?done=paid"
	} else if v.Invoice {
		r, _, err := p.own.Rule(p.ctx(), v.Wallet)
		if err != nil {
			return err
		}
		want.Mode, want.Invoice = "invoice", &r.InvoiceTerms
		if v.Sent {
			want.PaymentMethod = ""
		}
	}
	if want.PaymentMethod != "" { // only one that is theirs
		if cards, ok := s.cards(p); !ok || !slices.ContainsFunc(cards, func(c cardView) bool { return c.ID == want.PaymentMethod }) {
			v.Form.Refuse = p.locale.T("portal.rule.wrong.card")
			return s.showBuy(p, http.StatusUnprocessableEntity, v)
		}
	}
	once := ledger.Once{Bucket: p.cust.Bucket, Key: "portal:" + key,
		Request: ledger.Fingerprint("portal buy", p.cust.ID, want.Wallet, want.Amount.String(), want.Mode, want.PaymentMethod)}
	top, _, err := s.Ledger.CreateTopup(p.ctx(), want, once)
	if ledger.IsCode(err, ledger.CodeTopupInFlight) {
		return s.showBuy(p, http.StatusConflict, v)
	}
	if err == nil && top.InFlight() {
		top, err = s.Charge(p.ctx(), top.ID)
	}
	if err != nil {
		return err
	}
	if top.Mode == "checkout" && top.Status == "pending" && top.URL != nil {
		return s.leave(p, *top.URL)
	}
	return p.goTo("/portal/topups/" + top.ID)
}

// topup is the one in the path, which is the customer's.
func (p *portalVisit) topup() (ledger.Topup, error) {
	top, err := p.own.Topup(p.ctx(), p.r.PathValue("topup"))
	return top, p.missing(err)
}

// topupView is a purchase as its customer sees it.
type topupView struct {
	ledger.Topup
	Asset string
	Why   string // it failed
}

// Open reports whether there is a page on which it can be paid.
func (t topupView) Open() bool {
	return t.URL != nil && (t.Status == "pending" || t.Status == "action_required")
}

// Stoppable reports whether it can still be called off, as far as is known here.
func (t topupView) Stoppable() bool {
	return t.Trigger == "manual" && (t.Status == "pending" || t.Status == "action_required") && !t.Cancel
}

// Receipt reports whether Stripe has a receipt or an invoice to show.
func (t topupView) Receipt() bool {
	return t.Invoice != nil || t.PaymentIntent != nil && t.Status == "succeeded"
}

func newTopupView(l pages.Locale, top ledger.Topup, asset string) topupView {
	v := topupView{Topup: top, Asset: asset}
	if top.Status == "failed" {
		v.Why = declineSaid(l, &top)
	}
	return v
}

// portalTopup shows one purchase and what became of it.
func (s *Server) portalTopup(p *portalVisit) error {
	top, err := p.topup()
	if err != nil {
		return err
	}
	w, err := p.own.Wallet(p.ctx(), top.Wallet)
	if err != nil {
		return err
	}
	return s.show(p.visit, http.StatusOK, "topup", pages.Frame{Title: p.locale.T("portal.topup.title"), Notice: p.notice(), Data: struct {
		Topup  topupView
		Wallet ledger.Wallet
		Nonce  string
	}{newTopupView(p.locale, top, w.Asset), w, nonce()}})
}

// portalPage is how many lines a page of a list has.
const portalPage = 25

// portalTopups lists the purchases of a wallet.
func (s *Server) portalTopups(p *portalVisit) error {
	w, err := p.wallet()
	if err != nil {
		return err
	}
	tops, err := p.own.TopupsOf(p.ctx(), &w, p.query.Get("after"), portalPage+1)
	if err = p.missing(err); err != nil {
		return err
	}
	next := ""
	if len(tops) > portalPage {
		tops = tops[:portalPage]
		next = tops[portalPage-1].ID
	}
	views := make([]topupView, len(tops))
	for i, t := range tops {
		views[i] = newTopupView(p.locale, t, w.Asset)
	}
	return s.show(p.visit, http.StatusOK, "topups", pages.Frame{Title: p.locale.T("portal.topups.title"), Notice: p.notice(), Data: struct {
		Wallet ledger.Wallet
		Topups []topupView
		Next   string
		Later  bool
	}{w, views, next, p.query.Get("after") != ""}})
}

// portalReceipt leads to Stripe's receipt of a purchase, or to its invoice. Where they are is asked when somebody wants to
// see one, since the address goes stale.
func (s *Server) portalReceipt(p *portalVisit) error {
	top, err := p.topup()
	if err != nil {
		return err
	}
	at := ""
	switch {
	case top.Invoice != nil:
		in, asked := s.Stripe.Invoice(p.ctx(), *top.Invoice)
		at, err = in.URL, asked
	case top.PaymentIntent != nil:
		at, err = s.Stripe.Receipt(p.ctx(), *top.PaymentIntent)
	}
	if err != nil && !errors.Is(err, stripeutil.ErrNotFound) {
		return err
	}
	if u, err := url.Parse(at); at == "" || err != nil || u.Scheme != "https" && !s.Dev {
		return p.refuse(http.StatusNotFound, "invalid_request_error", "resource_missing", "portal.topup.no_receipt")
	}
	return p.goTo(at)
}

// cancelBuy calls a purchase off, by the same steps as cancelTopup; done again it does nothing again.
func (s *Server) cancelBuy(p *portalVisit) error {
	top, err := p.topup()
	if err != nil {
		return err
	}
	here := "/portal/topups/" + top.ID
	if !newTopupView(p.locale, top, "").Stoppable() {
		return p.goTo(here)
	}
	top, err = s.Ledger.CancelTopup(p.ctx(), top.ID)
	if err == nil && top.InFlight() {
		_, err = s.Charge(p.ctx(), top.ID)
	}
	if err != nil && !ledger.IsCode(err, ledger.CodeState) {
		return err
	}
	return p.goTo(here)
}
