package handlers

import (
	"fmt"
	"net/http"

	"lockstep/ledger"
	"lockstep/stripeutil"
)

type topupJSON struct {
	Object    string        `json:"object"`
	ID        string        `json:"id"`
	Customer  string        `json:"customer"`
	Wallet    string        `json:"wallet"`
	Trigger   string        `json:"trigger"`
	Mode      string        `json:"mode"`
	Status    string        `json:"status"`
	Amount    string        `json:"amount"`
	Charge    ledger.Money  `json:"charge"`
	Tax       *ledger.Money `json:"tax"`
	Attempt   int           `json:"attempt"`
	Invoice   *invoiceJSON  `json:"invoice"`
	Stripe    stripeJSON    `json:"stripe"`
	URL       *string       `json:"url"`
	Failure   *failureJSON  `json:"failure"`
	Grant     *string       `json:"grant"`
	CreatedAt string        `json:"created_at"`
}

type stripeJSON struct {
	PaymentIntent   *string `json:"payment_intent"`
	Invoice         *string `json:"invoice"`
	CheckoutSession *string `json:"checkout_session"`
}

type failureJSON struct {
	Code        string  `json:"code"`
	DeclineCode *string `json:"decline_code"`
	Message     *string `json:"message"`
}

func newTopup(t *ledger.Topup) topupJSON {
	v := topupJSON{Object: "topup", ID: t.ID, Customer: t.Customer, Wallet: t.Wallet, Trigger: t.Trigger, Mode: t.Mode, Status: t.Status,
		Amount: ledger.FormatSteps(t.Amount, t.Scale), Charge: ledger.Money{Amount: t.Charge, Currency: t.Currency}, Attempt: t.Attempt,
		Stripe: stripeJSON{PaymentIntent: t.PaymentIntent, Invoice: t.Invoice, CheckoutSession: t.CheckoutSession}, CreatedAt: stamp(t.CreatedAt)}
	v.Invoice = newInvoiceTerms(t.Mode, t.InvoiceTerms)
	if t.Tax != nil {
		v.Tax = &ledger.Money{Amount: *t.Tax, Currency: t.Currency}
	}
	if t.Status == "pending" || t.Status == "action_required" {
		v.URL = t.URL
	}
	if t.FailureCode != nil {
		v.Failure = &failureJSON{*t.FailureCode, t.DeclineCode, t.FailureMessage}
	}
	if t.InFlight() || t.Status == "succeeded" {
		v.Grant = &t.GrantID
	}
	return v
}

func (s *Server) postTopup(c *call) error {
	var in struct {
		Customer       *string         `json:"customer"`
		Asset          *string         `json:"asset"`
		Wallet         *string         `json:"wallet"`
		Amount         *string         `json:"amount"`
		Mode           *string         `json:"mode"`
		PaymentMethod  *string         `json:"payment_method"`
		SuccessURL     *string         `json:"success_url"`
		Invoice        *invoiceRequest `json:"invoice"`
		IdempotencyKey *string         `json:"idempotency_key"`
	}
	if err := c.decode(&in); err != nil {
		return err
	}
	if deref(in.Customer) == "" {
		return missing("customer")
	}
	if err := filled(field{"asset", in.Asset}, field{"wallet", in.Wallet}, field{"mode", in.Mode}, field{"payment_method", in.PaymentMethod}); err != nil {
		return err
	}
	want := ledger.TopupInput{Customer: *in.Customer, Asset: deref(in.Asset), Wallet: deref(in.Wallet), Mode: deref(in.Mode), PaymentMethod: deref(in.PaymentMethod),
		MinimumCharge: stripeutil.MinimumCharge}
	var err error
	if want.Amount, err = amount("amount", in.Amount); err != nil {
		return err
	}
	if err := texts("customer", want.Customer, "asset", want.Asset, "wallet", want.Wallet, "mode", want.Mode, "payment_method", want.PaymentMethod); err != nil {
		return err
	}
	if want.SuccessURL, err = s.successURL(want.Mode, in.SuccessURL); err != nil {
		return err
	}
	if want.Invoice, err = in.Invoice.terms(); err != nil {
		return err
	}
	key, err := c.key(in.IdempotencyKey)
	if err != nil {
		return err
	}
	ref, err := s.Ledger.Resolve(c.ctx(), want.Customer)
	if err != nil {
		return err
	}
	request := []string{want.Customer, want.Asset, want.Amount.String(), want.Mode, want.PaymentMethod, want.Wallet}
	if want.SuccessURL != "" {
		request = append(request, want.SuccessURL)
	}
	if want.Invoice != nil {
		request = append(request, fmt.Sprint(want.Invoice.AutomaticTax, deref(want.Invoice.DaysUntilDue)))
	}
	return s.once(c, key, ref.Bucket, request, func(once ledger.Once) (int, any, error) {
		top, replayed, err := s.Ledger.CreateTopup(c.ctx(), want, once)
		if err != nil {
			return 0, nil, err
		}
		if top.InFlight() {
			if top, err = s.Charge(c.ctx(), top.ID); err != nil {
				return 0, nil, err
			}
		}
		return s.topupAnswer(c, once, top, replayed)
	})
}

