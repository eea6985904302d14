package handlers

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"sync/atomic"
	"time"

	"lockstep/handlers/pages"
	"lockstep/ledger"
)

// A check of the books reads all of them, so no page waits for it: it runs by itself, and says now and then how far it has
// got, in a row that all processes see (of the table walks). It is one walk under a lease: a second one is refused while it runs, and one whose
// process died is seen to have stopped.

const (
	verifyWalk  = "verify"
	verifyEvery = 2 * time.Second // how often it says how far it is: well within the lease
	verifyTime  = 6 * time.Hour
	verifySaid  = 50 // findings that are kept
)

// verification is how far a check has got, as its row keeps it.
type verification struct {
	Begun    time.Time        `json:"begun"`
	Ended    *time.Time       `json:"ended,omitempty"`
	By       string           `json:"by"` // who had it run
	Done     int64            `json:"done"`
	Of       int64            `json:"of"`
	Wrong    int              `json:"wrong"`
	Findings []ledger.Finding `json:"findings,omitempty"` // the first of them
	Entries  int64            `json:"entries"`
	Wallets  int64            `json:"wallets"`
	Digest   string           `json:"digest"`
	Failed   string           `json:"failed,omitempty"`

	Ever    bool `json:"-"` // there was one
	Running bool `json:"-"`
}

// verification reads how the last check went.
func (s *Server) verification(v *visit) (of verification, err error) {
	w, running, found, err := s.Ledger.WalkAt(v.ctx(), verifyWalk)
	if err != nil || !found || w.State == "" {
		return of, err
	}
	err = json.Unmarshal([]byte(w.State), &of)
	of.Ever, of.Running = true, running && of.Ended == nil
	return of, err
}

func (s *Server) showVerification(v *visit) error {
	of, err := s.verification(v)
	if err != nil {
		return err
	}
	if v.r.Header.Get("HX-Request") == "" {
		return v.goTo("/console/books")
	}
	return s.show(v, http.StatusOK, "books#verification", pages.Frame{Data: of})
}

func (s *Server) verifyOrder(v *visit) (*order, error) {
	return &order{action: "verify_books", title: "Check the books", verb: "Check them", back: "/console/books",
		plan: func() (p plan, err error) {
			last, err := s.verification(v)
			if err != nil {
				return p, err
			}
			if last.Running {
				return p, &fault{http.StatusConflict, "conflict", string(ledger.CodeState), "", "The books are being checked already, since " + v.locale.DateTime(last.Begun) + "."}
			}
			p.say("Everything that must be true of the books is looked at over all of them, in one snapshot. Nothing is changed, and nobody has to wait for it.")
			p.say("It costs the database some work: seconds for a million entries.")
			return p, nil
		},
		do: func(once ledger.Once) (d deed, err error) {
			d.said = "The books are being checked. The page of the books shows how far it is."
			return d, s.beginVerify(v, once.Key)
		}}, nil
}

// beginVerify leases the walk and has it run. by, the key of the act, is the walker: the same form sent twice begins it once.
func (s *Server) beginVerify(v *visit, by string) error {
	w, leased, err := s.Ledger.LeaseWalk(v.ctx(), verifyWalk, by)
	if err != nil {
		return err
	}
	var last struct{ Act string }
	if w.State != "" {
		_ = json.Unmarshal([]byte(w.State), &last) // of another version: it is written anew
	}
	if leased && last.Act == by {
		return nil // this very form began it
	}
	if !leased {
		return &fault{http.StatusConflict, "conflict", string(ledger.CodeState), "", "The books are being checked already."}
	}
	of := verification{Begun: s.Ledger.Now().UTC(), By: v.operator.Name}
	if err := s.saveVerify(v.ctx(), by, &of); err != nil {
		return err
	}
	go s.verify(by, of)
	return nil
}

func (s *Server) saveVerify(ctx context.Context, by string, of *verification) error {
	state, err := json.Marshal(struct {
		*verification
		Act string
	}{of, by})
	if err != nil {
		return err
	}
	kept, err := s.Ledger.SaveWalk(ctx, verifyWalk, by, string(state), nil, nil)
	if err == nil && !kept {
		err = errors.New("another process checks the books meanwhile")
	}
	return err
}

// verify runs a check to its end. A process that stops ends it with its connections to the database.
func (s *Server) verify(by string, of verification) {
	ctx, cancel := context.WithTimeout(context.Background(), verifyTime)
	defer cancel()
	var done, steps atomic.Int64
	ended := make(chan struct{})
	said := make(chan struct{})
	go func() {
		defer close(said)
		tick := time.NewTicker(verifyEvery)
		defer tick.Stop()
		for {
			select {
			case <-ended:
				return
			case <-tick.C:
			}
			so := of
			so.Done, so.Of = done.Load(), steps.Load()
			if err := s.saveVerify(ctx, by, &so); err != nil || s.stopping.Load() {
				cancel() // another has it, or the database can't be reached; what was found could not be kept
			}
		}
	}()
	found, err := s.Ledger.Verify(ctx, func(at, all int) { done.Store(int64(at)); steps.Store(int64(all)) })
	close(ended)
	<-said
	now := s.Ledger.Now().UTC()
	of.Ended, of.Done, of.Of = &now, steps.Load(), steps.Load()
	of.Wrong, of.Entries, of.Wallets, of.Digest = len(found.Findings), found.Entries, found.Wallets, found.Digest
	of.Findings = found.Findings[:min(len(found.Findings), verifySaid)]
	if err != nil {
		of.Failed = "It could not be finished: the log says why."
		s.Log.Error("console: the books could not be checked", "error", err)
	} else if of.Wrong > 0 {
		s.Log.Error("console: the books are wrong", "places", of.Wrong, "first", of.Findings[0].String())
	}
	ctx, cancelLast := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancelLast()
	if err := s.saveVerify(ctx, by, &of); err != nil {
		s.Log.Error("console: what the check of the books found is not kept", "error", err)
	}
	_ = s.Ledger.LeaveWalk(ctx, verifyWalk, by) // or the lease runs out
}
