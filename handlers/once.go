package handlers

import (
	"encoding/json"
	"errors"

	"lockstep/ledger"
)

// key is the request's idempotency key, from the header or the body. An empty one protects from nothing, and
// whoever sends it thinks that it does.
func (c *call) key(inBody *string) (string, error) {
	key, sent := "", c.r.Header["Idempotency-Key"]
	if len(sent) > 0 {
		key = sent[0]
	}
	if len(sent) > 0 && key == "" || inBody != nil && *inBody == "" {
		return "", invalid("idempotency_key", "the idempotency key is empty: leave it out, or send one")
	}
	if key != "" && inBody != nil && key != *inBody {
		return "", invalid("idempotency_key", "the Idempotency-Key header and idempotency_key in the body differ: send one")
	}
	if inBody != nil {
		key = *inBody
	}
	return key, text("idempotency_key", key, maxKey)
}

// once answers a POST under its idempotency key: the first answer again where there is one, else what make
// does, kept before it is sent. bucket is where the key lives; request is what is asked for. make is given
// the key to claim in its own transaction, so that a crash in between leaves either both or none.
func (s *Server) once(c *call, key string, bucket int16, request []string, make func(ledger.Once) (int, any, error)) error {
	once := ledger.Once{Bucket: bucket, Key: key}
	if key != "" {
		once.Request = ledger.Fingerprint(append([]string{c.r.Method, c.r.URL.Path}, request...)...)
		if err := s.Ledger.CheckKey(once); err != nil {
			return err
		}
		a, found, err := s.Ledger.FindAnswer(c.ctx(), once)
		if err != nil {
			return err
		}
		if found && a.Body != "" {
			return c.replay(a.Status, a.Body)
		}
	}
	status, v, err := make(once)
	var d *declined
	if errors.As(err, &d) {
		var b errorBody
		status, b = s.explain(c, err)
		v, err = map[string]errorBody{"error": b}, nil
	}
	if err != nil {
		return err
	}
	if passing, ok := v.(unkept); ok {
		return c.send(status, passing)
	}
	body, ready := v.(json.RawMessage) // a batch's answer is long, and is JSON already
	if !ready {
		if body, err = encode(v); err != nil {
			return err
		}
	}
	kept, first, err := s.Ledger.KeepAnswer(c.ctx(), once, status, string(body))
	if err != nil {
		return err
	}
	s.Ledger.KeyUsed(once)
	if !first {
		return c.replay(kept.Status, kept.Body)
	}
	return c.send(status, c.finished(body))
}

// unkept is an answer that is not kept under its key: something of it failed in a way that passes, and the same request
// is to be tried again.
type unkept json.RawMessage

// replay sends the first answer again.
func (c *call) replay(status int, body string) error {
	c.w.Header()["Idempotent-Replayed"] = []string{"true"}
	return c.send(status, c.finished([]byte(body)))
}
