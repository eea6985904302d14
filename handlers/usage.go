package handlers

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"

	"lockstep/ledger"
)

// usageEvent is one debit as it is asked for.
type usageEvent struct {
	Customer       *string           `json:"customer"`
	Asset          *string           `json:"asset"`
	Amount         *string           `json:"amount"`
	Feature        *string           `json:"feature"`
	Quantity       *string           `json:"quantity"`
	IdempotencyKey *string           `json:"idempotency_key"`
	Metadata       map[string]string `json:"metadata"`

	said [6]string // what the fields above point to where they were read by a reader
}

// debit turns the event into what the ledger takes. key is what the event's own key falls back to.
func (s *Server) debit(c *call, e *usageEvent, key string) (ledger.DebitInput, error) {
	in := ledger.DebitInput{Customer: deref(e.Customer), Asset: deref(e.Asset)}
	if in.Customer == "" {
		return in, missing("customer")
	}
	if err := filled(field{"asset", e.Asset}, field{"idempotency_key", e.IdempotencyKey}); err != nil {
		return in, err
	}
	if err := texts("customer", in.Customer, "asset", in.Asset); err != nil {
		return in, err
	}
	asset := in.Asset
	cost, err := s.cost(c, e.Amount, e.Feature, e.Quantity, asset)
	if err != nil {
		return in, err
	}
	in.Amount, in.Rated = cost.amount, cost.rated
	if in.Rated != nil {
		in.Asset = in.Rated.Asset
	} else if in.Amount.Digits <= 0 {
		return in, invalid("amount", "amount must be above zero")
	}
	if in.Metadata, err = metadata(e.Metadata); err != nil {
		return in, err
	}
	if e.IdempotencyKey != nil {
		key = *e.IdempotencyKey
	}
	if err := text("idempotency_key", key, maxKey); err != nil {
		return in, err
	}
	if key != "" {
		in.Once = ledger.Once{Key: key, Request: ledger.Fingerprint(append([]string{"debit", in.Customer, asset, in.Metadata}, cost.asked...)...)}
	}
	return in, nil
}

// cost is what usage costs: the amount that the caller said, or what the rate card says of a feature.
type cost struct {
	amount ledger.Decimal
	rated  *ledger.Rated
	asked  []string // what was asked for: the same request costs what it cost the first time
}

func (s *Server) cost(c *call, said, feature, quantity *string, asset string) (cost, error) {
	switch {
	case feature == nil && quantity != nil:
		return cost{}, missing("feature")
	case feature == nil:
		d, err := amount("amount", said)
		return cost{d, nil, []string{d.String()}}, err
	case said != nil:
		return cost{}, invalid("amount", "give amount, or feature and quantity, not both")
	}
	q, err := amount("quantity", quantity)
	if err != nil {
		return cost{}, err
	}
	if err := texts("feature", *feature); err != nil {
		return cost{}, err
	}
	r, err := s.Ledger.Rate(c.ctx(), *feature, q, asset)
	return cost{r.Amount, &r, []string{"feature", *feature, q.String()}}, err
}

func (s *Server) postUsage(c *call) error {
	body, err := c.read(maxBody)
	if err != nil {
		return err
	}
	var e usageEvent
	if err := decodeEvent(string(body), &e); err != nil {
		return err
	}
	key, err := c.key(e.IdempotencyKey)
	if err != nil {
		return err
	}
	in, err := s.debit(c, &e, key)
	if err != nil {
		return err
	}
	d, replayed, err := s.Ledger.Debit(c.ctx(), in)
	s.metrics.debit(err)
	if err != nil {
		return err
	}
	if replayed {
		c.w.Header()["Idempotent-Replayed"] = []string{"true"}
	}
	return c.send(http.StatusOK, append(appendDebit(make([]byte, 0, 512), &d), '\n'))
}

// maxEvents bounds a batch.
const maxEvents = 1000