// successURL is where a checkout's page sends the customer; other modes have none.
func (s *Server) successURL(mode string, said *string) (string, error) {
	if mode != "checkout" && said == nil {
		return "", nil
	}
	return s.pageURL("success_url", said)
}

// topupAnswer is the answer to a manual top-up as far as it has got.
func (s *Server) topupAnswer(c *call, once ledger.Once, top ledger.Topup, replayed bool) (int, any, error) {
	switch {
	case top.Status == "failed" && deref(top.DeclineCode) != "":
		return 0, nil, &declined{top}
	case top.Status == "failed":
		// Not a decline: Stripe, or the lack of a card, refused the request itself. The key is free again.
		if err := s.Ledger.ReleaseKey(c.ctx(), once); err != nil {
			return 0, nil, err
		}
		if deref(top.FailureCode) == ledger.PauseNoPaymentMethod {
			return 0, nil, &fault{http.StatusPaymentRequired, "card_error", ledger.PauseNoPaymentMethod, "payment_method", deref(top.FailureMessage)}
		}
		return 0, nil, invalid("", "Stripe refused the charge: "+deref(top.FailureMessage))
	case top.Status == "pending" && top.Mode == "checkout" && top.URL == nil:
		return 0, nil, &fault{http.StatusServiceUnavailable, "api_error", string(ledger.CodeUnavailable), "",
			"Stripe has not opened the page of top-up " + top.ID + " yet: send the same request under the same idempotency key, or ask for the top-up"}
	case top.Status == "pending" && top.URL != nil: // its customer pays there
	case top.Status == "pending" && replayed:
		return 0, nil, &fault{http.StatusConflict, "conflict", string(ledger.CodeInProgress), "",
			"top-up " + top.ID + " is being charged by the first request under this key; ask again shortly"}
	}
	return http.StatusCreated, newTopup(&top), nil
}

func (s *Server) getTopup(c *call) error {
	top, err := s.Ledger.TopupByID(c.ctx(), c.r.PathValue("id"))
	if err != nil {
		return err
	}
	return c.reply(http.StatusOK, newTopup(&top))
}

func (s *Server) listTopups(c *call) error {
	limit, after, err := c.page()
	if err != nil {
		return err
	}
	ref, err := s.whose(c)
	if err != nil {
		return err
	}
	tops, err := s.Ledger.Topups(c.ctx(), ref, after, limit+1)
	if err != nil {
		return err
	}
	objects := make([]topupJSON, len(tops))
	for i := range tops {
		objects[i] = newTopup(&tops[i])
	}
	return c.reply(http.StatusOK, list(objects, limit))
}

func (s *Server) cancelTopup(c *call) error {
	if err := c.decodeOptional(&struct{}{}); err != nil {
		return err
	}
	key, err := c.key(nil)
	if err != nil {
		return err
	}
	top, err := s.Ledger.TopupByID(c.ctx(), c.r.PathValue("id"))
	if err != nil {
		return err
	}
	return s.once(c, key, top.Bucket, nil, func(ledger.Once) (int, any, error) {
		top, err := s.endTopup(c, top.ID)
		if err != nil {
			return 0, nil, err
		}
		return http.StatusOK, newTopup(&top), nil
	})
}

// endTopup cancels a top-up, here or, where it was called, at Stripe, which says whether it still can be.
func (s *Server) endTopup(c *call, id string) (ledger.Topup, error) {
	top, err := s.Ledger.CancelTopup(c.ctx(), id)
	if err == nil && top.InFlight() {
		top, err = s.Charge(c.ctx(), id)
	}
	if err == nil && (top.Status == "succeeded" || top.Status == "failed") {
		err = &fault{http.StatusConflict, "conflict", string(ledger.CodeState), "", "topup " + id + " has " + top.Status + ": it can't be canceled"}
	}
	return top, err
}
