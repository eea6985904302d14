package stripeutil

import (
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stripe/stripe-go/v76/webhook"
)

var hookTime = time.Unix(1700000000, 0)

func v1(secret string, at time.Time, payload string) string {
	mac := hmac.New(sha256.New, []byte(secret))
	fmt.Fprintf(mac, "%d.%s", at.Unix(), payload)
	return fmt.Sprintf("v1=%x", mac.Sum(nil))
}

func stamped(at time.Time, parts ...string) string {
	return fmt.Sprintf("t=%d,%s", at.Unix(), strings.Join(parts, ","))
}

func TestVerifyWebhook(t *testing.T) {
	const payload, old, now = customerUpdated, "whsec_old", "whsec_new"
	good := v1(now, hookTime, payload)
	both := []string{old, now}
	for name, tc := range map[string]struct {
		payload string
		header  string
		secrets []string
		reason  string // in the text of ErrSignature; empty when it passes
	}{
		"good":                    {payload, stamped(hookTime, good), []string{now}, ""},
		"second secret":           {payload, stamped(hookTime, good), both, ""},
		"two v1, second matches":  {payload, stamped(hookTime, v1("other", hookTime, payload), good), []string{now}, ""},
		"v0 beside v1":            {payload, stamped(hookTime, "v0="+good[3:], good), []string{now}, ""},
		"spaces after commas":     {payload, stamped(hookTime, " "+good), []string{now}, ""},
		"five minutes old":        {payload, stamped(hookTime.Add(-5*time.Minute), v1(now, hookTime.Add(-5*time.Minute), payload)), both, ""},
		"five minutes ahead":      {payload, stamped(hookTime.Add(5*time.Minute), v1(now, hookTime.Add(5*time.Minute), payload)), both, ""},
		"an undecodable v1 first": {payload, stamped(hookTime, "v1=zz", "v1=", good), both, ""},

		"wrong secret":          {payload, stamped(hookTime, good), []string{old}, "no secret matches"},
		"nil secrets":           {payload, stamped(hookTime, good), nil, "no secret matches"},
		"empty secret":          {payload, stamped(hookTime, v1("", hookTime, payload)), []string{""}, "no secret matches"},
		"stale":                 {payload, stamped(hookTime.Add(-301*time.Second), v1(now, hookTime.Add(-301*time.Second), payload)), both, "stale"},
		"future":                {payload, stamped(hookTime.Add(301*time.Second), v1(now, hookTime.Add(301*time.Second), payload)), both, "stale"},
		"another time signed":   {payload, stamped(hookTime.Add(time.Second), good), both, "no secret matches"},
		"body altered":          {strings.Replace(payload, "-250", "-950", 1), stamped(hookTime, good), both, "no secret matches"},
		"body longer by a byte": {payload + " ", stamped(hookTime, good), both, "no secret matches"},
		"v0 only":               {payload, stamped(hookTime, "v0="+good[3:]), both, "no v1"},
		"only undecodable v1":   {payload, stamped(hookTime, "v1=zz"), both, "no v1"},
		"short v1":              {payload, stamped(hookTime, good[:20]), both, "no v1"},
		"no timestamp":          {payload, good, both, "malformed"},
		"two timestamps":        {payload, "t=1," + stamped(hookTime, good), both, "malformed"},
		"timestamp of words":    {payload, "t=now," + good, both, "malformed"},
		"timestamp too large":   {payload, "t=9223372036854775807," + good, both, "malformed"},
		"negative timestamp":    {payload, "t=-1," + good, both, "malformed"},
		"missing header":        {payload, "", both, "missing header"},
		"garbage":               {payload, "%%%=,,=,;t", both, "malformed"},
		"huge header":           {payload, stamped(hookTime, good) + strings.Repeat(",v1=00", 1000), both, "malformed"},
	} {
		t.Run(name, func(t *testing.T) {
			e, err := VerifyWebhook([]byte(tc.payload), tc.header, tc.secrets, hookTime)
			if tc.reason == "" {
				if err != nil || e.ID != "evt_1" {
					t.Errorf("got %+v, %v", e, err)
				}
				return
			}
			if !errors.Is(err, ErrSignature) || !strings.Contains(err.Error(), tc.reason) || e.ID != "" {
				t.Errorf("got %+v, %v, want %q", e, err, tc.reason)
			}
		})
	}
}

