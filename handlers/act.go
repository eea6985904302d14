package handlers

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"lockstep/handlers/pages"
	"lockstep/ledger"
)

// order is an act of an operator as a request asks for it: its form, what it would do, and how it is done. It is made
// anew of each request.
type order struct {
	action   string // its name in the audit trail: void_grant
	title    string // Void a grant
	verb     string // on the button that does it
	danger   bool   // it takes something away, or charges somebody
	keyed    bool   // do takes the key that it is called with; otherwise it sets a state, or works off what there is
	removes  bool   // it is to leave nothing there: that nothing is, when its form is sent again, is its success
	customer string // whom it is about; "" for nobody
	object   string // the id of what it is done to
	back     string // the page that it was opened from
	fields   []*formField

	// plan says what it would do, from what is so now. A refusal that names a field is shown there.
	plan func() (plan, error)
	// do does it, under once, which makes it happen at most once however often it is called.
	do func(once ledger.Once) (deed, error)
	// reveal is nil, or the page that shows, to whoever has just done it and never again, a secret that it made: "" where it
	// made none, for it was done before.
	reveal func() (page string, f pages.Frame)
}

// formField is one that an operator fills in.
type formField struct {
	Name, Label, Help string
	Kind              string // text, area, date, select, or checks: several options, with commas between; "" is text
	Options           []option
	Value             string
	Optional          bool
	Decimal           bool // a phone shows the keys for numbers
	Error             string
}

type option struct{ Value, Label string }

// Chosen reports whether an option is one of the field's.
func (f *formField) Chosen(value string) bool {
	return slices.Contains(strings.Split(f.Value, ","), value)
}

// plan is what an act would do, as an operator is shown it, and as the audit trail keeps it.
type plan struct {
	Says  []string `json:"says"`            // sentences
	Moves []move   `json:"moves,omitempty"` // what changes
}

type move struct {
	What   string `json:"what"`
	Before string `json:"before"`
	After  string `json:"after"`
}

func (p *plan) say(sentence string)             { p.Says = append(p.Says, sentence) }
func (p *plan) move(what, before, after string) { p.Moves = append(p.Moves, move{what, before, after}) }

// deed is what came of an act.
type deed struct {
	said   string
	result string // the id of what it made
	failed bool   // it was tried, and refused by somebody else: Stripe declined the card
	made   bool   // beside a refusal: its result was made, under its key, before what is refused
}

// actPage is what the pages of an act show.
type actPage struct {
	Title, Verb, Back, Action string
	Danger                    bool
	Act                       string // its id
	Fields                    []*formField
	Plan                      *plan
	At                        time.Time // of the plan
	Reason, ReasonError       string
	Error                     string
}

// maxReason bounds what an operator writes; the ledger's own bound.
const maxReason = maxText

// value is what the form says, or said before, of a field.
func (o *order) value(name string) string {
	for _, f := range o.fields {
		if f.Name == name {
			return f.Value
		}
	}
	return ""
}

// request is the fingerprint of what is asked for.
func (o *order) request() int64 {
	parts := []string{o.action, o.customer, o.object}
	for _, f := range o.fields {
		parts = append(parts, f.Name, f.Value)
	}
	return ledger.Fingerprint(parts...)
}

// act is an act's page: its form, then what it would do, then it is done.
func (s *Server) act(make func(*visit) (*order, error)) func(*visit) error {
	return func(v *visit) error {
		o, err := make(v)
		if err != nil {
			return err
		}
		p := &actPage{Title: o.title, Verb: o.verb, Back: o.back, Action: v.r.URL.Path, Danger: o.danger, Fields: o.fields}
		if v.r.Method != http.MethodPost {
			return s.openAct(v, o, p)
		}
		p.Act, p.Reason = v.form.Get("act"), strings.TrimSpace(v.form.Get("reason"))
		for _, f := range o.fields {
			f.Value = strings.ReplaceAll(strings.TrimSpace(strings.Join(v.form[f.Name], ",")), "\r\n", "\n")
		}
		switch v.form.Get("step") {
		case "change":
			return s.show(v, http.StatusOK, "act", pages.Frame{Title: o.title, Data: p})
		case "confirm":
			return s.confirm(v, o, p)
		}
		return s.preview(v, o, p)
	}
}

// openAct shows an act's form, or what the form that was sent would do: that page has an address of its own, so that going
// back to it, or loading it again, sends nothing.
func (s *Server) openAct(v *visit, o *order, p *actPage) error {
	for _, f := range o.fields {
		if v.query.Has(f.Name) {
			f.Value = v.query.Get(f.Name)
			if err := text(f.Name, f.Value, 4*maxText); err != nil {
				return err
			}
		}
	}
	p.Act = v.query.Get("act")
	if v.query.Get("step") == "preview" && p.Act != "" {
		return s.preview(v, o, p)
	}
	p.Act = s.Ledger.NewActID()
	if len(o.fields) == 0 { // nothing to fill in
		return v.goTo(o.previewPath(v, p.Act))
	}
	return s.show(v, http.StatusOK, "act", pages.Frame{Title: o.title, Data: p})
}

