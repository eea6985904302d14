package handlers

import (
	"errors"
	"net/http"
	"sync"
	"time"

	"lockstep/ledger"
	"lockstep/stripeutil"
)

// fault is a refusal that is about the request itself, in the API's words.
type fault struct {
	status  int
	kind    string
	code    string
	param   string
	message string
}

func (f *fault) Error() string { return f.code + ": " + f.message }

func invalid(param, message string) error {
	return &fault{http.StatusBadRequest, "invalid_request_error", "parameter_invalid", param, message}
}

func missing(param string) error {
	return &fault{http.StatusBadRequest, "invalid_request_error", "parameter_missing", param, param + " is missing"}
}

// declined is a manual top-up that was not paid: the one refusal that is kept as an answer.
type declined struct{ top ledger.Topup }

func (d *declined) Error() string { return "top-up declined" }

// answers is the one table from what the ledger refuses to what HTTP says.
var answers = map[ledger.Code]struct {
	status int
	kind   string
}{
	ledger.CodeMissing:       {http.StatusBadRequest, "invalid_request_error"},
	ledger.CodeInvalid:       {http.StatusBadRequest, "invalid_request_error"},
	ledger.CodeUnknown:       {http.StatusBadRequest, "invalid_request_error"},
	ledger.CodeAssetUnknown:  {http.StatusBadRequest, "invalid_request_error"},
	ledger.CodeCurrency:      {http.StatusBadRequest, "invalid_request_error"},
	ledger.CodeInsufficient:  {http.StatusPaymentRequired, "insufficient_credits"},
	ledger.CodeNotFound:      {http.StatusNotFound, "invalid_request_error"},
	ledger.CodeInProgress:    {http.StatusConflict, "conflict"},
	ledger.CodeFrozen:        {http.StatusConflict, "conflict"},
	ledger.CodeTopupInFlight: {http.StatusConflict, "conflict"},
	ledger.CodeState:         {http.StatusConflict, "conflict"},
	ledger.CodeKeyReused:     {http.StatusUnprocessableEntity, "idempotency_error"},
	ledger.CodeRateLimited:   {http.StatusTooManyRequests, "rate_limit_error"},
	ledger.CodeUnavailable:   {http.StatusServiceUnavailable, "api_error"},
}

// errorBody is the error object of an answer. Facts of the case stand beside the fixed fields.
type errorBody struct {
	Type        string     `json:"type"`
	Code        string     `json:"code"`
	Message     string     `json:"message"`
	Param       *string    `json:"param,omitempty"`
	RequestID   string     `json:"request_id,omitempty"`
	DeclineCode *string    `json:"decline_code,omitempty"`
	Topup       string     `json:"topup,omitempty"`
	Available   *string    `json:"available,omitempty"`
	Required    *string    `json:"required,omitempty"`
	AutoTopup   *ruleState `json:"auto_topup,omitempty"`
}

// ruleState is what a refusal for lack of credit says of the wallet's auto top-up.
type ruleState struct {
	State string     `json:"state"`
	Pause *rulePause `json:"pause"`
}

// respondError writes an error. What is not a refusal is a fault of ours or of what we stand on: its text
// stays inside, and is logged here, once.
func (s *Server) respondError(c *call, err error) {
	status, body := s.explain(c, err)
	if status >= 500 {
		s.complain("request failed", "request", c.id, "method", c.r.Method, "path", c.r.URL.Path, "status", status, "error", err)
	}
	if status == http.StatusServiceUnavailable || status == http.StatusTooManyRequests {
		c.w.Header().Set("Retry-After", "1")
	}
	if !c.done {
		_ = c.reply(status, map[string]errorBody{"error": body})
	}
}

// explain is the status and body of an error.
func (s *Server) explain(c *call, err error) (int, errorBody) {
	b := errorBody{RequestID: c.id}
	var f *fault
	var r *ledger.Refusal
	var d *declined
	var se *stripeutil.Error
	switch {
	case errors.As(err, &f):
		b.Type, b.Code, b.Message, b.Param = f.kind, f.code, f.message, orNil(f.param)
		return f.status, b
	case errors.As(err, &r):
		a := answers[r.Code]
		b.Type, b.Code, b.Message, b.Param = a.kind, string(r.Code), r.Message, orNil(r.Param)
		if r.Code == ledger.CodeInsufficient {
			s.explainInsufficient(c, r, &b)
		}
		return a.status, b
	case errors.As(err, &d):
		b.Type, b.Code, b.Message = "card_error", deref(d.top.FailureCode), deref(d.top.FailureMessage)
		b.DeclineCode, b.Topup = d.top.DeclineCode, d.top.ID
		return http.StatusPaymentRequired, b
	case errors.As(err, &se) && errors.Is(err, stripeutil.ErrNotFound):
		b.Type, b.Code, b.Message = "invalid_request_error", "resource_missing", se.Message
		return http.StatusNotFound, b
	case errors.As(err, &se) && errors.Is(err, stripeutil.ErrInvalid):
		b.Type, b.Code, b.Message, b.Param = "invalid_request_error", "parameter_invalid", "Stripe refused: "+se.Message, orNil(se.Param)
		return http.StatusBadRequest, b
	case errors.As(err, &se):
		b.Type, b.Code, b.Message = "api_error", "unavailable", "Stripe did not answer as it should; try again with the same idempotency key"
		return http.StatusServiceUnavailable, b
	default:
		b.Type, b.Code = "api_error", "unavailable"
		b.Message = "something failed on our side; try again with the same idempotency key, which tells whether this was booked"
		return http.StatusServiceUnavailable, b
	}
}

// complaints counts what was logged of failures in this second: while the database is away each call fails, and a log
// that says so thousands of times a second helps nobody.
type complaints struct {
	mu           sync.Mutex
	second       int64
	said, unsaid int
}

const complaintsPerSecond = 10

// complain logs a failure, unless there were many in this second already.
func (s *Server) complain(message string, facts ...any) {
	p := &s.complaints
	p.mu.Lock()
	if now := time.Now().Unix(); now != p.second {
		p.second, p.said = now, 0
	}
	p.said++
	if p.said > complaintsPerSecond {
		p.unsaid++
		p.mu.Unlock()
		return
	}
	if p.unsaid > 0 {
		facts = append(facts, "not_logged_before", p.unsaid)
		p.unsaid = 0
	}
	p.mu.Unlock()
	s.Log.Error(message, facts...)
}

// explainInsufficient says beside a refusal for lack of credit what there is and, where the books can be asked, whether
// more is coming.
func (s *Server) explainInsufficient(c *call, r *ledger.Refusal, b *errorBody) {
	available, required := ledger.FormatSteps(r.Available, r.Scale), ledger.FormatSteps(r.Required, r.Scale)
	b.Available, b.Required = &available, &required
	_ = c.within(s.rooms.books, func(c *call) error { s.explainRule(c, r, b); return nil })
}

func (s *Server) explainRule(c *call, r *ledger.Refusal, b *errorBody) {
	w, err := s.Ledger.Wallet(c.ctx(), r.Wallet)
	if err != nil {
		return
	}
	rule, found, err := s.Ledger.RuleOf(c.ctx(), &w)
	if err != nil {
		return
	}
	if !found {
		b.AutoTopup = &ruleState{State: "disabled"}
		return
	}
	b.AutoTopup = &ruleState{State: rule.State, Pause: pauseJSON(&rule)}
}

func deref[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}
