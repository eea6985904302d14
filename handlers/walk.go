package handlers

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"lockstep/ledger"
	"lockstep/stripeutil"
)

// A walk compares all customers with Stripe. Stripe allows few reads, so it lists what the account has, a hundred at a
// time, and looks by itself only at what does not fit the books:
//
//	events that never came → customers → payments → paid invoices → checkouts → refunds → disputes → what the books
//	say was paid and no list showed → each suspect by itself → tell
//
// After each of its steps the walk is written down with what it has found, in one row, under a lease. Stopped anywhere,
// it goes on after the last step that was written: a step that is done twice finds the same, and a repair that was made
// finds nothing left to do. What was found of a suspect is written before it is repaired, so that a repair never goes
// unreported.

// WalkOptions say what to walk.
type WalkOptions struct {
	Name    string        // whose walk: command, api or night; each goes on with its own
	By      string        // names the walker
	Repair  bool          // what can be
	Full    bool          // read everything of every customer, believing nothing that was seen before
	Since   time.Duration // how far back payments are walked; 0 is DefaultSince
	Grace   time.Duration // what is younger is not judged: its webhook may be on the way
	Restart bool          // begin anew

	Deadline time.Time                  // by the real clock: the walk is left there, to be gone on with; zero: none
	DoneFor  *time.Time                 // what the walk is for, noted when it ends
	Progress func(done, of int64)       // steps; nil: nobody looks
	Started  func(r *Walked, anew bool) // told before the first step; nil: nobody is
	Mended   func()                     // told after a repair, before that is written down
}

// DefaultSince is how far back payments are walked: past the 30 days of which Stripe keeps events.
const DefaultSince = 40 * 24 * time.Hour

// DefaultGrace is how old a thing is before it is judged.
const DefaultGrace = 2 * time.Minute

// maxFindings bounds what is kept of one walk; what is beyond it is counted.
const maxFindings = 10_000

// ErrWalking says that somebody else walks under that name.
var ErrWalking = errors.New("a walk is under way in another process")

// The parts of a walk, in their order.
const (
	partEvents = iota
	partCustomers
	partUnlisted
	partPayments
	partInvoices
	partSessions
	partRefunds
	partDisputes
	partBooks
	partSuspects
	partEnd
)

// Walked is how far a walk has got and what it has found: the state that is kept, and the outcome.
type Walked struct {
	Repair    bool          `json:"repair"`
	Full      bool          `json:"full"`
	Window    time.Duration `json:"window"`
	StartedAt time.Time     `json:"started_at"`
	Since     time.Time     `json:"since"` // payments made from then on
	Part      int           `json:"part"`
	After     string        `json:"after"`   // in Stripe's list, or the customer, of this part
	AfterB    int16         `json:"after_b"` // that customer's bucket
	Pages     int64         `json:"pages"`
	Left      int64         `json:"left"` // customers that no list of Stripe's had so far
	Customers int64         `json:"customers"`
	Looked    int           `json:"looked"` // how many suspects were looked at
	Reads     int64         `json:"reads"`  // that were made at Stripe
	Estimate  int64         `json:"estimate"`
	Beyond    int           `json:"beyond"`  // findings beyond those that are kept
	Resumed   int           `json:"resumed"` // how often it was gone on with
	Done      bool          `json:"done"`

	Suspects []suspect `json:"-"`
	Findings []Finding `json:"-"`
}

// walker is a walk under way.
type walker struct {
	s    *Server
	o    WalkOptions
	st   Walked
	seen map[string]bool // suspects
	fits map[string]bool // top-ups and sales that this process has seen at Stripe
	now  time.Time       // of the step
	ours bool            // there is a state to be written down

	alone bool // one customer is looked at, of which nothing is written down

	customer        *ledger.Customer // whose lists are read; nil: everybody's
	saved           time.Time
	suspectsChanged bool
	findingsChanged bool
}

func (w *walker) until() time.Time { return w.now.Add(-w.o.Grace) }

