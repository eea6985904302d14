package stripeutil

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
)

// The kinds of failure. Every *Error wraps exactly one of them.
var (
	// ErrDeclined: the bank or Stripe's rules refused the payment (402). Definite: this attempt did not charge. The
	// refusal is remembered under its idempotency key, so a new attempt needs a new key.
	ErrDeclined = errors.New("declined")
	// ErrInvalid: Stripe, or this package, refused the request as it stands (400 and other definite 4xx). Nothing
	// was executed and the same request can never succeed.
	ErrInvalid = errors.New("invalid request")
	// ErrNotFound: Stripe has no such object (404 resource_missing), or the object was deleted and is written to.
	ErrNotFound = errors.New("not found")
	// ErrAuth: the key is wrong, revoked or lacks a right (401, 403). Nothing was executed.
	ErrAuth = errors.New("not authorised")
	// ErrRateLimited: a 429 was left over after the retries, or our own limiter could not let the call go before its
	// deadline. Nothing was executed.
	ErrRateLimited = errors.New("rate limited")
	// ErrUnknown: the network failed, time ran out, the answer was unreadable, a 5xx, or a 409 because the key is in
	// use. The call may or may not have been executed: resend it with the SAME key, or look the object up.
	ErrUnknown = errors.New("outcome unknown")
	// ErrKeyMismatch: the key was used before with other parameters (400 idempotency_error). A fault of ours; the
	// first request stands.
	ErrKeyMismatch = errors.New("idempotency key reused with other parameters")
	// ErrSignature: a webhook was not signed by Stripe, or too long ago. Only VerifyWebhook returns it.
	ErrSignature = errors.New("webhook signature refused")
)

// Error is a failed call. errors.Is finds its Kind, and context.Canceled or context.DeadlineExceeded where one of
// them ended the call.
type Error struct {
	Kind       error  // one of the sentinels above
	HTTPStatus int    // of the last attempt that got an answer; 0 when none did
	Type       string // Stripe's error type, e.g. card_error
	Code       string // Stripe's error code, e.g. card_declined
	Param      string // the parameter Stripe objects to
	Message    string // Stripe's sentence, or ours when nothing readable came back
	RequestID  string // req_…, for a look at the dashboard's log

	Failure       *Failure       // set when Kind is ErrDeclined
	PaymentIntent *PaymentIntent // the payment that was declined, when Stripe names one

	oneObject bool // a 429 about one object alone
	cause     error
}

// Error says kind, codes, sentence, status and request id. It holds no key, client secret or parameter value beyond
// what Stripe's own sentence quotes.
func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "stripe: %v", e.Kind)
	if e.Code != "" {
		b.WriteString(": " + e.Code)
		if e.Failure != nil && e.Failure.DeclineCode != "" && e.Failure.DeclineCode != e.Code {
			b.WriteString("/" + e.Failure.DeclineCode)
		}
	}
	if e.Message != "" {
		b.WriteString(": " + e.Message)
	}
	if e.HTTPStatus != 0 {
		fmt.Fprintf(&b, " (HTTP %d", e.HTTPStatus)
		if e.RequestID != "" {
			b.WriteString(", " + e.RequestID)
		}
		b.WriteString(")")
	}
	return b.String()
}

// OtherMode reports whether Stripe knows the object in the other mode: a test mode key asked for a live one, or the other
// way round.
func OtherMode(err error) bool {
	var e *Error
	return errors.As(err, &e) && strings.Contains(e.Message, "a similar object exists in")
}

// NoRoom reports whether a call was not made because we call too often for Stripe's limits, or would have: nothing is
// wrong with it, and nothing was executed. An object that is in use is another matter.
func NoRoom(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Kind == ErrRateLimited && !e.oneObject
}

// Unwrap gives errors.Is the kind and, where there is one, the context's own error.
func (e *Error) Unwrap() []error {
	if e.cause == nil {
		return []error{e.Kind}
	}
	return []error{e.Kind, e.cause}
}

// refuse is for requests this package will not send.
func refuse(format string, args ...any) *Error {
	return &Error{Kind: ErrInvalid, Message: fmt.Sprintf(format, args...)}
}

