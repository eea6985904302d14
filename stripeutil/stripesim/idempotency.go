package stripesim

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"time"
)

// savedKey is the outcome kept under an idempotency key.
type savedKey struct {
	Method, Path, Params string // Params is a hash
	Status               int
	Body                 []byte
	Request              string // the request id that did the work
	Created              time.Time
}

// idempotent executes a request at most once per key. Once execution begins the
// outcome is saved, a 402 or a 500 as much as a success; a request refused for
// its form, its speed or a competitor leaves no trace, so that it can be sent
// again under the same key.
func (s *Sim) idempotent(q *request) *answer {
	if len(q.key) > 255 {
		return refusal(badRequest("", "", "Idempotency keys must be at most 255 characters long."))
	}
	if q.key != "" {
		if a := s.claim(q); a != nil {
			return a
		}
		defer s.release(q.key)
	}
	if q.fault.is(Slow) {
		s.sleep(q.fault.Delay)
	}
	a, generation := s.execute(q)
	if q.method != http.MethodGet {
		if err := s.flush(generation); err != nil {
			return refusal(errUnknown)
		}
	}
	s.pump()
	return a
}

// claim answers from what is saved, or reserves the key for this request.
func (s *Sim) claim(q *request) *answer {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.inFlight[q.key] {
		return refusal(errKeyInUse(q.key))
	}
	saved := s.unexpired(q.key)
	if saved == nil {
		s.inFlight[q.key] = true
		return nil
	}
	if saved.Method != q.method || saved.Path != q.path {
		s.reused = append(s.reused, fmt.Sprintf("idempotency key %q: used for %s and for %s", q.key, saved.Path, q.path))
		return refusal(errKeyElsewhere(q.key, saved.Path, q.path))
	}
	if saved.Params != hashParams(q) {
		s.reused = append(s.reused, fmt.Sprintf("idempotency key %q: used on %s with two sets of parameters", q.key, q.path))
		return refusal(errKeyReused(q.key))
	}
	return &answer{status: saved.Status, body: saved.Body, replayed: true,
		header: http.Header{"Original-Request": {saved.Request}}}
}

// unexpired finds an unexpired outcome.
func (s *Sim) unexpired(key string) *savedKey {
	saved := s.state.Keys[key]
	if saved != nil && s.now().Sub(saved.Created) >= keyLife {
		delete(s.state.Keys, key)
		return nil
	}
	return saved
}

func (s *Sim) release(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.inFlight, key)
}

func hashParams(q *request) string {
	sum := sha256.Sum256([]byte(q.form.Encode()))
	return hex.EncodeToString(sum[:])
}

// execute runs the request's handler under the lock and saves its outcome.
func (s *Sim) execute(q *request) (*answer, uint64) {
	handle, args := route(q.method, q.path)
	if handle == nil {
		return refusal(refuse(http.StatusNotFound, "", "",
			"Unrecognized request URL (%s: %s). Please see https://stripe.com/docs or we can help at https://support.stripe.com/.", q.method, q.path)), 0
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expire()
	c := &call{Sim: s, params: newParams(q.form), args: args, path: q.path, request: q.id, key: q.key}
	var a *answer
	if q.fault.is(Error500Before) {
		a = refusal(errUnknown)
	} else {
		a = c.run(handle)
		if q.fault.is(Error500After) && a.status < 300 {
			a.status, a.body = errUnknown.status, refusal(errUnknown).body
		}
	}
	if q.key != "" && (a.status < 300 || a.status == http.StatusPaymentRequired || a.status >= 500) {
		s.state.Keys[q.key] = &savedKey{Method: q.method, Path: q.path, Params: hashParams(q),
			Status: a.status, Body: a.body, Request: q.id, Created: s.now()}
	}
	if q.method == http.MethodGet {
		return a, 0
	}
	return a, s.touch()
}

// sleep waits in real time; the end of the simulator cuts it short.
func (s *Sim) sleep(d time.Duration) {
	select {
	case <-time.After(d):
	case <-s.ctx.Done():
	}
}