// suspects has a thing looked at by itself.
func (w *walker) suspect(kind, id string) {
	if id == "" || w.seen[kind+id] {
		return
	}
	w.seen[kind+id] = true
	w.st.Suspects = append(w.st.Suspects, suspect{kind, id})
	w.suspectsChanged = true
}

// Walk compares all customers with Stripe, or goes on with a walk that was stopped. The outcome is not Done where the
// deadline came first or ctx ended; the error is ErrWalking where another process walks.
func (s *Server) Walk(ctx context.Context, o WalkOptions) (Walked, error) {
	if o.Since == 0 {
		o.Since = DefaultSince
	}
	row, found, err := s.Ledger.LeaseWalk(ctx, o.Name, o.By)
	if err != nil {
		return Walked{}, err
	}
	if !found {
		return Walked{}, ErrWalking
	}
	if o.DoneFor != nil && row.DoneFor != nil && !row.DoneFor.Before(*o.DoneFor) { // another was quicker
		return Walked{}, errors.Join(ErrWalking, s.Ledger.LeaveWalk(ctx, o.Name, o.By))
	}
	w := &walker{s: s, o: o, seen: map[string]bool{}, fits: map[string]bool{}, saved: time.Now()}
	ctx, reads := stripeutil.CountReads(stripeutil.Later(ctx))
	ctx, stop := context.WithCancelCause(ctx)
	beating := make(chan struct{})
	go func() { defer close(beating); w.beat(ctx, stop) }()
	err = w.begin(ctx, row)
	before := w.st.Reads
	for err == nil && !w.st.Done && (o.Deadline.IsZero() || time.Now().Before(o.Deadline)) {
		if err = w.step(ctx); err == nil {
			w.st.Reads = before + reads.Load()
			err = w.save(ctx, false)
		}
		w.progress()
	}
	if cause := context.Cause(ctx); errors.Is(cause, errLost) {
		err = cause
	}
	stop(nil)
	<-beating
	w.st.Reads = before + reads.Load()
	return w.st, errors.Join(err, w.leave(context.WithoutCancel(ctx)))
}

// errLost says that another process has taken the walk over.
var errLost = errors.New("another process goes on with this walk")

// beat keeps the walk, however long a step takes.
func (w *walker) beat(ctx context.Context, stop context.CancelCauseFunc) {
	tick := time.NewTicker(ledger.WalkLease / 4)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if kept, err := w.s.Ledger.RenewWalk(ctx, w.o.Name, w.o.By); err == nil && !kept {
				stop(errLost)
				return
			}
		}
	}
}

// begin takes up what was written down of the same walk, or begins anew.
func (w *walker) begin(ctx context.Context, row ledger.Walk) error {
	w.now = w.s.Ledger.Now()
	anew := true
	if row.State != "" && !w.o.Restart {
		st, err := readWalk(row)
		if err != nil {
			return err
		}
		if st.Repair == w.o.Repair && st.Full == w.o.Full && st.Window == w.o.Since && w.now.Sub(st.StartedAt) < 24*time.Hour {
			w.st, anew = st, false
			w.st.Resumed++
			for _, su := range st.Suspects {
				w.seen[su.Kind+su.ID] = true
			}
		}
	}
	w.ours = true
	if anew {
		since := w.now.Add(-w.o.Since).Truncate(time.Second)
		size, err := w.s.Ledger.WalkSize(ctx, since)
		if err != nil {
			return err
		}
		w.st = Walked{Repair: w.o.Repair, Full: w.o.Full, Window: w.o.Since, StartedAt: w.now, Since: since, Customers: size.Customers, Estimate: estimate(size, w.o.Full)}
		w.suspectsChanged, w.findingsChanged = true, true
		if err := w.save(ctx, true); err != nil {
			return err
		}
	}
	if w.o.Started != nil {
		w.o.Started(&w.st, anew)
	}
	return nil
}

// estimate is about how many reads a walk takes that finds nothing: its lists, and the two of events.
func estimate(size ledger.WalkSize, full bool) int64 {
	if full {
		return 2 + 4*size.Customers + 3*size.Backs
	}
	pages := func(n int64) int64 { return n/100 + 1 }
	n := 2 + 3*pages(size.Payments) + 2*pages(size.Backs)
	if size.Customers > 0 {
		n += pages(size.Customers)
	}
	return n
}

