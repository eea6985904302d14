package handlers

import (
	"encoding/csv"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"lockstep/handlers/pages"
	"lockstep/ledger"
)

// stretch is the months that a report or an export is of.
type stretch struct {
	From, To string // months, the last one included: 2026-01
	from, to time.Time
	Error    string
}

// Query is the stretch as a query's parameters.
func (p stretch) Query() string { return url.Values{"from": {p.From}, "to": {p.To}}.Encode() }

const month = "2006-01"

// months reads the stretch that is asked for; without one it is the month that is.
func (s *Server) months(v *visit) (p stretch, err error) {
	now := s.Ledger.Now().UTC()
	if err = v.asked(map[string]*string{"from": &p.From, "to": &p.To}); err != nil {
		return p, err
	}
	if p.From == "" {
		p.From = now.Format(month)
	}
	if p.To == "" {
		p.To = max(now.Format(month), p.From)
	}
	var wrong [2]error
	p.from, wrong[0] = time.Parse(month, p.From)
	p.to, wrong[1] = time.Parse(month, p.To)
	switch {
	case errors.Join(wrong[:]...) != nil || p.from.Year() < 1970:
		p.Error = "Write months such as 2026-01."
	case p.to.Before(p.from):
		p.Error = "The last month comes before the first."
	}
	p.to = p.to.AddDate(0, 1, 0)
	return p, nil
}

type booksPage struct {
	Months       stretch
	Shortcuts    []shortcut
	Report       *reportPart // nil: fetched after
	Verification verification
}

type shortcut struct{ Name, Query string }

type reportPart struct {
	Months stretch
	Rows   []ledger.RevenueRow
	At     time.Time
	Error  string
}

func (s *Server) books(v *visit) (p booksPage, err error) {
	if p.Months, err = s.months(v); err != nil {
		return p, err
	}
	now := s.Ledger.Now().UTC()
	first := time.Date(now.Year(), now.Month(), 1, 0, 0, 0, 0, time.UTC)
	add := func(name string, from, to time.Time) {
		p.Shortcuts = append(p.Shortcuts, shortcut{name, stretch{From: from.Format(month), To: to.Format(month)}.Query()})
	}
	add("This month", first, first)
	add("Last month", first.AddDate(0, -1, 0), first.AddDate(0, -1, 0))
	add("This year", time.Date(now.Year(), 1, 1, 0, 0, 0, 0, time.UTC), first)
	add("Last twelve months", first.AddDate(0, -11, 0), first)
	p.Verification, err = s.verification(v)
	return p, err
}

// showBooks shows what costs nothing; the report, which has much of the books read, is fetched after.
func (s *Server) showBooks(v *visit) error {
	p, err := s.books(v)
	if err != nil {
		return err
	}
	status := http.StatusOK
	if p.Months.Error != "" {
		status, p.Report = http.StatusBadRequest, &reportPart{Months: p.Months}
	}
	return s.show(v, status, "books", pages.Frame{Title: "Books", Data: p})
}

// showReport is the report: a part of the page, which fetches it, or for a browser without scripts the page with it.
func (s *Server) showReport(v *visit) error {
	months, err := s.months(v)
	if err != nil {
		return err
	}
	part := &reportPart{Months: months}
	status := http.StatusOK
	if months.Error == "" {
		part.Rows, part.At, err = s.revenue(v, months)
		var r *ledger.Refusal
		if errors.As(err, &r) {
			part.Error, err, status = r.Message, nil, http.StatusBadRequest
		}
		if err != nil {
			return err
		}
	}
	if v.r.Header.Get("HX-Request") != "" {
		return s.show(v, http.StatusOK, "books#report", pages.Frame{Data: part})
	}
	p, err := s.books(v)
	if err != nil {
		return err
	}
	p.Report = part
	v.r.URL.Path = "/console/books" // for the mark in the menu
	return s.show(v, status, "books", pages.Frame{Title: "Books", Data: p})
}