// No single byte of the payload can change.
func TestVerifyWebhookEveryByte(t *testing.T) {
	header := stamped(hookTime, v1("whsec_1", hookTime, customerUpdated))
	for i := range len(customerUpdated) {
		altered := []byte(customerUpdated)
		altered[i] ^= 1
		if _, err := VerifyWebhook(altered, header, []string{"whsec_1"}, hookTime); !errors.Is(err, ErrSignature) {
			t.Fatalf("byte %d: %v", i, err)
		}
	}
}

// Rightly signed and not an event is another fault than badly signed.
func TestSignedButNoEvent(t *testing.T) {
	for _, payload := range []string{"", "hello", "{}", `{"id":"cus_1","object":"customer"}`} {
		_, err := VerifyWebhook([]byte(payload), stamped(hookTime, v1("s", hookTime, payload)), []string{"s"}, hookTime)
		if !errors.Is(err, ErrInvalid) || errors.Is(err, ErrSignature) {
			t.Errorf("%q: %v", payload, err)
		}
	}
}

// Stripe's own library signs what we accept.
func TestStripesOwnSignature(t *testing.T) {
	signed := webhook.GenerateTestSignedPayload(&webhook.UnsignedPayload{
		Payload: []byte(customerUpdated), Secret: "whsec_1", Timestamp: hookTime,
	})
	if _, err := VerifyWebhook(signed.Payload, signed.Header, []string{"whsec_1"}, hookTime.Add(time.Minute)); err != nil {
		t.Error(err)
	}
}

// No header gets past a signature it does not have, and none crashes.
func FuzzVerifyWebhook(f *testing.F) {
	good := v1("whsec_1", hookTime, customerUpdated)
	for _, header := range []string{
		"", "t=", "t=1,v1=", stamped(hookTime, good), stamped(hookTime, "v0=00", good, good), "t=1700000000,v1=" + strings.Repeat("0", 64),
		",,,", "t=1700000000,t=1700000000," + good, "=", "v1=\x00", "t=-9223372036854775808," + good,
	} {
		f.Add(header)
	}
	f.Fuzz(func(t *testing.T, header string) {
		_, err := VerifyWebhook([]byte(customerUpdated), header, []string{"whsec_1"}, hookTime)
		switch {
		case err == nil && !strings.Contains(strings.ToLower(header), good[3:]):
			t.Errorf("%q passed", header)
		case err != nil && !errors.Is(err, ErrSignature):
			t.Errorf("%q: %v", header, err)
		}
		if _, err := VerifyWebhook([]byte(customerUpdated), header, nil, hookTime); !errors.Is(err, ErrSignature) {
			t.Errorf("%q passed without a secret", header)
		}
	})
}

// Whatever arrives, an event is refused as invalid or reads without a crash.
func FuzzParseEvent(f *testing.F) {
	for _, raw := range []string{
		customerUpdated, event(1, "customer.deleted", 5), `{}`, `null`, `{"id":"e","object":"event","type":"t","data":{"object":{}}}`,
		`{"id":"e","object":"event","type":"t","request":[],"data":{"object":{"id":7},"previous_attributes":{"a":{"b":null}}}}`,
		`{"id":"e","object":"event","type":"payment_intent.succeeded","data":{"object":{"object":"payment_intent","id":"p","invoice":{}}}}`,
	} {
		f.Add([]byte(raw), "invoice_settings.default_payment_method")
	}
	f.Fuzz(func(t *testing.T, raw []byte, field string) {
		e, err := ParseEvent(raw)
		if err != nil {
			if !errors.Is(err, ErrInvalid) {
				t.Errorf("%v", err)
			}
			return
		}
		if e.ID == "" || e.Type == "" || len(e.Object) == 0 {
			t.Errorf("an event without id, type or object: %+v", e)
		}
		e.ObjectID()
		if e.Changed(field) && e.PreviousAttributes == nil {
			t.Errorf("%q changed in nothing", field)
		}
		if pi, err := e.PaymentIntent(); err == nil && pi.ID == "" {
			t.Error("a payment without an id")
		}
		if cus, err := e.Customer(); err == nil && cus.ID == "" {
			t.Error("a customer without an id")
		}
	})
}
