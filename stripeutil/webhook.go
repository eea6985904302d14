package stripeutil

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// webhookTolerance is how far the time in a signature may be from ours, either way. 5 minutes is Stripe's own default
// (docs.stripe.com/webhooks/signature); every delivery attempt is signed afresh, so late retries pass.
const webhookTolerance = 5 * time.Minute

const (
	maxSignatureHeader = 4096 // a header has about 110 bytes, and 68 more for each secret being rolled
	maxSignatures      = 16
)

// VerifyWebhook checks that payload, byte for byte, was signed with one of the endpoint's secrets within 5 minutes of
// now, and reads the event. header is the value of Stripe-Signature; while a secret is rolled there are two secrets
// here or two signatures there, and any match will do. Empty secrets never match.
//
// A missing or odd header, no v1 signature, no match and a stale time are ErrSignature with the reason in the text; a
// payload that is rightly signed but not an event is ErrInvalid. An event of another API version is not an error.
func VerifyWebhook(payload []byte, header string, secrets []string, now time.Time) (Event, error) {
	stamp, signatures, err := parseSignature(header)
	if err != nil {
		return Event{}, err
	}
	if !signedByAny(payload, stamp.text, signatures, secrets) {
		return Event{}, badSignature("no secret matches")
	}
	// Checked after the match, so that "stale" in a log means a replay or a wrong clock and not just noise.
	if age := now.Sub(stamp.at); age.Abs() > webhookTolerance {
		return Event{}, badSignature("stale timestamp: signed %s away from now", age.Truncate(time.Second))
	}
	return ParseEvent(payload)
}

// timestamp is the signed time, and its text as it was signed.
type timestamp struct {
	text string
	at   time.Time
}

// parseSignature reads "t=…,v1=…[,v1=…]". Other schemes are ignored: v0 is a fake that Stripe adds to test events.
func parseSignature(header string) (timestamp, [][]byte, error) {
	var t timestamp
	var signatures [][]byte
	if header == "" {
		return t, nil, badSignature("missing header")
	}
	if len(header) > maxSignatureHeader {
		return t, nil, badSignature("malformed header: %d bytes", len(header))
	}
	for part := range strings.SplitSeq(header, ",") {
		scheme, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		switch scheme {
		case "t":
			seconds, err := strconv.ParseInt(value, 10, 64)
			if err != nil || seconds < 0 || seconds > 1<<40 || t.text != "" {
				return t, nil, badSignature("malformed header: no single timestamp in it")
			}
			t = timestamp{text: value, at: time.Unix(seconds, 0)}
		case "v1":
			// One that cannot be a SHA-256 cannot match, but another may.
			if mac, err := hex.DecodeString(value); err == nil && len(mac) == sha256.Size && len(signatures) < maxSignatures {
				signatures = append(signatures, mac)
			}
		}
	}
	if t.text == "" {
		return t, nil, badSignature("malformed header: no timestamp")
	}
	if len(signatures) == 0 {
		return t, nil, badSignature("no v1 signature")
	}
	return t, signatures, nil
}

// signedByAny compares in constant time, and looks at every pair so that its time does not tell which one matched.
func signedByAny(payload []byte, stamp string, signatures [][]byte, secrets []string) bool {
	matched := false
	for _, secret := range secrets {
		// Anyone can sign with the empty key: a secret left out of the configuration must refuse, not accept.
		if secret == "" {
			continue
		}
		mac := hmac.New(sha256.New, []byte(secret))
		mac.Write([]byte(stamp))
		mac.Write([]byte("."))
		mac.Write(payload)
		want := mac.Sum(nil)
		for _, got := range signatures {
			if hmac.Equal(want, got) {
				matched = true
			}
		}
	}
	return matched
}

func badSignature(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrSignature, fmt.Sprintf(format, args...))
}
