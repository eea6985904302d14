package handlers

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"lockstep/handlers/pages"
	"lockstep/ledger"
)

// entryView is an entry as its customer sees it.
type entryView struct {
	ledger.Entry
	Scale int16
	Asset string
	Said  string // its reason in words, where it has one that customers know, else as it was given
	Notes string // the caller's own: the feature, and metadata
}

// newEntryView says what an entry is about.
func newEntryView(l pages.Locale, e ledger.Entry, w *ledger.Wallet) entryView {
	v := entryView{Entry: e, Scale: w.Scale, Asset: w.Asset, Said: e.Reason}
	if key := "portal.reason." + e.Reason; l.Has(key) {
		v.Said = l.T(key)
	} else if e.Reason == e.Type {
		v.Said = ""
	}
	var notes []string
	if feature := e.Feature(); feature != "" {
		notes = append(notes, feature)
	}
	v.Notes = strings.Join(append(notes, metadataSaid(e.Metadata)...), ", ")
	return v
}

// metadataSaid is metadata as words.
func metadataSaid(metadata string) (said []string) {
	var pairs map[string]string
	if metadata == "" || json.Unmarshal([]byte(metadata), &pairs) != nil {
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(pairs)) {
		said = append(said, name+": "+pairs[name])
	}
	return said
}

// activityFilter reads what is asked of the list.
func (p *portalVisit) activityFilter() (f ledger.ActivityFilter, err error) {
	f.Type, f.Text = p.query.Get("type"), strings.TrimSpace(p.query.Get("q"))
	if f.Type != "" && !slices.Contains(ledger.EntryTypes, f.Type) {
		return f, p.missing(&ledger.Refusal{Code: ledger.CodeNotFound})
	}
	if before := p.query.Get("before"); before != "" {
		if f.Below, err = strconv.ParseInt(before, 10, 64); err != nil || f.Below < 1 {
			return f, p.missing(&ledger.Refusal{Code: ledger.CodeNotFound})
		}
	}
	return f, text("q", f.Text, 100)
}

// portalActivity lists the entries of a wallet.
func (s *Server) portalActivity(p *portalVisit) error {
	w, err := p.wallet()
	if err != nil {
		return err
	}
	f, err := p.activityFilter()
	if err != nil {
		return err
	}
	a, err := p.own.Activity(p.ctx(), &w, f, portalPage)
	if err != nil {
		return err
	}
	views := make([]entryView, len(a.Entries))
	for i, e := range a.Entries {
		views[i] = newEntryView(p.locale, e, &w)
	}
	query := url.Values{}
	if f.Type != "" {
		query.Set("type", f.Type)
	}
	if f.Text != "" {
		query.Set("q", f.Text)
	}
	here := "/portal/activity/" + w.ID
	csvAt, next := here+"/csv?"+query.Encode(), ""
	if a.Next > 0 {
		query.Set("before", strconv.FormatInt(a.Next, 10))
		next = here + "?" + query.Encode()
	}
	return s.show(p.visit, http.StatusOK, "activity", pages.Frame{Title: p.locale.T("portal.activity.title"), Data: struct {
		Wallet   ledger.Wallet
		Entries  []entryView
		Types    []string
		Filter   ledger.ActivityFilter
		Filtered bool
		Looked   int64
		Gone     bool
		CSV      string
		Next     string
	}{w, views, ledger.EntryTypes, f, f.Type != "" || f.Text != "", a.Looked, a.Gone, csvAt, next}})
}

// A table of entries is written a page of the ledger's at a time, and ends after so many lines, which a spreadsheet takes.
const (
	csvPage  = 1000
	csvLines = 50_000
	csvTime  = 2 * bookTime // of reading: a search that finds nothing must not go through all that a wallet ever had
)

