package stripeutil

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"
)

// What Stripe says of a key tells a key that is none from one that lacks a right, and a right from a fault of the request.
func TestMayRead(t *testing.T) {
	const lacks = "The provided key 'rk_test_***NotShow' does not have the required permissions for this endpoint on account 'acct_1'. Having the 'rak_charge_read' permission would allow this request to continue."
	for name, c := range map[string]struct {
		status  int
		message string
		err     error
		refused bool
		right   string
	}{
		"has it":          {200, "", nil, false, ""},
		"lacks it":        {403, lacks, ErrAuth, false, "rak_charge_read"},
		"unnamed":         {403, "Forbidden", ErrAuth, false, ""},
		"no such key":     {401, "Invalid API Key provided: sk_test_***Show", ErrAuth, true, ""},
		"let in, refused": {400, "Missing required param: customer.", nil, false, ""},
		"out of order":    {500, "", ErrUnknown, false, ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := newWire(t, func(w http.ResponseWriter, _ *http.Request, _ int) {
				body := `{"object":"list","data":[]}`
				if c.status != 200 {
					body = `{"error":{"type":"invalid_request_error","message":"` + c.message + `"}}`
				}
				reply(w, c.status, body)
			})
			err := clientFor(t, s).MayRead(t.Context(), Rights()[0])
			if !errors.Is(err, c.err) || (err == nil) != (c.err == nil) || KeyRefused(err) != c.refused || MissingRight(err) != c.right {
				t.Errorf("%v, refused %t, right %q", err, KeyRefused(err), MissingRight(err))
			}
			if got := s.seen()[0]; got.method != "GET" || got.query != "limit=1" {
				t.Errorf("asked with %s %s?%s", got.method, got.path, got.query)
			}
		})
	}
}

// The seconds of the header and the time that a slow answer took are no skew.
func TestClockSkew(t *testing.T) {
	for name, c := range map[string]struct {
		off, slow time.Duration
		date      string
		want      time.Duration
	}{
		"none":         {},
		"ahead":        {off: time.Minute, want: time.Minute},
		"behind":       {off: -time.Minute, want: -time.Minute},
		"slow answer":  {slow: 1500 * time.Millisecond},
		"no clock":     {date: "yesterday"},
		"refused, too": {off: time.Hour, want: time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newWire(t, func(w http.ResponseWriter, _ *http.Request, _ int) {
				date := c.date
				if date == "" {
					date = time.Now().Add(c.off).UTC().Format(http.TimeFormat)
				}
				time.Sleep(c.slow)
				status := 200
				if strings.HasPrefix(name, "refused") {
					status = 401
				}
				reply(w, status, `{"object":"list","data":[]}`, "Date", date)
			})
			got, err := clientFor(t, s).ClockSkew(t.Context())
			if (err != nil) != (c.date != "") || (got-c.want).Abs() > 2*time.Second || c.want == 0 && got != 0 {
				t.Errorf("%v, %v", got, err)
			}
		})
	}
}

func TestWebhookEndpointsThatDoNotRead(t *testing.T) {
	s := newWire(t, says(200, `{"data":[{"object":"webhook_endpoint"}]}`))
	if _, err := clientFor(t, s).WebhookEndpoints(t.Context()); !errors.Is(err, ErrUnknown) {
		t.Errorf("got %v", err)
	}
	if _, err := clientFor(t, s).UpdateWebhookEndpoint(t.Context(), "../x", nil, "k"); !errors.Is(err, ErrInvalid) || len(s.seen()) != 1 {
		t.Errorf("got %v", err)
	}
}