// reportCache keeps reports for a moment: whoever pages to and fro does not have the books read each time.
type reportCache struct {
	mu   sync.Mutex
	kept map[string]keptReport
}

type keptReport struct {
	rows []ledger.RevenueRow
	at   time.Time
}

const (
	reportLife  = 30 * time.Second
	mostReports = 32
)

func (s *Server) revenue(v *visit, p stretch) ([]ledger.RevenueRow, time.Time, error) {
	c := &s.reports
	c.mu.Lock()
	kept, ok := c.kept[p.Query()]
	c.mu.Unlock()
	if now := s.Ledger.Now(); ok && now.Sub(kept.at) < reportLife {
		return kept.rows, kept.at, nil
	}
	v.takeTime()
	at := s.Ledger.Now()
	rows, err := s.Ledger.Revenue(v.ctx(), p.from, p.to)
	if err != nil {
		return nil, at, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.kept == nil || len(c.kept) >= mostReports {
		c.kept = make(map[string]keptReport)
	}
	c.kept[p.Query()] = keptReport{rows, at}
	return rows, at, nil
}

// download says that what follows is a file.
func (v *visit) download(name string) {
	v.w.Header().Set("Content-Disposition", `attachment; filename="`+name+`"`)
}

func (s *Server) downloadRevenue(v *visit) error {
	p, err := s.months(v)
	if err == nil && p.Error != "" {
		err = invalid("from", p.Error)
	}
	if err != nil {
		return err
	}
	rows, _, err := s.revenue(v, p)
	if err != nil {
		return err
	}
	v.download("revenue-" + p.From + "-to-" + p.To + ".csv")
	return v.sendRevenueCSV(rows)
}

// exportNumbers are the columns of an export that are numbers, which may begin with a minus.
var exportNumbers = strings.Fields(`seq amount held balance_after held_after pending_after used_after request`)

// forSpreadsheet keeps a spreadsheet from taking a cell of an export for a formula: people who open this file by a click
// open it in one. The command's is for programs, and is what the books say to the byte.
func forSpreadsheet(record []string) []string {
	for i, column := range ExportColumns {
		if !slices.Contains(exportNumbers, column) {
			record[i] = noFormula(record[i])
		}
	}
	return record
}

// downloadEntries sends the entries of some months as they are read. One that fails on the way is cut off, so that nobody
// takes half of it for whole.
func (s *Server) downloadEntries(v *visit) error {
	p, err := s.months(v)
	if err == nil && p.Error != "" {
		err = invalid("from", p.Error)
	}
	if err != nil {
		return err
	}
	if !s.exporting.CompareAndSwap(false, true) { // each holds a connection and a snapshot for as long as it takes
		return &fault{http.StatusConflict, "conflict", string(ledger.CodeState), "", "Another export is on its way. Try again when it is done."}
	}
	defer s.exporting.Store(false)
	v.takeTime()
	begun, n := false, 0
	w := csv.NewWriter(v.w)
	begin := func() error {
		begun, v.done = true, true
		v.download("entries-" + p.From + "-to-" + p.To + ".csv")
		v.w.Header().Set("Content-Type", "text/csv; charset=utf-8")
		return w.Write(ExportColumns)
	}
	err = s.Ledger.Export(v.ctx(), ledger.ExportInput{From: &p.from, To: &p.to}, func(int64, int64) {}, func(e *ledger.ExportedEntry) error {
		if n++; !begun {
			if err := begin(); err != nil {
				return err
			}
		}
		return w.Write(forSpreadsheet(ExportRecord(e)))
	})
	if err == nil && !begun {
		err = begin()
	}
	if err == nil {
		w.Flush()
		err = w.Error()
	}
	s.Log.Info("console: entries exported", "operator", v.operator.Name, "key", v.operator.KeyID, "from", p.From, "to", p.To, "entries", n, "whole", err == nil)
	if err != nil && begun {
		panic(http.ErrAbortHandler)
	}
	return err
}
