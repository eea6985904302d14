package handlers

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"lockstep/ledger"
)

// Finding is a difference between a customer's books and Stripe. Ledger, Stripe and Drift are minor units.
type Finding struct {
	Customer    string   `json:"customer"`
	State       string   `json:"state"`
	Kind        string   `json:"kind"`
	Ledger      int64    `json:"ledger"`
	Stripe      int64    `json:"stripe"`
	Drift       int64    `json:"drift"`
	Explanation string   `json:"explanation"`
	Repaired    bool     `json:"repaired"`
	Repairable  bool     `json:"repairable"`
	Action      string   `json:"action"`
	IDs         []string `json:"ids"`

	suspect suspect
	ref     ledger.Ref // none for a customer who is none of ours
	passing bool
}

func newFinding(su suspect, e exam, d difference) Finding {
	f := Finding{Customer: e.customer, State: d.state, Kind: d.kind, Ledger: d.ledger, Stripe: d.stripe, Drift: d.stripe - d.ledger,
		Explanation: d.why, Repairable: d.repairable, Action: d.todo, IDs: nonempty(d.ids), suspect: su, passing: d.passing}
	if su.Kind == aCustomer {
		f.Drift = d.drift
	}
	if e.known {
		f.ref = e.ref
	}
	if f.IDs == nil {
		f.IDs = []string{}
	}
	return f
}

// fingerprint is the same for as long as the difference is.
func (f *Finding) fingerprint() string {
	ids := ""
	if len(f.IDs) > 0 {
		ids = f.IDs[0]
	}
	return f.Kind + ":" + ids + ":" + strconv.FormatInt(f.Drift, 10)
}

// OpenToPerson reports whether somebody has to look at it: nothing repaired it, and it does not pass by itself.
func (f *Finding) OpenToPerson() bool { return !f.Repaired && !f.passing }

// keptFinding is a finding as a walk writes it down.
type keptFinding struct {
	Finding
	Suspect suspect    `json:"suspect"`
	Ref     ledger.Ref `json:"ref"`
	Passing bool       `json:"passing"`
}

// readWalk takes up what was written down.
func readWalk(row ledger.Walk) (st Walked, err error) {
	var kept []keptFinding
	for text, into := range map[string]any{row.State: &st, row.Suspects: &st.Suspects, row.Findings: &kept} {
		if err := json.Unmarshal([]byte(text), into); err != nil {
			return Walked{}, fmt.Errorf("what was written down of the walk can't be read, begin it anew with --restart: %w", err)
		}
	}
	for _, k := range kept {
		k.Finding.suspect, k.Finding.ref, k.Finding.passing = k.Suspect, k.Ref, k.Passing
		st.Findings = append(st.Findings, k.Finding)
	}
	return st, nil
}

// saveEvery is how long a walk may go on without being written down, where nothing of weight has happened.
const saveEvery = 300 * time.Millisecond

// save writes the walk down, now or if it is time.
func (w *walker) save(ctx context.Context, now bool) error {
	if w.alone || !now && time.Since(w.saved) < saveEvery {
		return nil
	}
	state, err := json.Marshal(w.st)
	if err != nil {
		return err
	}
	var suspects, findings *string
	if w.suspectsChanged {
		text, err := json.Marshal(append([]suspect{}, w.st.Suspects...))
		if err != nil {
			return err
		}
		s := string(text)
		suspects = &s
	}
	if w.findingsChanged {
		kept := make([]keptFinding, len(w.st.Findings))
		for i, f := range w.st.Findings {
			kept[i] = keptFinding{f, f.suspect, f.ref, f.passing}
		}
		text, err := json.Marshal(kept)
		if err != nil {
			return err
		}
		s := string(text)
		findings = &s
	}
	kept, err := w.s.Ledger.SaveWalk(ctx, w.o.Name, w.o.By, string(state), suspects, findings)
	if err != nil {
		return err
	}
	if !kept {
		return errLost
	}
	w.saved, w.suspectsChanged, w.findingsChanged = time.Now(), false, false
	return nil
}

// leave writes down where the walk stops, or that it has come to its end.
func (w *walker) leave(ctx context.Context) error {
	l := w.s.Ledger
	switch {
	case !w.ours:
	case w.st.Done:
		if !w.st.Full && w.st.Window == DefaultSince && !w.saleOpen() {
			if err := l.SetProgress(ctx, salesProgress, w.st.StartedAt); err != nil {
				return err
			}
		}
		kept, err := l.EndWalk(ctx, w.o.Name, w.o.By, w.o.DoneFor)
		if err == nil && !kept {
			err = errLost
		}
		return err
	default:
		if err := w.save(ctx, true); err != nil && err != errLost {
			return err
		}
	}
	return l.LeaveWalk(ctx, w.o.Name, w.o.By)
}

// saleOpen says that a sale waits to be booked: sales are looked at again until it is.
func (w *walker) saleOpen() bool {
	for i := range w.st.Findings {
		if f := &w.st.Findings[i]; f.Kind == kindSaleUnbooked && !f.Repaired {
			return true
		}
	}
	return w.st.Beyond > 0
}

// Reconciliation is what came of comparing customers with Stripe.
type Reconciliation struct {
	Object    string    `json:"object"`
	Customers int64     `json:"customers"`
	InStep    int64     `json:"in_step"`
	Repaired  int64     `json:"repaired"`
	Findings  []Finding `json:"findings"`
	HasMore   bool      `json:"has_more"`
	Reads     int64     `json:"reads"`
}

// Reconciliation is the outcome so far: of customers, those are repaired of whom everything that was found is.
func (st *Walked) Reconciliation() Reconciliation {
	r := Reconciliation{Object: "reconciliation", Customers: st.Customers, Findings: st.Findings, HasMore: !st.Done, Reads: st.Reads}
	if r.Findings == nil {
		r.Findings = []Finding{}
	}
	open := map[string]bool{}
	for i := range r.Findings {
		f := &r.Findings[i]
		if f.ref.ID != "" && f.Kind != kindUnshown {
			open[f.ref.ID] = open[f.ref.ID] || !f.Repaired
		}
	}
	for _, o := range open {
		if !o {
			r.Repaired++
		}
	}
	r.InStep = max(0, r.Customers-int64(len(open)))
	return r
}

// Open counts the findings that somebody has to look at.
func (r *Reconciliation) Open() (n int) {
	for i := range r.Findings {
		if r.Findings[i].OpenToPerson() {
			n++
		}
	}
	return n
}

// Kinds counts the findings by kind, for a line of the log: "refund_unbooked 2, sale_unbooked 1".
func (r *Reconciliation) Kinds() string {
	count := map[string]int{}
	for _, f := range r.Findings {
		count[f.Kind]++
	}
	var parts []string
	for _, kind := range FindingKinds {
		if n := count[kind]; n > 0 {
			parts = append(parts, fmt.Sprintf("%s %d", kind, n))
		}
	}
	return strings.Join(parts, ", ")
}