func (w *walker) progress() {
	if w.o.Progress == nil {
		return
	}
	// Customers are most of the work of a sound account, suspects of an unsound one; the other lists are few.
	of := w.st.Customers + int64(len(w.st.Suspects)) + partEnd
	done := int64(w.st.Looked) + int64(w.st.Part)
	switch {
	case w.st.Part > partUnlisted:
		done += w.st.Customers
	case w.st.Part > partEvents:
		done += min(w.st.Pages*100, w.st.Customers)
	}
	w.o.Progress(min(done, of), of)
}

// step takes the next step.
func (w *walker) step(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	w.now = w.s.Ledger.Now()
	s, span := w.s, stripeutil.Span{Since: w.st.Since}
	switch w.st.Part {
	case partEvents:
		w.next()
		return s.Backfill(ctx)
	case partCustomers:
		if w.st.Full {
			return w.nextCustomer(ctx)
		}
		return w.customers(ctx)
	case partUnlisted:
		return w.unlisted(ctx)
	case partPayments:
		return listed(ctx, w, func(after string) (stripeutil.Page[stripeutil.PaymentIntent], error) {
			return s.Stripe.PaymentPage(ctx, span, after)
		}, w.payments)
	case partInvoices:
		return listed(ctx, w, func(after string) (stripeutil.Page[stripeutil.Invoice], error) {
			return s.Stripe.InvoicePage(ctx, span, after)
		}, w.invoices)
	case partSessions:
		return listed(ctx, w, func(after string) (stripeutil.Page[stripeutil.CheckoutSession], error) {
			return s.Stripe.SessionPage(ctx, span, after)
		}, w.sessions)
	case partRefunds:
		return listed(ctx, w, func(after string) (stripeutil.Page[stripeutil.Refund], error) {
			return s.Stripe.RefundPage(ctx, span, after)
		}, w.refunds)
	case partDisputes:
		return listed(ctx, w, func(after string) (stripeutil.Page[stripeutil.Dispute], error) {
			return s.Stripe.DisputePage(ctx, span, after)
		}, w.disputes)
	case partBooks:
		w.next()
		return w.books(ctx)
	case partSuspects:
		return w.look(ctx)
	default:
		return w.finish(ctx)
	}
}

// next goes on to the next part. A full walk has read the lists of each customer instead of everybody's.
func (w *walker) next() {
	w.st.Part, w.st.After, w.st.AfterB, w.st.Pages = w.st.Part+1, "", 0, 0
	if w.st.Full && w.st.Part == partUnlisted {
		w.st.Part = partBooks
	}
}

// listed reads a page of a list and has it judged. A list whose place is no more, for what stood there was deleted, is
// read from its beginning.
func listed[T any](ctx context.Context, w *walker, get func(after string) (stripeutil.Page[T], error), judge func(context.Context, []T) error) error {
	p, err := get(w.st.After)
	if w.st.After != "" && unknownAtStripe(err) {
		w.st.After = ""
		p, err = get("")
	}
	if err != nil {
		return err
	}
	if err := judge(ctx, p.Items); err != nil {
		return err
	}
	w.st.Pages++
	if w.st.After = p.Next; p.Next == "" {
		w.next()
	}
	return nil
}