// previewPath is the address of what an act would do.
func (o *order) previewPath(v *visit, act string) string {
	q := url.Values{"step": {"preview"}, "act": {act}}
	for _, f := range o.fields {
		q.Set(f.Name, f.Value)
	}
	return v.r.URL.EscapedPath() + "?" + q.Encode()
}

// previewFresh is for how long what was shown is shown again as it was.
const previewFresh = 30 * time.Second

// preview shows what an act would do, and keeps it for the audit trail.
func (s *Server) preview(v *visit, o *order, p *actPage) error {
	if done, found, err := s.Ledger.Act(v.ctx(), p.Act); err != nil {
		return err
	} else if found && done.Request == o.request() {
		return v.goTo(actPath(done.ID)) // somebody went back after it was done
	} else if found {
		p.Act = s.Ledger.NewActID() // the form was filled in anew: this is another act
	}
	for _, f := range o.fields {
		if f.Value == "" && !f.Optional {
			f.Error = "This is needed."
			return s.refuseAct(v, p, http.StatusBadRequest)
		}
	}
	shown, at, err := s.planned(v, o, p.Act)
	if err != nil {
		return s.refusedAct(v, o, p, err)
	}
	if v.r.Method == http.MethodPost && p.ReasonError == "" {
		return v.goTo(o.previewPath(v, p.Act))
	}
	p.Plan, p.At = &shown, at
	status := http.StatusOK
	if p.ReasonError != "" {
		status = http.StatusBadRequest
	}
	return s.show(v, status, "act", pages.Frame{Title: o.title, Data: p})
}

// planned is what an act would do: as it was found a moment ago, or as it is found, and kept, now.
func (s *Server) planned(v *visit, o *order, act string) (shown plan, at time.Time, err error) {
	kept, found, err := s.Ledger.Previewed(v.ctx(), act)
	if err != nil {
		return plan{}, at, err
	}
	at = s.Ledger.Now()
	if found && kept.Request == o.request() && at.Sub(kept.At) < previewFresh {
		err = json.Unmarshal([]byte(kept.Shown), &shown)
		return shown, kept.At, err
	}
	if shown, err = o.plan(); err != nil {
		return plan{}, at, err
	}
	b, err := json.Marshal(shown)
	if err == nil {
		err = s.Ledger.SavePreview(v.ctx(), ledger.Preview{ID: act, Request: o.request(), Shown: string(b)})
	}
	return shown, at, err
}

// confirm does what was shown.
//
// row → act → outcome. The row of the audit trail is written first, with what was shown and without an outcome; then the
// ledger does the act in a transaction of its own, under the key "console:" and the row's id; then the row gets its outcome.
//   - A crash before the row: nothing was done, and nothing says that it was.
//   - A crash after the row: the trail has an act whose outcome nobody knows, and nothing was done, or it was: the ledger
//     knows by the key. The same form, sent again, does it if it was not done, finds it if it was, and writes the outcome.
//   - After the outcome the same form shows that and does nothing.
//
// Acts that set a state, such as freeze, have no key in the ledger: done twice they are done once.
func (s *Server) confirm(v *visit, o *order, p *actPage) error {
	if p.Reason == "" {
		p.ReasonError = "Say why: whoever reads the audit trail will want to know."
		return s.preview(v, o, p)
	}
	if len(p.Reason) > maxReason {
		p.ReasonError = "At most 500 bytes, please."
		return s.preview(v, o, p)
	}
	row, begun, err := s.Ledger.Act(v.ctx(), p.Act)
	if err != nil {
		return err
	}
	if !begun {
		if row, begun, err = s.begin(v, o, p); err != nil || v.done {
			return err
		}
	}
	if begun && row.Request == o.request() && row.Outcome != "" {
		return v.goTo(actPath(row.ID))
	}
	row.Request = o.request() // another request than the first is refused
	row, first, err := s.Ledger.BeginAct(v.ctx(), row)
	if err != nil {
		return err
	}
	if row.Outcome == "" {
		if err := s.perform(v, o, row, first); err != nil {
			return err
		}
		if o.reveal != nil {
			if page, f := o.reveal(); page != "" {
				return s.show(v, http.StatusOK, page, f)
			}
		}
	}
	return v.goTo(actPath(row.ID))
}

