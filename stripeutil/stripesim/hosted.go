package stripesim

import (
	"bytes"
	_ "embed"
	"errors"
	"html/template"
	"net/http"
	"strings"
)

// The pages that Stripe hosts, each with a button for every outcome: whoever has a session's url may press them, as at
// Stripe. They do what Operator does, so that a browser and a Go test play the same customer.

//go:embed hosted.html
var hostedHTML string

var hostedTemplate = template.Must(template.New("hosted").Parse(hostedHTML))

type hostedPage struct {
	Title, Says    string
	Lines          []hostedLine
	Choices        []hostedChoice
	Back, BackText string
}

type hostedLine struct {
	Text    string
	Choices []hostedChoice
}

// hostedChoice is a button: what to do, on what, and what it says.
type hostedChoice struct{ Do, On, Text string }

// hostedCards are the cards a customer may come with.
var hostedCards = []struct {
	token, text string
	saveOnly    bool
}{
	{token: "pm_card_visa", text: "4242, which works"},
	{token: "pm_card_visa_chargeDeclined", text: "0002, which is declined"},
	{token: "pm_card_authenticationRequired", text: "3184, whose bank asks for authentication each time"},
	{token: "pm_card_chargeCustomerFail", text: "0341, which can be saved and is declined when charged", saveOnly: true},
}

func cardChoices(verb string, saves bool) []hostedChoice {
	var all []hostedChoice
	for _, card := range hostedCards {
		if saves || !card.saveOnly {
			all = append(all, hostedChoice{"card", card.token, verb + " " + card.text})
		}
	}
	return all
}

// hostedURL is where a page of Stripe's is: at Stripe, or here where there is an address to say.
func (s *Sim) hostedURL(stripe, path string) string {
	if s.pages != "" {
		return s.pages + path
	}
	return stripe + path
}

