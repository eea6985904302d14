package stripesim

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"time"
)

const (
	deliveryTimeout = 5 * time.Second
	maxOnTheWire    = 32 // attempts at once
	hugePadding     = 3 << 20
)

// delivery is an event on its way to an endpoint.
type delivery struct {
	Event, Endpoint string
	Due             time.Time
	Attempt         int  // attempts made so far
	Held            bool // until Release
	Drop            bool // lose the next attempt on the way

	busy bool // an attempt is on the wire
}

func newDeliveryClient() *http.Client {
	return &http.Client{
		Timeout:   deliveryTimeout,
		Transport: &http.Transport{MaxIdleConnsPerHost: maxOnTheWire, IdleConnTimeout: 30 * time.Second},
		// To Stripe a redirect is a failure.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// enqueue plans the delivery of an event, as the fault, if any, will have it.
func (s *Sim) enqueue(eventID, endpointID string, fault *DeliveryFault) {
	d := &delivery{Event: eventID, Endpoint: endpointID, Due: s.now()}
	if fault != nil {
		switch fault.Kind {
		case Lose:
			return
		case LoseOnce:
			d.Drop = true
		case Duplicate:
			again := *d
			s.state.Pending = append(s.state.Pending, &again)
		case Delay:
			d.Due = d.Due.Add(fault.Delay)
		case Hold:
			d.Held = true
		case Past:
			d.Held = true
			s.overtaken = append(s.overtaken, &overtaken{held: d, is: fault.Next, until: fault.Until})
		}
	}
	s.state.Pending = append(s.state.Pending, d)
}

// Release delivers the held events, the last one first and each only after the
// one before it was answered: the order is reversed for certain.
func (s *Sim) Release() {
	s.mu.Lock()
	var held []*delivery
	for _, d := range s.state.Pending {
		if d.Held {
			// Marked busy, so that only the loop below touches it.
			d.Held, d.busy = false, true
			held = append(held, d)
		}
	}
	s.attempts += len(held)
	s.touch()
	s.mu.Unlock()
	for _, d := range slices.Backward(held) {
		s.try(d)
	}
}

// pump starts an attempt for each delivery that is due. The order among them is
// shuffled: Stripe promises none.
func (s *Sim) pump() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx.Err() != nil {
		return
	}
	now := s.now()
	var due []*delivery
	for _, d := range s.state.Pending {
		if d.waits(now) {
			due = append(due, d)
		}
	}
	rand.Shuffle(len(due), func(i, j int) { due[i], due[j] = due[j], due[i] })
	for _, d := range due[:min(len(due), max(0, maxOnTheWire-s.attempts))] {
		d.busy = true
		s.attempts++
		s.wg.Go(func() {
			s.try(d)
			s.pump()
		})
	}
}

// waits says whether an attempt should start now.
func (d *delivery) waits(now time.Time) bool { return !d.busy && !d.Held && !d.Due.After(now) }

// try makes one attempt and books its outcome. The delivery is marked busy.
func (s *Sim) try(d *delivery) {
	s.mu.Lock()
	e, ep := s.state.Events.get(d.Event), s.state.Endpoints.get(d.Endpoint)
	ok := true // an endpoint that is gone or disabled ends the matter
	var req *http.Request
	if e != nil && ep != nil && ep.Status == "enabled" {
		ok = false
		if d.Drop {
			d.Drop = false
		} else {
			req = s.deliveryRequest(e, ep)
		}
	}
	s.mu.Unlock()
	if req != nil {
		ok = s.send(req)
	}
	s.mu.Lock()
	s.settle(d, ok)
	s.attempts--
	generation := s.touch()
	s.mu.Unlock()
	s.flush(generation)
	if ok {
		s.letPast(d.Event)
	}
}

// settle books an attempt: done, to be repeated, or given up.
func (s *Sim) settle(d *delivery, ok bool) {
	d.busy = false
	if ok {
		s.state.Waiting[d.Event] = slices.DeleteFunc(s.state.Waiting[d.Event], func(id string) bool { return id == d.Endpoint })
		if len(s.state.Waiting[d.Event]) == 0 {
			delete(s.state.Waiting, d.Event)
		}
	}
	if ok || d.Attempt >= len(s.retries) {
		s.state.Pending = slices.DeleteFunc(s.state.Pending, func(o *delivery) bool { return o == d })
		return
	}
	d.Due = s.now().Add(s.retries[d.Attempt])
	d.Attempt++
}

// deliveryRequest renders an event for an endpoint and signs it, spoiled as the
// injected fault will have it.
func (s *Sim) deliveryRequest(e *event, ep *endpoint) *http.Request {
	wire := s.eventWire(e)
	if ep.APIVersion != "" {
		wire.APIVersion = string(ep.APIVersion)
	}
	at, secrets, padding := s.unix(), ep.Secrets, ""
	if f := s.takeDelivery(e.Type, true); f != nil {
		switch f.Kind {
		case WrongSecret:
			secrets = []string{newID("whsec_", 32)}
		case StaleTimestamp:
			at -= 3600
		case WrongAPIVersion:
			wire.APIVersion = "2020-08-27"
		case WrongLivemode:
			wire.Livemode = !wire.Livemode
		case HugeBody:
			padding = strings.Repeat(" ", hugePadding)
		}
	}
	payload := append(pretty(wire), padding...)
	req, err := http.NewRequestWithContext(context.WithoutCancel(s.ctx), http.MethodPost, ep.URL, bytes.NewReader(payload))
	if err != nil {
		s.log.Error("webhook endpoint has no usable URL", "endpoint", ep.ID, "err", err)
		return nil
	}
	req.Header.Set("Content-Type", "application/json; charset=utf-8")
	req.Header.Set("User-Agent", "Stripe/1.0 (+https://stripe.com/docs/webhooks)")
	req.Header.Set("Stripe-Signature", sign(payload, at, secrets))
	return req
}

// sign makes the Stripe-Signature header: one v1 for each secret.
func sign(payload []byte, at int64, secrets []string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "t=%d", at)
	for _, secret := range secrets {
		mac := hmac.New(sha256.New, []byte(secret))
		fmt.Fprintf(mac, "%d.", at)
		mac.Write(payload)
		b.WriteString(",v1=" + hex.EncodeToString(mac.Sum(nil)))
	}
	return b.String()
}

