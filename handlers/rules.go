package handlers

import (
	"context"
	"net/http"
	"strings"

	"lockstep/ledger"
	"lockstep/stripeutil"
)

type capJSON struct {
	Amount   int64  `json:"amount"`
	Currency string `json:"currency"`
	Interval string `json:"interval"`
}

type ruleGrantJSON struct {
	Kind          string `json:"kind"`
	Priority      int16  `json:"priority"`
	ExpiresInDays *int32 `json:"expires_in_days"`
}

// invoiceJSON are the terms of the invoices that top-ups are paid by.
type invoiceJSON struct {
	AutomaticTax     bool   `json:"automatic_tax"`
	CollectionMethod string `json:"collection_method"`
	DaysUntilDue     *int16 `json:"days_until_due"`
}

func newInvoiceTerms(mode string, t ledger.InvoiceTerms) *invoiceJSON {
	if mode != "invoice" {
		return nil
	}
	v := &invoiceJSON{AutomaticTax: t.AutomaticTax, CollectionMethod: "charge_automatically", DaysUntilDue: t.DaysUntilDue}
	if t.DaysUntilDue != nil {
		v.CollectionMethod = "send_invoice"
	}
	return v
}

// invoiceRequest are such terms as they are asked for.
type invoiceRequest struct {
	AutomaticTax     *bool   `json:"automatic_tax"`
	CollectionMethod *string `json:"collection_method"`
	DaysUntilDue     *int16  `json:"days_until_due"`
}

// daysUntilDue is what a sent invoice gives its customer unless told: Stripe's own default.
const daysUntilDue = 30

func (q *invoiceRequest) terms() (*ledger.InvoiceTerms, error) {
	if q == nil {
		return nil, nil
	}
	t := &ledger.InvoiceTerms{AutomaticTax: deref(q.AutomaticTax), DaysUntilDue: q.DaysUntilDue}
	switch method := deref(q.CollectionMethod); {
	case method == "send_invoice" && q.DaysUntilDue == nil:
		t.DaysUntilDue = new(int16)
		*t.DaysUntilDue = daysUntilDue
	case method == "send_invoice":
	case q.CollectionMethod != nil && method != "charge_automatically":
		return nil, invalid("invoice.collection_method", "invoice.collection_method is charge_automatically or send_invoice")
	case q.DaysUntilDue != nil:
		return nil, invalid("invoice.days_until_due", "invoice.days_until_due is of an invoice that is sent: set invoice.collection_method to send_invoice, or leave it out")
	}
	return t, nil
}

type rulePause struct {
	Reason     string  `json:"reason"`
	Since      string  `json:"since"`
	ClearsWhen string  `json:"clears_when"`
	Topup      *string `json:"topup,omitempty"`
}

type spentJSON struct {
	Amount   int64  `json:"amount"`
	Currency string `json:"currency"`
	From     string `json:"from"`
	To       string `json:"to"`
}

type ruleJSON struct {
	Object           string        `json:"object"`
	Wallet           string        `json:"wallet"`
	Enabled          bool          `json:"enabled"`
	Threshold        *string       `json:"threshold"`
	ThresholdPercent *int16        `json:"threshold_percent"`
	RunwayMinutes    *int32        `json:"runway_minutes"`
	DeclineRetries   int16         `json:"decline_retries"`
	Amount           *string       `json:"amount"`
	Target           *string       `json:"target"`
	SpendCap         *capJSON      `json:"spend_cap"`
	Mode             string        `json:"mode"`
	Invoice          *invoiceJSON  `json:"invoice"`
	Settlement       string        `json:"settlement"`
	PaymentMethod    *string       `json:"payment_method"`
	Grant            ruleGrantJSON `json:"grant"`
	State            string        `json:"state"`
	Pause            *rulePause    `json:"pause"`
	Spent            spentJSON     `json:"spent"`
	UpdatedAt        string        `json:"updated_at"`
}

func newRule(r *ledger.RuleView) *ruleJSON {
	v := &ruleJSON{Object: "auto_topup", Wallet: r.Wallet, Enabled: r.Enabled, Threshold: optionalSteps(r.Threshold, r.Scale),
		ThresholdPercent: r.ThresholdPercent, RunwayMinutes: r.RunwayMinutes, DeclineRetries: r.DeclineRetries, Amount: optionalSteps(r.Amount, r.Scale), Target: optionalSteps(r.Target, r.Scale),
		Mode: r.Mode, Invoice: newInvoiceTerms(r.Mode, r.InvoiceTerms), Settlement: r.Settlement, PaymentMethod: r.PaymentMethod,
		Grant: ruleGrantJSON{r.GrantKind, r.GrantPriority, r.GrantExpiresInDays}, State: r.State, Pause: pauseJSON(r),
		Spent: spentJSON{r.Spent, r.Currency, stamp(r.From), stamp(r.To)}, UpdatedAt: stamp(r.UpdatedAt)}
	if r.CapAmount != nil {
		v.SpendCap = &capJSON{*r.CapAmount, *r.CapCurrency, *r.CapInterval}
	}
	return v
}

func optionalSteps(n *int64, scale int16) *string {
	if n == nil {
		return nil
	}
	s := ledger.FormatSteps(*n, scale)
	return &s
}

// clears says what ends a pause, in words for people.
var clears = map[string]string{
	ledger.PausePaymentFailed:   "another default card is saved in Stripe, a payment succeeds, or the rule is resumed",
	ledger.PauseActionRequired:  "the customer finishes the payment at the url of the top-up, another default card is saved in Stripe, or the rule is resumed",
	ledger.PauseNoPaymentMethod: "a default card is saved in Stripe, or the rule is resumed",
	ledger.PauseSpendCap:        "the cap's period ends or the cap is raised",
	ledger.PauseDispute:         "the dispute is closed in Stripe",
	ledger.PauseManual:          "the rule is resumed",
}