// hosted serves the pages, and tells whether the request was for one.
func (s *Sim) hosted(w http.ResponseWriter, r *http.Request) bool {
	for prefix, serve := range map[string]func(w http.ResponseWriter, r *http.Request, id string){
		"/c/pay/": s.checkoutPage, "/p/session/": s.portalPage, "/i/": s.invoicePage, "/receipts/payment/": s.receiptPage,
	} {
		id, ok := strings.CutPrefix(r.URL.Path, prefix)
		if !ok || strings.Contains(id, "/") || r.Method != http.MethodGet && r.Method != http.MethodPost {
			continue
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		if err := r.ParseForm(); err != nil {
			http.Error(w, "the form can't be read", http.StatusBadRequest)
			return true
		}
		serve(w, r, id)
		return true
	}
	return false
}

func (p *hostedPage) show(w http.ResponseWriter) {
	var b bytes.Buffer
	if err := hostedTemplate.Execute(&b, p); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.Write(b.Bytes())
}

// told is what a page says of a refusal.
func told(err error) string {
	var refused *apiError
	if errors.As(err, &refused) {
		return refused.Message
	}
	return err.Error()
}

// checkoutPage is a session's: pay, or save a card. A refused card leaves it open, and a finished one sends the
// customer to success_url.
func (s *Sim) checkoutPage(w http.ResponseWriter, r *http.Request, id string) {
	says := ""
	if r.PostForm.Get("do") == "card" {
		if _, err := s.Operator().CompleteCheckout(id, r.PostForm.Get("on")); err != nil {
			says = told(err)
		}
	}
	s.mu.Lock()
	cs := s.state.Sessions.get(id)
	if cs == nil {
		s.mu.Unlock()
		http.NotFound(w, r)
		return
	}
	p := &hostedPage{Title: "Save a card", Says: says, Back: string(cs.CancelURL), BackText: "Cancel", Choices: cardChoices("Save card", true)}
	if cs.Mode != "setup" {
		p.Title, p.Choices = "Pay", cardChoices("Pay with card", false)
		for _, item := range s.state.Plans[id].Items {
			p.Lines = append(p.Lines, hostedLine{Text: item.Description + ": " + money(item.AmountTotal, item.Currency)})
		}
	}
	status, success := cs.Status, strings.ReplaceAll(string(cs.SuccessURL), "{CHECKOUT_SESSION_ID}", id)
	s.mu.Unlock()
	switch {
	case status == "complete" && r.Method == http.MethodPost && says == "" && success != "":
		http.Redirect(w, r, success, http.StatusSeeOther)
		return
	case status == "complete":
		p.Says, p.Choices, p.Back, p.BackText = "All done: there is nothing more to do here.", nil, success, "Return"
	case status == "expired":
		p.Says, p.Choices, p.BackText = "This page has expired.", nil, "Return"
	}
	p.show(w)
}

// portalVisit is an opened billing portal: the API can't read it back, its page can.
type portalVisit struct {
	Customer, ReturnURL string
	OneThing            bool // a flow: back when it is done
}

// portalPage is the billing portal: the customer's cards, and invoices to look at.
func (s *Sim) portalPage(w http.ResponseWriter, r *http.Request, token string) {
	s.mu.Lock()
	visit, ok := s.state.Portals[token]
	s.mu.Unlock()
	if !ok {
		http.NotFound(w, r)
		return
	}
	says := ""
	if r.Method == http.MethodPost {
		if err := s.portalAct(visit.Customer, r.PostForm.Get("do"), r.PostForm.Get("on")); err != nil {
			says = told(err)
		} else if visit.OneThing && visit.ReturnURL != "" {
			http.Redirect(w, r, visit.ReturnURL, http.StatusSeeOther)
			return
		}
	}
	s.mu.Lock()
	p := s.portalView(visit)
	s.mu.Unlock()
	p.Says = says
	p.show(w)
}

// portalAct is one press of a button. A card added in the portal becomes the default, as its ticked box says there.
func (s *Sim) portalAct(customer, do, on string) error {
	o := s.Operator()
	s.mu.Lock()
	m := s.state.PaymentMethods.get(on)
	theirs := m != nil && string(m.Customer) == customer
	s.mu.Unlock()
	switch {
	case do == "card":
		pm, err := o.AttachCard(customer, on)
		if err == nil {
			_, err = o.SetDefaultPaymentMethod(customer, pm)
		}
		return err
	case do == "default" && theirs:
		_, err := o.SetDefaultPaymentMethod(customer, on)
		return err
	case do == "remove" && theirs:
		_, err := o.DetachPaymentMethod(on)
		return err
	}
	return noSuch("PaymentMethod", on, "payment_method")
}

// portalView is what the portal shows. The caller holds mu.
func (s *Sim) portalView(visit portalVisit) *hostedPage {
	p := &hostedPage{Title: "Billing", Choices: cardChoices("Add card", true), Back: visit.ReturnURL, BackText: "Return"}
	cus := s.state.Customers.get(visit.Customer)
	if cus == nil || cus.Deleted {
		p.Choices = nil
		return p
	}
	for _, m := range s.state.PaymentMethods.oldest {
		if string(m.Customer) != visit.Customer || m.Card == nil {
			continue
		}
		line := hostedLine{Text: m.Card.Brand + " " + m.Card.Last4, Choices: []hostedChoice{{"remove", m.ID, "Remove"}}}
		if string(cus.InvoiceSettings.DefaultPaymentMethod) == m.ID {
			line.Text += " (default)"
		} else {
			line.Choices = append(line.Choices, hostedChoice{"default", m.ID, "Make default"})
		}
		p.Lines = append(p.Lines, line)
	}
	for _, in := range s.state.Invoices.oldest {
		if in.Customer == visit.Customer && in.Status != "draft" {
			p.Lines = append(p.Lines, hostedLine{Text: "Invoice " + string(in.Number) + ": " + money(in.Total, in.Currency) + ", " + in.Status})
		}
	}
	return p
}

// invoicePage is an invoice's: it can be looked at, and paid while it is open.
func (s *Sim) invoicePage(w http.ResponseWriter, r *http.Request, id string) {
	says := ""
	if r.PostForm.Get("do") == "card" {
		if err := s.payHosted(id, r.PostForm.Get("on")); err != nil {
			says = told(err)
		}
	}
	s.mu.Lock()
	in := s.state.Invoices.get(id)
	if in == nil || in.Status == "draft" {
		s.mu.Unlock()
		http.NotFound(w, r)
		return
	}
	p := &hostedPage{Title: "Invoice " + string(in.Number), Says: says, Lines: []hostedLine{
		{Text: "Total: " + money(in.Total, in.Currency)}, {Text: "Due: " + money(in.AmountRemaining, in.Currency)}, {Text: "Status: " + in.Status}}}
	if in.Status == "open" {
		p.Choices = cardChoices("Pay with card", false)
	}
	s.mu.Unlock()
	p.show(w)
}

// receiptPage is the receipt of a payment.
func (s *Sim) receiptPage(w http.ResponseWriter, r *http.Request, id string) {
	s.mu.Lock()
	var ch *charge
	for _, one := range s.state.Charges.oldest {
		if strings.HasSuffix(string(one.ReceiptURL), "/"+id) {
			ch = one
		}
	}
	if ch == nil {
		s.mu.Unlock()
		http.NotFound(w, r)
		return
	}
	p := &hostedPage{Title: "Receipt", Lines: []hostedLine{{Text: "Paid: " + money(ch.Amount, ch.Currency)}}}
	s.mu.Unlock()
	p.show(w)
}

func (s *Sim) payHosted(id, token string) error {
	return s.act(func(c *call) *apiError {
		in := c.state.Invoices.get(id)
		if in == nil || in.Status != "open" {
			return noSuch("invoice", id, "invoice")
		}
		pm, err := c.methodFor(token, "payment_method")
		if err != nil {
			return err
		}
		return c.collect(in, pm.ID)
	})
}