func (s *Server) postUsageBatch(c *call) error {
	body, err := c.read(maxBody)
	if err != nil {
		return err
	}
	events, err := batchOf(string(body))
	if err != nil {
		return err
	}
	key, err := c.key(nil)
	if err != nil {
		return err
	}
	return s.once(c, key, ledger.BucketOfKey(key), []string{string(body)}, func(ledger.Once) (int, any, error) {
		answer, failed := s.bookBatch(c, events, key)
		if failed > 0 {
			return http.StatusOK, unkept(answer), nil
		}
		return http.StatusOK, answer, nil
	})
}

// batchEvent is one event of a batch, or what is wrong with it.
type batchEvent struct {
	usageEvent
	err error
}

// batchOf reads the events of a batch. A bad envelope is an error; a bad event is its own.
func batchOf(body string) ([]batchEvent, error) {
	if events, ok := plainBatch(body); ok {
		return events, nil
	}
	var in struct {
		Events []json.RawMessage `json:"events"`
	}
	if err := decodeJSON([]byte(body), &in); err != nil {
		return nil, err
	}
	switch {
	case in.Events == nil:
		return nil, missing("events")
	case len(in.Events) == 0:
		return nil, invalid("events", "events is empty")
	case len(in.Events) > maxEvents:
		return nil, invalid("events", "events has "+strconv.Itoa(len(in.Events))+" events; at most "+strconv.Itoa(maxEvents)+" go in one batch")
	}
	events := make([]batchEvent, len(in.Events))
	for i, raw := range in.Events {
		events[i].err = decodeEvent(string(raw), &events[i].usageEvent)
	}
	return events, nil
}

// bookBatch books events, each of which stands alone. Under a key of the whole batch each event without
// one of its own gets one from its place, so that a batch that was cut off books nothing twice. failed counts the events
// that were refused for now: the same batch, sent again, books them and answers the others as before.
func (s *Server) bookBatch(c *call, events []batchEvent, batchKey string) (answer json.RawMessage, failed int) {
	outcomes := make([]ledger.DebitResult, len(events))
	inputs, places := make([]ledger.DebitInput, 0, len(events)), make([]int, 0, len(events))
	for i := range events {
		e := &events[i]
		var in ledger.DebitInput
		if e.err == nil {
			key := ""
			if batchKey != "" {
				key = "batch:" + strconv.FormatInt(ledger.Fingerprint(batchKey), 36) + ":" + strconv.Itoa(i)
			}
			in, e.err = s.debit(c, &e.usageEvent, key)
		}
		if e.err != nil {
			outcomes[i].Err = e.err
			continue
		}
		inputs, places = append(inputs, in), append(places, i)
	}
	for j, r := range s.Ledger.Debits(c.ctx(), inputs) {
		outcomes[places[j]] = r
	}
	data := make([]byte, 0, 512*len(outcomes))
	accepted := 0
	for i := range outcomes {
		if i > 0 {
			data = append(data, ',')
		}
		o := &outcomes[i]
		s.metrics.debit(o.Err)
		if o.Err == nil {
			accepted++
			data = appendDebit(data, &o.Debit)
			continue
		}
		status, b := s.explain(c, o.Err)
		if status >= 500 || status == http.StatusTooManyRequests {
			if failed++; failed == 1 {
				s.complain("event of a batch failed", "request", c.id, "event", i, "error", o.Err)
			}
		}
		one, err := json.Marshal(map[string]errorBody{"error": b})
		if err != nil { // errorBody has nothing that can't be encoded
			one = []byte(`{"error":{"type":"api_error","code":"unavailable"}}`)
		}
		data = append(data, one...)
	}
	body := append([]byte(`{"object":"usage_batch","accepted":`), strconv.Itoa(accepted)...)
	body = append(append(body, `,"rejected":`...), strconv.Itoa(len(outcomes)-accepted)...)
	return append(append(append(body, `,"data":[`...), data...), "]}\n"...), failed
}

