package handlers

import (
	"context"
	"errors"
	"net/http"
	"time"

	"lockstep/ledger"
	"lockstep/stripeutil"
)

// apiTime is how long one call walks through all customers: well below the time in which an answer has to be written.
const apiTime = 60 * time.Second

// postReconcile compares one customer with Stripe, or all of them. All of them are walked for as long as an answer may
// take; where that is not enough the answer says so, and the next call goes on.
func (s *Server) postReconcile(c *call) error {
	var in struct {
		Customer *string `json:"customer"`
		Repair   bool    `json:"repair"`
	}
	if err := c.decodeOptional(&in); err != nil {
		return err
	}
	key, err := c.key(nil)
	if err != nil {
		return err
	}
	if err := filled(field{"customer", in.Customer}); err != nil { // null is all customers, "" is a mistake
		return err
	}
	if err := texts("customer", deref(in.Customer)); err != nil {
		return err
	}
	repair := "look"
	if in.Repair {
		repair = "repair"
	}
	return s.once(c, key, ledger.BucketOfKey(key), []string{deref(in.Customer), repair}, func(ledger.Once) (int, any, error) {
		if in.Customer != nil {
			v, err := s.ReconcileOne(c.ctx(), *in.Customer, in.Repair, DefaultGrace)
			return http.StatusOK, v, err
		}
		st, err := s.Walk(c.ctx(), WalkOptions{Name: "api", By: "api " + c.id, Repair: in.Repair, Grace: DefaultGrace, Deadline: time.Now().Add(apiTime)})
		if errors.Is(err, ErrWalking) || errors.Is(err, errLost) {
			return 0, nil, &fault{http.StatusConflict, "conflict", string(ledger.CodeState), "", "another call compares all customers right now: ask again when it has been answered"}
		}
		return http.StatusOK, st.Reconciliation(), err
	})
}

// ReconcileOne compares one customer with Stripe: the balance, and the payments of DefaultSince. What is younger than
// grace is not judged.
func (s *Server) ReconcileOne(ctx context.Context, id string, repair bool, grace time.Duration) (Reconciliation, error) {
	ctx, reads := stripeutil.CountReads(ctx)
	if err := s.Backfill(ctx); err != nil {
		return Reconciliation{}, err
	}
	cust, err := s.Ledger.Customer(ctx, id)
	if err != nil {
		return Reconciliation{}, err
	}
	w := &walker{s: s, o: WalkOptions{Repair: repair, Grace: grace}, seen: map[string]bool{}, fits: map[string]bool{}, now: s.Ledger.Now(), alone: true}
	w.st = Walked{Repair: repair, Window: DefaultSince, StartedAt: w.now, Since: w.now.Add(-DefaultSince).Truncate(time.Second), Customers: 1, Done: true}
	if err := w.oneCustomer(ctx, cust, stripeutil.Span{Since: w.st.Since}); err != nil {
		return Reconciliation{}, err
	}
	failed, err := s.Ledger.FailedEvents(ctx)
	if err != nil {
		return Reconciliation{}, err
	}
	for _, id := range failed {
		if e, err := s.examineEvent(ctx, id); err == nil && e.ref == cust.Ref {
			w.suspect(anEvent, id)
		}
	}
	for w.st.Looked < len(w.st.Suspects) {
		if err := w.look(ctx); err != nil {
			return Reconciliation{}, err
		}
	}
	w.st.Reads = reads.Load()
	if err := s.tell(ctx, cust.Ref, w.st.Findings); err != nil {
		return Reconciliation{}, err
	}
	return w.st.Reconciliation(), nil
}