// begin is the row of an act that was not begun. What it would do must have been shown, and still be so: where it is not,
// that is shown instead, and nothing is done.
func (s *Server) begin(v *visit, o *order, p *actPage) (row ledger.Act, begun bool, err error) {
	kept, found, err := s.Ledger.Previewed(v.ctx(), p.Act)
	if err != nil {
		return row, false, err
	}
	if !found || kept.Request != o.request() { // nobody was shown what this would do
		return row, false, s.preview(v, o, p)
	}
	row = ledger.Act{ID: p.Act, Operator: v.operator.Name, KeyID: v.operator.KeyID, KeyName: v.operator.KeyName, Action: o.action,
		Customer: o.customer, Object: o.object, Reason: p.Reason, Request: kept.Request, Shown: kept.Shown}
	if s.Ledger.Now().Sub(kept.At) < previewFresh {
		return row, false, nil
	}
	now, err := o.plan()
	var says []byte
	if err == nil {
		says, err = json.Marshal(now)
	}
	if err == nil && string(says) == kept.Shown {
		return row, false, nil
	}
	// The same form, sent twice at once, may have done it meanwhile: that is no change that anybody has to look at.
	if done, begun, err := s.Ledger.Act(v.ctx(), p.Act); err != nil || begun {
		return done, begun, err
	}
	if err != nil {
		return row, false, s.refusedAct(v, o, p, err)
	}
	if err = s.Ledger.SavePreview(v.ctx(), ledger.Preview{ID: p.Act, Request: kept.Request, Shown: string(says)}); err != nil {
		return row, false, err
	}
	p.Plan, p.At, p.Error = &now, s.Ledger.Now(), "What this would do has changed since it was shown. Nothing has been done: look again."
	return row, false, s.refuseAct(v, p, http.StatusConflict)
}

const (
	// endTime is how long the outcome of an act may take to be written, also when nobody waits for it any more.
	endTime = 5 * time.Second
	// actTime is longer than a form is at work until it takes its key, or comes to nothing.
	actTime = time.Minute
)

// perform does an act that is in the trail, and writes down what came of it. What failed on our side has come to nothing
// that anybody knows: its row stays as it is. first says that the row was written for this very form.
func (s *Server) perform(v *visit, o *order, row ledger.Act, first bool) error {
	did, err := o.do(ledger.Once{Key: row.Key(), Request: row.Request})
	// It is done, or not: whoever sent the form may have gone meanwhile, and the trail is to say so all the same.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(v.ctx()), endTime)
	defer cancel()
	outcome := "done"
	if err != nil {
		status, body := s.explain(v.call, err)
		if status >= 500 || status == http.StatusTooManyRequests {
			s.complain("act failed", "request", v.id, "act", row.ID, "action", row.Action, "error", err)
			return &fault{status, "api_error", string(ledger.CodeUnavailable), "", "Nobody knows whether this was done (" + row.ID +
				" in the audit trail). Reload this page: it is done once, however often it is sent."}
		}
		if outcome, did, err = s.refusedNow(ctx, o, &row, first, did, body.Message, err); err != nil {
			return err
		}
	} else if did.failed {
		outcome = "refused"
	}
	if _, err = s.Ledger.EndAct(ctx, row.ID, outcome, did.said, did.result); err == nil {
		s.Log.Info("console: act", "act", row.ID, "action", row.Action, "operator", row.Operator, "key", row.KeyID, "object", row.Object, "outcome", outcome)
	}
	return err
}

// refusedNow is the outcome of an act that is refused now. The first time that its form is sent that is a refusal. When it
// is sent again the first one may have done it, and the refusal be of a second one: the customer was frozen since, the
// day is over. Its key tells, once none that was sent before can still be at work; where nothing tells, nobody knows.
func (s *Server) refusedNow(ctx context.Context, o *order, row *ledger.Act, first bool, did deed, why string, refusal error) (string, deed, error) {
	if did.made {
		return "refused", deed{said: why, result: did.result}, nil
	}
	if first {
		return "refused", deed{said: why}, nil
	}
	if o.removes && ledger.IsCode(refusal, ledger.CodeNotFound) {
		return "done", did, nil
	}
	if o.keyed {
		made, used, err := s.Ledger.MadeBy(ctx, row)
		if err != nil {
			return "", deed{}, err
		}
		if used {
			return "done", deed{said: "It was done when its form was sent before.", result: made}, nil
		}
		if s.Ledger.Now().Sub(row.At) > actTime {
			return "refused", deed{said: why}, nil
		}
	}
	look := "at what it was to be done to"
	if row.Object != "" {
		look = "at " + row.Object
	}
	return "", deed{}, &fault{http.StatusConflict, "conflict", string(ledger.CodeState), "", "Nobody knows whether this was done (" + row.ID +
		" in the audit trail): its form was sent before, and it may have been done then. Look " + look + ". Sent again now, it is refused: " + why}
}

func actPath(id string) string { return "/console/audit/" + id }

// refusedAct shows a refusal at the form, beside the field that it is about.
func (s *Server) refusedAct(v *visit, o *order, p *actPage, err error) error {
	var f *fault
	var r *ledger.Refusal
	if !errors.As(err, &f) && !errors.As(err, &r) {
		return err
	}
	status, body := s.explain(v.call, err)
	at := ""
	if body.Param != nil {
		at = *body.Param
	}
	p.Error = body.Message
	for _, field := range o.fields {
		if field.Name == at {
			field.Error, p.Error = body.Message, ""
		}
	}
	return s.refuseAct(v, p, status)
}

func (s *Server) refuseAct(v *visit, p *actPage, status int) error {
	return s.show(v, status, "act", pages.Frame{Title: p.Title, Data: p})
}