func pauseJSON(r *ledger.RuleView) *rulePause {
	if r.PauseReason == nil {
		return nil
	}
	p := &rulePause{Reason: *r.PauseReason, Since: stamp(*r.PauseSince), ClearsWhen: clears[*r.PauseReason], Topup: r.PauseTopup}
	switch {
	case r.PauseUntil == nil:
	case *r.PauseReason == ledger.PauseSpendCap:
		p.ClearsWhen = "the cap's period ends at " + stamp(*r.PauseUntil) + ", or the cap is raised"
	default:
		p.ClearsWhen = "the card is tried again at " + stamp(*r.PauseUntil) + ", or before that " + p.ClearsWhen
	}
	return p
}

// ruleRequest is a rule as it is set.
type ruleRequest struct {
	Enabled          *bool           `json:"enabled"`
	Threshold        *string         `json:"threshold"`
	ThresholdPercent *int16          `json:"threshold_percent"`
	RunwayMinutes    *int32          `json:"runway_minutes"`
	DeclineRetries   *int16          `json:"decline_retries"`
	Amount           *string         `json:"amount"`
	Target           *string         `json:"target"`
	SpendCap         *capJSON        `json:"spend_cap"`
	Mode             *string         `json:"mode"`
	Invoice          *invoiceRequest `json:"invoice"`
	Settlement       *string         `json:"settlement"`
	PaymentMethod    *string         `json:"payment_method"`
	Grant            *struct {
		Kind          *string `json:"kind"`
		Priority      *int16  `json:"priority"`
		ExpiresInDays *int32  `json:"expires_in_days"`
	} `json:"grant"`
}

func (q *ruleRequest) rule() (in ledger.RuleInput, err error) {
	in = ledger.RuleInput{Enabled: q.Enabled == nil || *q.Enabled, ThresholdPercent: q.ThresholdPercent, RunwayMinutes: q.RunwayMinutes, DeclineRetries: deref(q.DeclineRetries), Mode: deref(q.Mode),
		Settlement: deref(q.Settlement), PaymentMethod: deref(q.PaymentMethod), GrantPriority: ledger.DefaultPriority,
		MinimumCharge: stripeutil.MinimumCharge}
	if err := filled(field{"mode", q.Mode}, field{"settlement", q.Settlement}, field{"payment_method", q.PaymentMethod}); err != nil {
		return in, err
	}
	if in.Invoice, err = q.Invoice.terms(); err != nil {
		return in, err
	}
	if in.Threshold, err = optionalAmount("threshold", q.Threshold); err != nil {
		return in, err
	}
	if in.Amount, err = optionalAmount("amount", q.Amount); err != nil {
		return in, err
	}
	if in.Target, err = optionalAmount("target", q.Target); err != nil {
		return in, err
	}
	if q.SpendCap != nil {
		in.Cap = &ledger.Money{Amount: q.SpendCap.Amount, Currency: strings.ToLower(q.SpendCap.Currency)}
		in.CapInterval = q.SpendCap.Interval
	}
	if g := q.Grant; g != nil {
		if err := filled(field{"grant.kind", g.Kind}); err != nil {
			return in, err
		}
		in.GrantKind, in.GrantExpiresInDays = deref(g.Kind), g.ExpiresInDays
		if g.Priority != nil {
			in.GrantPriority = *g.Priority
		}
	}
	return in, texts("mode", in.Mode, "settlement", in.Settlement, "payment_method", in.PaymentMethod, "grant.kind", in.GrantKind)
}

func (s *Server) putRule(c *call) error {
	var q ruleRequest
	if err := c.decode(&q); err != nil {
		return err
	}
	in, err := q.rule()
	if err != nil {
		return err
	}
	w, err := s.Ledger.PutRule(c.ctx(), c.r.PathValue("id"), in)
	if err != nil {
		return err
	}
	return s.replyRule(c, &w)
}

func (s *Server) getRule(c *call) error {
	w, err := s.wallet(c)
	if err != nil {
		return err
	}
	return s.replyRule(c, &w)
}

func (s *Server) replyRule(c *call, w *ledger.Wallet) error {
	v, found, err := s.Ledger.RuleOf(c.ctx(), w)
	if err != nil {
		return err
	}
	if !found {
		return &fault{http.StatusNotFound, "invalid_request_error", "resource_missing", "", "wallet " + w.ID + " has no auto top-up rule"}
	}
	return c.reply(http.StatusOK, newRule(&v))
}

func (s *Server) pauseRule(c *call) error  { return s.switchRule(c, s.Ledger.PauseRule) }
func (s *Server) resumeRule(c *call) error { return s.switchRule(c, s.Ledger.ResumeRule) }

// switchRule pauses or resumes. Done again under one key it does nothing again.
func (s *Server) switchRule(c *call, change func(context.Context, string) (ledger.Wallet, error)) error {
	if err := c.decodeOptional(&struct{}{}); err != nil {
		return err
	}
	key, err := c.key(nil)
	if err != nil {
		return err
	}
	w, err := s.wallet(c)
	if err != nil {
		return err
	}
	return s.once(c, key, w.Bucket, nil, func(ledger.Once) (int, any, error) {
		w, err := change(c.ctx(), w.ID)
		if err != nil {
			return 0, nil, err
		}
		v, _, err := s.Ledger.RuleOf(c.ctx(), &w)
		return http.StatusOK, newRule(&v), err
	})
}