// portalCSV writes the entries that fit a filter, newest first, as RFC 4180 has it, with the API's own words and decimals.
func (s *Server) portalCSV(p *portalVisit) error {
	w, err := p.wallet()
	if err != nil {
		return err
	}
	f, err := p.activityFilter()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(p.ctx(), csvTime)
	defer cancel()
	first, err := p.own.Activity(ctx, &w, f, csvPage) // a refusal is a page, not half a table
	if err != nil {
		return err
	}
	p.done = true
	h := p.w.Header()
	h.Set("Content-Type", "text/csv; charset=utf-8")
	h.Set("Content-Disposition", `attachment; filename="activity-`+s.Ledger.Now().Format("2006-01-02")+`.csv"`)
	out := csv.NewWriter(p.w)
	out.UseCRLF = true
	_ = out.Write([]string{"time", "type", "amount", "balance", "asset", "reason", "feature", "metadata"})
	for a, lines := first, 0; ; {
		for _, e := range a.Entries {
			_ = out.Write([]string{stamp(e.CreatedAt), e.Type, ledger.FormatSteps(e.Amount, w.Scale), ledger.FormatSteps(e.BalanceAfter, w.Scale), w.Asset,
				noFormula(e.Reason), noFormula(e.Feature()), noFormula(e.Metadata)})
		}
		out.Flush()
		if lines += len(a.Entries); a.Next == 0 || lines >= csvLines || out.Error() != nil {
			return out.Error()
		}
		f.Below = a.Next
		if a, err = p.own.Activity(ctx, &w, f, csvPage); err != nil {
			panic(http.ErrAbortHandler) // what was sent is no whole table, and the browser is to know
		}
	}
}

// noFormula keeps a spreadsheet from taking a text that somebody chose for a formula.
func noFormula(s string) string {
	if s != "" && strings.ContainsRune("=+-@\t\r\n", rune(s[0])) {
		return "'" + s
	}
	return s
}

// grantView is a grant as its customer sees it.
type grantView struct {
	ledger.Grant
	Free  int64  // of what remains, not held
	Why   string // it comes before the next
	Given string // where it came from
}

// portalGrants lists what is left of a wallet, in the order in which it is spent.
func (s *Server) portalGrants(p *portalVisit) error {
	w, err := p.wallet()
	if err != nil {
		return err
	}
	after := p.query.Get("after")
	grants, err := p.own.Left(p.ctx(), &w, after, portalPage+1)
	if err = p.missing(err); err != nil {
		return err
	}
	views := make([]grantView, 0, portalPage)
	for i, g := range grants[:min(len(grants), portalPage)] {
		v := newGrantView(p.locale, g)
		if i+1 < len(grants) {
			v.Why = p.locale.T("portal.why." + before(&g, &grants[i+1]))
		}
		views = append(views, v)
	}
	next := ""
	if len(grants) > portalPage {
		next = grants[portalPage-1].ID
	}
	coming, err := p.own.Coming(p.ctx(), &w, portalPage)
	if err != nil {
		return err
	}
	later := make([]grantView, len(coming))
	for i, g := range coming {
		later[i] = newGrantView(p.locale, g)
	}
	return s.show(p.visit, http.StatusOK, "grants", pages.Frame{Title: p.locale.T("portal.grants.title"), Data: struct {
		Wallet ledger.Wallet
		Grants []grantView
		Coming []grantView
		Next   string
		First  bool
	}{w, views, later, next, after == ""}})
}

func newGrantView(l pages.Locale, g ledger.Grant) grantView {
	v := grantView{Grant: g, Free: g.Remaining - g.Held, Given: l.T("portal.kind." + g.Kind)}
	if key := "portal.reason." + g.Reason; l.Has(key) {
		v.Given = l.T(key)
	}
	return v
}

// before is by which rule a grant is spent before another that follows it in burn order.
func before(g, next *ledger.Grant) string {
	switch {
	case g.Priority != next.Priority:
		return "priority"
	case g.ExpiresAt != nil && (next.ExpiresAt == nil || !g.ExpiresAt.Equal(*next.ExpiresAt)):
		return "expiry"
	case g.Kind != next.Kind:
		return "kind"
	default:
		return "older"
	}
}
