package handlers

import (
	"net/http"
	"strings"
	"sync"
	"time"

	"lockstep/ledger"
)

// keyLife is how long a key is believed before the database is asked again, and so the longest that a
// revoked one lives on.
const keyLife = 5 * time.Second

// maxCachedKeys bounds the cache; nobody has as many keys.
const maxCachedKeys = 10_000

// keyCache keeps keys that were found, by their hash: comparing hashes of secrets of 256 bits tells a
// guesser nothing, however long it takes.
type keyCache struct {
	mu   sync.RWMutex
	keys map[[32]byte]cachedKey
}

type cachedKey struct {
	key   ledger.APIKey
	until time.Time
}

func (c *keyCache) get(hash [32]byte) (ledger.APIKey, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	k, ok := c.keys[hash]
	return k.key, ok && time.Now().Before(k.until)
}

func (c *keyCache) put(hash [32]byte, k ledger.APIKey) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.keys == nil || len(c.keys) >= maxCachedKeys {
		c.keys = make(map[[32]byte]cachedKey)
	}
	c.keys[hash] = cachedKey{k, time.Now().Add(keyLife)}
}

// authorize lets a request through whose key has the scope, or one of several with | between. A key with the
// scope admin may do everything.
func (s *Server) authorize(c *call, scope string) error {
	scheme, secret, _ := strings.Cut(c.r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") || secret == "" {
		return badKey("no API key was given; send Authorization: Bearer <key>")
	}
	hash := ledger.HashKey(secret)
	key, ok := s.keys.get(hash)
	if !ok {
		err := c.within(s.rooms.keys, func(c *call) (err error) {
			if key, ok = s.keys.get(hash); ok { // another asked while this one waited
				return nil
			}
			if key, ok, err = s.Ledger.FindKey(c.ctx(), hash); err == nil && ok {
				s.keys.put(hash, key)
			}
			return err
		})
		if err != nil {
			return err
		}
		if !ok {
			return badKey("this API key is not known, or was revoked")
		}
	}
	for one := range strings.SplitSeq(scope, "|") {
		if key.Can(one) {
			return nil
		}
	}
	if !key.Can("admin") {
		return &fault{http.StatusForbidden, "permission_error", "scope_missing", "", "this API key lacks the scope " + strings.ReplaceAll(scope, "|", " or ")}
	}
	return nil
}

func badKey(message string) error {
	return &fault{http.StatusUnauthorized, "authentication_error", "api_key_invalid", "", message}
}
