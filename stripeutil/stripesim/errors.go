package stripesim

import (
	"fmt"
	"net/http"
	"strings"
)

// apiError is Stripe's error object and the status it is answered with. It is
// also what last_payment_error and last_setup_error hold.
type apiError struct {
	status int

	Charge        string         `json:"charge,omitempty"`
	Code          string         `json:"code,omitempty"`
	DeclineCode   string         `json:"decline_code,omitempty"`
	DocURL        string         `json:"doc_url,omitempty"`
	Message       string         `json:"message"`
	Param         string         `json:"param,omitempty"`
	PaymentIntent *paymentIntent `json:"payment_intent,omitempty"`
	PaymentMethod *paymentMethod `json:"payment_method,omitempty"`
	SetupIntent   *setupIntent   `json:"setup_intent,omitempty"`
	RequestLogURL string         `json:"request_log_url,omitempty"`
	Type          string         `json:"type"`
}

const (
	invalidRequest = "invalid_request_error"
	cardError      = "card_error"
)

func refuse(status int, code, param, format string, args ...any) *apiError {
	e := &apiError{status: status, Type: invalidRequest, Code: code, Param: param, Message: fmt.Sprintf(format, args...)}
	if code != "" {
		e.DocURL = "https://stripe.com/docs/error-codes/" + dashed(code)
	}
	return e
}

func badRequest(code, param, format string, args ...any) *apiError {
	return refuse(http.StatusBadRequest, code, param, format, args...)
}

// noSuch is the 404 for an object named in the path.
func noSuch(kind, id, param string) *apiError {
	return refuse(http.StatusNotFound, "resource_missing", param, "No such %s: '%s'", kind, id)
}

// noSuchParam is the 400 for an object named in a parameter.
func noSuchParam(kind, id, param string) *apiError {
	return badRequest("resource_missing", param, "No such %s: '%s'", kind, id)
}

func missing(param string) *apiError {
	return badRequest("parameter_missing", param, "Missing required param: %s.", param)
}

func dashed(code string) string {
	b := []byte(code)
	for i := range b {
		if b[i] == '_' {
			b[i] = '-'
		}
	}
	return string(b)
}

var (
	errNoKey = &apiError{status: http.StatusUnauthorized, Type: invalidRequest,
		Message: "You did not provide an API key. You need to provide your API key in the Authorization header, using Bearer auth (e.g. 'Authorization: Bearer YOUR_SECRET_KEY'). See https://stripe.com/docs/api#authentication for details, or we can help at https://support.stripe.com/."}
	errRateLimit = refuse(http.StatusTooManyRequests, "rate_limit", "",
		"Request rate limit exceeded. Learn more about rate limits here https://stripe.com/docs/rate-limits.")
	errLockTimeout = refuse(http.StatusTooManyRequests, "lock_timeout", "",
		"This object cannot be accessed right now because another API request or Stripe process is currently accessing it. If you see this error intermittently, retry the request. If you see this error frequently and are making multiple concurrent requests to a single object, make your requests serially or at a lower rate.")
	errUnavailable = &apiError{status: http.StatusServiceUnavailable, Type: "api_error",
		Message: "The API is temporarily unavailable. Please try again later."}
	errUnknown = &apiError{status: http.StatusInternalServerError, Type: "api_error",
		Message: "An unknown error occurred while processing your request. Stripe has been notified of the problem."}
)

func errInvalidKey(key string) *apiError {
	return &apiError{status: http.StatusUnauthorized, Type: invalidRequest, Message: "Invalid API Key provided: " + masked(key)}
}

// masked is a key as Stripe's own sentences show it.
func masked(key string) string {
	if len(key) > 12 {
		return key[:8] + "***" + key[len(key)-4:]
	}
	return key
}

// errNoRight is the answer to a restricted key that was not given the right to a path's objects.
func errNoRight(key, path string) *apiError {
	name := strings.TrimSuffix(strings.ReplaceAll(strings.TrimPrefix(path, "/v1/"), "/", "_"), "s")
	return &apiError{status: http.StatusForbidden, Type: invalidRequest, Message: fmt.Sprintf("The provided key '%s' does not have the required permissions for this endpoint on account 'acct_1Stripesim'. Having the 'rak_%s_read' permission would allow this request to continue.", masked(key), name)}
}

func errKeyInUse(key string) *apiError {
	e := refuse(http.StatusConflict, "idempotency_key_in_use", "",
		"There is currently another in-progress request using this Idempotent Key: %s (that probably means you submitted twice, and the other request is still going through). Please try again later.", key)
	e.Type = "idempotency_error"
	return e
}

func errKeyReused(key string) *apiError {
	return &apiError{status: http.StatusBadRequest, Type: "idempotency_error",
		Message: fmt.Sprintf("Keys for idempotent requests can only be used with the same parameters they were first used with. Try using a key other than '%s' if you meant to execute a different request.", key)}
}

func errKeyElsewhere(key, first, now string) *apiError {
	return &apiError{status: http.StatusBadRequest, Type: "idempotency_error",
		Message: fmt.Sprintf("Keys for idempotent requests can only be used for the same endpoint they were first used for ('%s' vs '%s'). Try using a key other than '%s' if you meant to execute a different request.", now, first, key)}
}
