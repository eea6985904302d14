package handlers

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"strings"
	"time"

	"lockstep/ledger"
)

// A link to the portal is a token: what it says, and a signature of it, in base64 with a dot between. It says whose portal
// it opens, until when, and where the merchant's own page is; a nonce makes each unlike the others. Nothing of it is kept
// before it is followed, so that links that nobody follows cost nothing.

const (
	linkLife     = 15 * time.Minute
	linkVersion  = 1
	linkNonce    = 16
	linkHead     = 1 + 8 + linkNonce + 1 // version, end in Unix seconds, nonce, length of the customer's id
	maxLinkToken = 2048
	linkPurpose  = "lockstep portal link 1"
)

// PortalKey makes the key that signs links to the portal from a secret that all replicas have.
func PortalKey(secret string) []byte {
	key, err := hkdf.Key(sha256.New, []byte(secret), nil, linkPurpose, sha256.Size)
	if err != nil { // only of a length that no hash gives
		panic(err)
	}
	return key
}

var linkCoding = base64.RawURLEncoding.Strict()

// newLink makes what a link for a customer says, signed with the key by sign.
func newLink(customer, returnURL string, now time.Time) (payload string, expires time.Time) {
	expires = now.Add(linkLife).Truncate(time.Second)
	b := make([]byte, linkHead, linkHead+len(customer)+len(returnURL))
	b[0] = linkVersion
	binary.BigEndian.PutUint64(b[1:], uint64(expires.Unix()))
	_, _ = rand.Read(b[9 : 9+linkNonce]) // never fails
	b[linkHead-1] = byte(len(customer))  // at most 128
	b = append(append(b, customer...), returnURL...)
	return linkCoding.EncodeToString(b), expires
}

// signature is what a link's payload is signed with.
func signature(key []byte, payload string) string {
	mac := hmac.New(sha256.New, key)
	_, _ = mac.Write([]byte(payload)) // never fails
	return linkCoding.EncodeToString(mac.Sum(nil))
}

// readLink reads a token whose signature is right; whether it has expired is its reader's to ask. The signature is over
// the payload as it is written, and is looked at before anything of the payload is.
func readLink(key []byte, token string) (link ledger.PortalLink, ok bool) {
	payload, signed, dotted := strings.Cut(token, ".")
	if !dotted || len(token) > maxLinkToken || !hmac.Equal([]byte(signed), []byte(signature(key, payload))) {
		return link, false
	}
	b, err := linkCoding.DecodeString(payload)
	if err != nil || len(b) < linkHead || b[0] != linkVersion || len(b) < linkHead+int(b[linkHead-1]) {
		return link, false
	}
	rest := linkHead + int(b[linkHead-1])
	return ledger.PortalLink{Customer: string(b[linkHead:rest]), Nonce: b[9 : 9+linkNonce], ReturnURL: string(b[rest:]),
		ExpiresAt: time.Unix(int64(binary.BigEndian.Uint64(b[1:9])), 0).UTC()}, true
}
