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
// guesser nothing, however long it takes. A key in use is looked up again when half of its life has passed, by one of
// the calls that bring it: thousands at once must not all find it too old.
type keyCache struct {
	mu   sync.RWMutex
	keys map[[32]byte]cachedKey
}

type cachedKey struct {
	key   ledger.APIKey
	until time.Time
	renew time.Time // from when on somebody is to look it up again
}

// get finds a key that may still be believed. renew says that this caller is the one to look it up again.
func (c *keyCache) get(hash [32]byte) (key ledger.APIKey, ok, renew bool) {
	now := time.Now()
	c.mu.RLock()
	k := c.keys[hash]
	c.mu.RUnlock()
	if now.Before(k.renew) {
		return k.key, true, false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	k = c.keys[hash]
	if !now.Before(k.until) {
		return ledger.APIKey{}, false, false
	}
	if renew = !now.Before(k.renew); renew {
		k.renew = now.Add(keyLife / 10) // should it fail, another tries soon
		c.keys[hash] = k
	}
	return k.key, true, renew
}

// drop forgets a key that is gone.
func (c *keyCache) drop(hash [32]byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.keys, hash)
}

func (c *keyCache) put(hash [32]byte, k ledger.APIKey) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.keys == nil || len(c.keys) >= maxCachedKeys {
		c.keys = make(map[[32]byte]cachedKey)
	}
	now := time.Now()
	c.keys[hash] = cachedKey{k, now.Add(keyLife), now.Add(keyLife / 2)}
}

// authorize lets a request through whose key has the scope, or one of several with | between. A key with the
// scope admin may do everything.
func (s *Server) authorize(c *call, scope string) error {
	scheme, secret, _ := strings.Cut(c.r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") || secret == "" {
		return badKey("no API key was given; send Authorization: Bearer <key>")
	}
	hash := ledger.HashKey(secret)
	key, ok, renew := s.keys.get(hash)
	if !ok || renew {
		found, known, err := s.findKey(c, hash, renew)
		if err == nil {
			key, ok = found, known
		} else if !ok {
			return err
		}
	}
	if !ok {
		return badKey("this API key is not known, or was revoked")
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

// findKey looks a key up in the books, unless, but for one that is to be renewed, another did while this one waited.
func (s *Server) findKey(c *call, hash [32]byte, renew bool) (key ledger.APIKey, known bool, err error) {
	err = c.within(s.rooms.keys, func(c *call) error {
		if !renew {
			if key, known, _ = s.keys.get(hash); known {
				return nil
			}
		}
		if key, known, err = s.Ledger.FindKey(c.ctx(), hash); err != nil {
			return err
		}
		if known {
			s.keys.put(hash, key)
		} else {
			s.keys.drop(hash)
		}
		return nil
	})
	return key, known, err
}

func badKey(message string) error {
	return &fault{http.StatusUnauthorized, "authentication_error", "api_key_invalid", "", message}
}