// unreadable is a 2xx whose body is not what was asked for: the call was executed, or a proxy made the answer up.
func unreadable(format string, args ...any) *Error {
	return &Error{Kind: ErrUnknown, HTTPStatus: http.StatusOK, Message: fmt.Sprintf(format, args...)}
}

// wireError is Stripe's error body. advice_code is newer than the pinned API version and arrives all the same.
type wireError struct {
	Error *struct {
		Type          string          `json:"type"`
		Code          string          `json:"code"`
		DeclineCode   string          `json:"decline_code"`
		AdviceCode    string          `json:"advice_code"`
		Message       string          `json:"message"`
		Param         string          `json:"param"`
		PaymentIntent json.RawMessage `json:"payment_intent"`
	} `json:"error"`
}

// judge turns the trace of a call into its *Error, or nil for a readable 2xx. It reads the status and body itself
// rather than stripe-go's error, which loses the class when any field of an embedded object does not decode.
func (c *Client) judge(t *trace, err error) *Error {
	if err == nil {
		return nil
	}
	e := &Error{HTTPStatus: t.status, RequestID: t.requestID, oneObject: t.oneObject}
	var wire wireError
	if t.status >= 400 && json.Unmarshal(t.body, &wire) == nil && wire.Error != nil {
		w := wire.Error
		e.Type, e.Code, e.Param, e.Message = w.Type, w.Code, w.Param, c.scrub(w.Message)
	}
	e.Kind = kindOf(t, e.Type, e.Code, wire.Error != nil)
	if e.Kind == ErrDeclined {
		w := wire.Error
		e.Failure = &Failure{Code: w.Code, DeclineCode: w.DeclineCode, Message: e.Message, AdviceCode: w.AdviceCode}
		// The class of a decline must not depend on whether the embedded payment reads.
		if pi, err := decodePaymentIntent(w.PaymentIntent); err == nil {
			e.PaymentIntent = &pi
		}
	}
	for _, ended := range []error{context.Canceled, context.DeadlineExceeded} {
		if errors.Is(err, ended) || errors.Is(t.failure, ended) {
			e.cause = ended
		}
	}
	if e.Message == "" {
		e.Message = c.scrub(plainReason(t, err))
	}
	return e
}

// kindOf is the table of the package: what each answer says about execution.
func kindOf(t *trace, typ, code string, readable bool) error {
	switch {
	case !t.sent && errors.Is(t.failure, errNotSent):
		return ErrRateLimited
	case !t.sent: // stripe-go or net/http would not build the request
		return ErrInvalid
	case t.status == 0:
		return ErrUnknown
	case t.status == http.StatusTooManyRequests:
		return definiteUnlessDoubted(t, ErrRateLimited)
	case t.status < 400 || t.status >= 500 || t.status == http.StatusConflict || !readable:
		return ErrUnknown
	case typ == "idempotency_error":
		// A key still in use may carry this type as well; Stripe sends that as 409, which is handled above.
		return ErrKeyMismatch
	case t.status == http.StatusPaymentRequired || typ == "card_error":
		return ErrDeclined
	case t.status == http.StatusUnauthorized || t.status == http.StatusForbidden:
		return definiteUnlessDoubted(t, ErrAuth)
	case t.status == http.StatusNotFound && code == "resource_missing":
		return ErrNotFound
	}
	return ErrInvalid
}

// definiteUnlessDoubted guards the answers Stripe gives before it looks at the idempotency key. When an earlier
// attempt of the same write may have been executed, a later 429 or 401 says nothing about that one.
func definiteUnlessDoubted(t *trace, kind error) error {
	if t.doubt {
		return ErrUnknown
	}
	return kind
}

// plainReason is our sentence for a failure that came without one of Stripe's.
func plainReason(t *trace, err error) string {
	switch {
	case t.status == 0 && t.failure != nil:
		return t.failure.Error()
	case t.status == 0:
		return err.Error()
	case t.status < 400:
		return "the answer is not a JSON object"
	}
	return "the answer is not one of Stripe's errors"
}

// scrub takes our key out of any text that came from outside.
func (c *Client) scrub(s string) string { return strings.ReplaceAll(s, c.key, keyKind(c.key)) }