// look looks at the next suspect, and repairs it where that is asked for and can be.
//
//	examine → found → commit → mend → examine → commit
//
// Killed before the first commit, the suspect is looked at again. After it, its findings are there, not repaired, and
// belong to the suspect that is next: it is looked at again, and what is gone meanwhile was repaired.
func (w *walker) look(ctx context.Context) error {
	if w.st.Looked >= len(w.st.Suspects) {
		w.next()
		return nil
	}
	su := w.st.Suspects[w.st.Looked]
	e, err := w.s.examine(ctx, su)
	if ledger.IsCode(err, ledger.CodeNotFound) || unknownAtStripe(err) { // it is no more, or no longer what it was
		w.s.Log.Warn("not compared with Stripe", "what", su.Kind, "id", su.ID, "error", err)
		w.st.Looked++
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s %s: %w", su.Kind, su.ID, err)
	}
	first := w.put(su, e)
	if w.st.Repair && canMend(e.found) {
		if err := w.save(ctx, true); err != nil {
			return err
		}
		failed := w.s.mendAndSync(context.WithoutCancel(ctx), su, e)
		if w.o.Mended != nil {
			w.o.Mended()
		}
		after, err := w.s.examine(context.WithoutCancel(ctx), su)
		if err != nil {
			return fmt.Errorf("%s %s: %w", su.Kind, su.ID, err)
		}
		w.mended(first, after, failed)
	}
	w.st.Looked++
	return nil
}

func canMend(found []difference) bool {
	for _, d := range found {
		if d.repairable {
			return true
		}
	}
	return false
}

// put notes what was found of a suspect; what had been found of it before a walk was stopped is marked as repaired where
// it is gone. It answers where the suspect's findings begin.
func (w *walker) put(su suspect, e exam) (first int) {
	first = len(w.st.Findings)
	for first > 0 && w.st.Findings[first-1].suspect == su {
		first--
	}
	if first < len(w.st.Findings) {
		w.mended(first, e, nil)
	}
	for _, d := range e.found {
		f := newFinding(su, e, d)
		if contains(w.st.Findings, f) { // also where another suspect led to it
			continue
		}
		if len(w.st.Findings) >= maxFindings {
			w.st.Beyond++
			continue
		}
		w.st.Findings = append(w.st.Findings, f)
		w.findingsChanged = true
	}
	return first
}

func contains(findings []Finding, f Finding) bool {
	for i := range findings {
		if findings[i].Kind == f.Kind && findings[i].Customer == f.Customer && findings[i].fingerprint() == f.fingerprint() {
			return true
		}
	}
	return false
}

// mended marks those findings as repaired that a later look does not find any more.
func (w *walker) mended(first int, after exam, failed error) {
	for i := first; i < len(w.st.Findings); i++ {
		f := &w.st.Findings[i]
		still := false
		for _, d := range after.found {
			still = still || d.kind == f.Kind && strings.Join(d.ids, " ") == strings.Join(f.IDs, " ")
		}
		f.Repaired = !still
		if still && failed != nil {
			f.Explanation += "; the repair failed: " + failed.Error()
		}
	}
	w.findingsChanged = w.findingsChanged || first < len(w.st.Findings)
}

// finish tells what was found, of each customer once, and ends the walk.
func (w *walker) finish(ctx context.Context) error {
	if !w.st.Full && w.st.Window < DefaultSince {
		w.st.Done = true
		return nil // what was told may be older than what this one has looked at
	}
	by := map[ledger.Ref][]Finding{}
	for _, f := range w.st.Findings {
		if f.ref.ID != "" {
			by[f.ref] = append(by[f.ref], f)
		}
	}
	told, err := w.s.Ledger.ToldOfDrift(ctx)
	if err != nil {
		return err
	}
	for _, ref := range told {
		if by[ref] == nil {
			by[ref] = []Finding{}
		}
	}
	for ref, findings := range by {
		if err := w.s.tell(ctx, ref, findings); err != nil {
			return err
		}
	}
	w.st.Done = true
	return nil
}

// tell tells of a customer's findings what has not been told; what was repaired is told and forgotten.
func (s *Server) tell(ctx context.Context, ref ledger.Ref, findings []Finding) error {
	var all, left []ledger.Drift
	for i := range findings {
		f := &findings[i]
		if f.passing {
			continue
		}
		d := ledger.Drift{Fingerprint: f.fingerprint(), Finding: f}
		all = append(all, d)
		if !f.Repaired {
			left = append(left, d)
		}
	}
	if err := s.Ledger.TellDrift(ctx, ref, all); err != nil || len(left) == len(all) {
		return err
	}
	return s.Ledger.TellDrift(ctx, ref, left)
}