// appendDebit writes a debit's JSON by hand: it is written once for each usage event, and again, to the
// byte, for a replay.
func appendDebit(b []byte, d *ledger.Debit) []byte {
	b = append(append(b, `{"object":"debit","id":"`...), d.ID...)
	b = appendString(append(b, `","customer":`...), d.Customer)
	b = append(append(b, `,"wallet":"`...), d.Wallet...)
	b = append(ledger.AppendSteps(append(b, `","amount":"`...), d.Amount, d.Scale), `","parts":[`...)
	for i, p := range d.Parts {
		if i > 0 {
			b = append(b, ',')
		}
		if p.Grant == "" {
			b = append(b, `{"grant":null`...)
		} else {
			b = append(append(append(b, `{"grant":"`...), p.Grant...), '"')
		}
		b = append(ledger.AppendSteps(append(b, `,"amount":"`...), p.Amount, d.Scale), `"}`...)
	}
	b = appendBalance(append(b, `],"balance":`...), d.Balance, d.Scale)
	b = appendString(append(b, `,"reason":`...), d.Reason)
	b = d.CreatedAt.AppendFormat(append(b, `,"created_at":"`...), "2006-01-02T15:04:05.000000Z")
	b = append(b, '"')
	if d.Feature != "" {
		b = appendString(append(b, `,"feature":`...), d.Feature)
		b = append(append(b, `,"feature_version":`...), strconv.Itoa(d.FeatureVersion)...)
		b = append(append(append(b, `,"quantity":"`...), d.Quantity...), '"')
	}
	b = append(b, `,"metadata":`...)
	if d.Metadata == "" {
		return append(b, `{}}`...)
	}
	return append(append(b, d.Metadata...), '}')
}

func appendBalance(b []byte, bal ledger.Balance, scale int16) []byte {
	for i, f := range [...]struct {
		name  string
		steps int64
	}{{`{"available":"`, bal.Available}, {`"held":"`, bal.Held}, {`"pending":"`, bal.Pending}, {`"total":"`, bal.Total}} {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(ledger.AppendSteps(append(b, f.name...), f.steps, scale), '"')
	}
	return append(b, '}')
}

// appendString writes s as JSON.
func appendString(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			quoted, err := encode(s)
			if err != nil { // a string always encodes
				return append(b, `""`...)
			}
			return append(b, bytes.TrimSuffix(quoted, []byte("\n"))...)
		}
	}
	return append(append(append(b, '"'), s...), '"')
}

func (s *Server) getDebit(c *call) error {
	d, err := s.Ledger.DebitByID(c.ctx(), c.r.PathValue("id"))
	if err != nil {
		return err
	}
	return c.send(http.StatusOK, append(appendDebit(nil, &d), '\n'))
}

func (s *Server) getCheck(c *call) error {
	q := c.query
	customer, asset := c.r.PathValue("customer"), q.Get("asset")
	if err := texts("customer", customer, "asset", asset); err != nil {
		return err
	}
	said := func(name string) *string {
		if v := q.Get(name); q.Has(name) {
			return &v
		}
		return nil
	}
	want, err := s.cost(c, said("amount"), said("feature"), said("quantity"), asset)
	if err != nil {
		return err
	}
	if want.amount.Digits < 0 {
		return invalid("amount", "amount can't be below zero")
	}
	if want.rated != nil {
		asset = want.rated.Asset
	}
	available, scale, err := s.Ledger.CanSpend(c.ctx(), customer, asset, want.amount)
	reason := `null}`
	var r *ledger.Refusal
	if errors.As(err, &r) && (r.Code == ledger.CodeInsufficient || r.Code == ledger.CodeFrozen) {
		reason = `"` + string(r.Code) + `"}`
	} else if err != nil {
		return err
	}
	b := strconv.AppendBool(append(make([]byte, 0, 128), `{"object":"check","allowed":`...), err == nil)
	b = append(ledger.AppendSteps(append(b, `,"available":"`...), available, scale), `","reason":`...)
	return c.send(http.StatusOK, append(append(b, reason...), '\n'))
}