// send reports whether the endpoint accepted.
func (s *Sim) send(req *http.Request) bool {
	ctx, cancel := context.WithCancel(req.Context())
	defer cancel()
	// Close waits for attempts on the wire; this keeps it from waiting long.
	defer context.AfterFunc(s.ctx, func() {
		time.AfterFunc(200*time.Millisecond, cancel)
	})()
	res, err := s.client.Do(req.WithContext(ctx))
	if err != nil {
		s.log.Warn("webhook not delivered", "url", req.URL.String(), "err", err)
		return false
	}
	defer res.Body.Close()
	io.Copy(io.Discard, io.LimitReader(res.Body, 1<<16))
	if res.StatusCode/100 != 2 {
		s.log.Warn("webhook refused", "url", req.URL.String(), "status", res.StatusCode)
		return false
	}
	return true
}

// untilDue is the time to the next thing that falls due by itself.
func (s *Sim) untilDue() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	now, soonest := s.now(), time.Hour
	for _, d := range s.state.Pending {
		if !d.busy && !d.Held {
			soonest = min(soonest, d.Due.Sub(now))
		}
	}
	for _, j := range s.state.Jobs {
		soonest = min(soonest, j.At.Sub(now))
	}
	return soonest
}

// Settle waits until no delivery that is due is outstanding. Held events,
// delayed ones and retries whose time has not come do not count.
func (s *Sim) Settle(ctx context.Context) error {
	s.runDue()
	s.pump()
	return s.waitQuiet(ctx, func(*delivery) bool { return true })
}

// waitDelivered waits until each of the events was tried.
func (s *Sim) waitDelivered(ctx context.Context, events []string) {
	s.waitQuiet(ctx, func(d *delivery) bool { return slices.Contains(events, d.Event) })
}

func (s *Sim) waitQuiet(ctx context.Context, counts func(*delivery) bool) error {
	for {
		s.mu.Lock()
		now := s.now()
		quiet := !slices.ContainsFunc(s.state.Pending, func(d *delivery) bool {
			return counts(d) && (d.busy || d.waits(now))
		})
		changed := s.changed
		s.mu.Unlock()
		if quiet {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		case <-s.ctx.Done():
			return s.ctx.Err()
		}
	}
}
