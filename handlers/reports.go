package handlers

import (
	"bytes"
	"encoding/csv"
	"net/http"
	"time"

	"lockstep/ledger"
)

type revenueRowJSON struct {
	Period   string `json:"period"`
	Currency string `json:"currency"`
	Kind     string `json:"kind"`
	Opening  string `json:"opening"`
	Sold     string `json:"sold"`
	Earned   string `json:"earned"`
	Breakage string `json:"breakage"`
	Refunded string `json:"refunded"`
	Closing  string `json:"closing"`
}

// slowAnswer is how long an answer may take that has much of the books read.
const slowAnswer = 10 * time.Minute

// takeTime lets this answer take longer than others may.
func (c *call) takeTime() {
	_ = http.NewResponseController(c.w).SetWriteDeadline(time.Now().Add(slowAnswer)) // a server without deadlines has none to lift
}

// revenueColumns are those of the report as CSV, in order.
var revenueColumns = []string{"period", "currency", "kind", "opening", "sold", "earned", "breakage", "refunded", "closing"}

// getRevenue answers the report on the month so far, or on the stretch that is asked for.
func (s *Server) getRevenue(c *call) error {
	to := s.Ledger.Now()
	from := time.Date(to.Year(), to.Month(), 1, 0, 0, 0, 0, time.UTC)
	for name, at := range map[string]*time.Time{"from": &from, "to": &to} {
		if !c.query.Has(name) {
			continue
		}
		asked := c.query.Get(name)
		t, err := when(name, &asked)
		if err != nil {
			return err
		}
		*at = t.UTC()
	}
	format := c.query.Get("format")
	if c.query.Has("format") && format != "json" && format != "csv" {
		return invalid("format", "format is json or csv")
	}
	c.takeTime()
	rows, err := s.Ledger.Revenue(c.ctx(), from, to)
	if err != nil {
		return err
	}
	if format == "csv" {
		return c.sendRevenueCSV(rows)
	}
	shown := make([]revenueRowJSON, len(rows))
	for i, r := range rows {
		shown[i] = revenueRowJSON{r.Period, r.Currency, r.Kind, r.Opening.String(), r.Sold.String(), r.Earned.String(),
			r.Breakage.String(), r.Refunded.String(), r.Closing.String()}
	}
	return c.reply(http.StatusOK, struct {
		Object string           `json:"object"`
		From   string           `json:"from"`
		To     string           `json:"to"`
		Rows   []revenueRowJSON `json:"rows"`
	}{"revenue_report", stamp(from), stamp(to), shown})
}

func (c *call) sendRevenueCSV(rows []ledger.RevenueRow) error {
	var b bytes.Buffer // at most a row for each month, currency and kind
	w := csv.NewWriter(&b)
	lines := [][]string{revenueColumns}
	for _, r := range rows {
		lines = append(lines, []string{r.Period, r.Currency, r.Kind, r.Opening.String(), r.Sold.String(), r.Earned.String(),
			r.Breakage.String(), r.Refunded.String(), r.Closing.String()})
	}
	if err := w.WriteAll(lines); err != nil {
		return err
	}
	c.done = true
	c.w.Header()["Content-Type"] = []string{"text/csv; charset=utf-8"}
	c.w.WriteHeader(http.StatusOK)
	_, _ = c.w.Write(b.Bytes())
	return nil
}
