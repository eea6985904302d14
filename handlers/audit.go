package handlers

import (
	"encoding/json"
	"net/http"
	"net/url"

	"lockstep/handlers/pages"
	"lockstep/ledger"
)

// onPage is how many rows a list of the console shows at once.
const onPage = 50

// listPage is a page of a list: where it begins, and where the next one does.
type listPage struct {
	First string // the address of the list's first page; "" on it
	Next  string // of the next page; "" on the last
}

// pageOf cuts what was read, one more than fits, to a page, and says where it goes on. id names the row after which it does.
func (v *visit) pageOf(read int, id func(i int) string) (n int, p listPage) {
	n = min(read, onPage)
	at := func(after string) string {
		q := url.Values{}
		for name, values := range v.query {
			if name != "after" && values[0] != "" {
				q[name] = values
			}
		}
		if after != "" {
			q.Set("after", after)
		}
		if len(q) == 0 {
			return v.r.URL.Path
		}
		return v.r.URL.Path + "?" + q.Encode()
	}
	if v.query.Get("after") != "" {
		p.First = at("")
	}
	if read > onPage {
		p.Next = at(id(n - 1))
	}
	return n, p
}

// ask is a value of the page's query, bounded.
func (v *visit) ask(name string) (string, error) {
	s := v.query.Get(name)
	return s, text(name, s, maxText)
}

// asked reads several of them.
func (v *visit) asked(into map[string]*string) (err error) {
	for name, s := range into {
		if *s, err = v.ask(name); err != nil {
			return err
		}
	}
	return nil
}

// actions are all names of acts, for the filter of the trail. Whoever adds an act adds it here.
var actions = append([]option{
	{"grant", "Give credit"}, {"void_grant", "Void a grant"}, {"adjust", "Adjust"}, {"reverse", "Reverse a debit"},
	{"freeze", "Freeze"}, {"unfreeze", "Unfreeze"}, {"pause_rule", "Pause a rule"}, {"resume_rule", "Resume a rule"},
	{"charge", "Charge now"}, {"repair", "Repair"},
}, officeActs...)

// actionName is an act's name in words.
func actionName(action string) string {
	for _, o := range actions {
		if o.Value == action {
			return o.Label
		}
	}
	return action
}

type auditPage struct {
	Acts    []auditRow
	Page    listPage
	Filter  ledger.ActFilter
	Actions []option
}

type auditRow struct {
	ledger.Act
	Name string
}

func (s *Server) showAudit(v *visit) error {
	p := auditPage{Actions: actions}
	after := ""
	if err := v.asked(map[string]*string{"after": &after, "customer": &p.Filter.Customer, "action": &p.Filter.Action, "operator": &p.Filter.Operator}); err != nil {
		return err
	}
	p.Filter.Unknown = v.query.Get("unknown") != ""
	acts, err := s.Ledger.Acts(v.ctx(), p.Filter, after, onPage+1)
	if err != nil {
		return err
	}
	n, page := v.pageOf(len(acts), func(i int) string { return acts[i].ID })
	p.Page = page
	for _, a := range acts[:n] {
		p.Acts = append(p.Acts, auditRow{a, actionName(a.Action)})
	}
	return s.show(v, http.StatusOK, "audit", pages.Frame{Title: "Audit trail", Data: p})
}

type actShown struct {
	auditRow
	Plan   plan
	Object string // where what it was done to is shown; "" for nowhere
	Result string // the same of what it made
}

// showAct is one act of the trail; who has just acted is sent here.
func (s *Server) showAct(v *visit) error {
	a, found, err := s.Ledger.Act(v.ctx(), v.r.PathValue("id"))
	if err != nil {
		return err
	}
	if !found {
		return &ledger.Refusal{Code: ledger.CodeNotFound, Message: "No such act: '" + brief(v.r.PathValue("id")) + "'"}
	}
	p := actShown{auditRow: auditRow{a, actionName(a.Action)}, Object: placeOf(a.Object), Result: placeOf(a.Result)}
	if err := json.Unmarshal([]byte(a.Shown), &p.Plan); err != nil {
		return err
	}
	return s.show(v, http.StatusOK, "audit_act", pages.Frame{Title: p.Name, Data: p})
}
