package handlers

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

var linkKey = PortalKey("a secret of the test's own")

// newToken is a signed link.
func newToken(customer, back string, now time.Time) string {
	payload, _ := newLink(customer, back, now)
	return payload + "." + signature(linkKey, payload)
}

// A link says what was put into it, to whom knows the secret.
func TestLinkSaysWhatItWasMadeOf(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_800_000_000, 999).UTC()
	for _, customer := range []string{"a", "acme", strings.Repeat("x", 128), "a.b/c"} {
		for _, back := range []string{"", "https://app.example.com/billing?x=1", "https://e.example/" + strings.Repeat("y", 480)} {
			token := newToken(customer, back, now)
			link, ok := readLink(linkKey, token)
			if !ok || link.Customer != customer || link.ReturnURL != back || !link.ExpiresAt.Equal(now.Add(linkLife).Truncate(time.Second)) || len(link.Nonce) != linkNonce {
				t.Errorf("%s, %.30s: %v %+v", customer, back, ok, link)
			}
			if _, ok := readLink(PortalKey("another secret"), token); ok {
				t.Errorf("%s: another secret reads it", customer)
			}
		}
	}
	if first, second := newToken("a", "", now), newToken("a", "", now); first == second {
		t.Error("two links are one")
	}
}

// A link in which any one byte is another, or missing, or one too many, is none. So is one whose signature is of another's
// payload.
func TestTamperedLinks(t *testing.T) {
	t.Parallel()
	token := newToken("acme", "https://app.example.com", time.Now())
	other := newToken("evil", "https://app.example.com", time.Now())
	refuse := func(what, s string) {
		t.Helper()
		if _, ok := readLink(linkKey, s); ok {
			t.Errorf("%s: %q is read", what, s)
		}
	}
	for i := range token {
		for _, c := range []byte("Aa0-_.=/+ \n\x00\xff") {
			if token[i] != c {
				refuse("changed", token[:i]+string(c)+token[i+1:])
			}
		}
		for bit := range 8 {
			b := []byte(token)
			b[i] ^= 1 << bit
			refuse("a bit", string(b))
		}
		refuse("cut", token[:i])
		refuse("from its end", token[i+1:])
		refuse("without one", token[:i]+token[i+1:])
		refuse("one more", token[:i]+"A"+token[i:])
	}
	payload, signed, _ := strings.Cut(token, ".")
	_, others, _ := strings.Cut(other, ".")
	refuse("another's signature", payload+"."+others)
	refuse("no signature", payload+".")
	refuse("no payload", "."+signed)
	refuse("twice", token+"."+signed)
	refuse("long", strings.Repeat("A", maxLinkToken)+"."+signed)
}

// Whatever comes as a link, it is read only if it was signed, and then it says something that fits.
func FuzzReadLink(f *testing.F) {
	now := time.Unix(1_800_000_000, 0)
	for _, seed := range []string{"", ".", "a.b", newToken("acme", "", now), newToken("a", "https://app.example.com", now), strings.Repeat("A", 60) + "."} {
		f.Add(seed, []byte(nil))
	}
	f.Add("", []byte{linkVersion})
	f.Add("", append(bytes.Repeat([]byte{linkVersion}, linkHead-1), 255))
	f.Fuzz(func(t *testing.T, token string, payload []byte) {
		if link, ok := readLink(linkKey, token); ok {
			p, signed, _ := strings.Cut(token, ".")
			if signed != signature(linkKey, p) || len(link.Nonce) != linkNonce {
				t.Errorf("%q is read", token)
			}
		}
		// What is signed and makes no sense does no harm.
		p := linkCoding.EncodeToString(payload)
		if link, ok := readLink(linkKey, p+"."+signature(linkKey, p)); ok && (payload[0] != linkVersion || len(link.Customer) != int(payload[linkHead-1]) ||
			linkHead+len(link.Customer)+len(link.ReturnURL) != len(payload)) {
			t.Errorf("%x is read as %+v", payload, link)
		}
	})
}
