package stripesim

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
)

// page is a list answer.
type page struct {
	Data    []any  `json:"data"`
	HasMore bool   `json:"has_more"`
	Object  string `json:"object"`
	URL     string `json:"url"`
}

// window holds a list call's common parameters.
type window struct {
	limit         int64
	after, before string
	created       map[string]int64
}

func (c *call) window(withCreated bool) window {
	w := window{limit: 10, after: c.params.str("starting_after"), before: c.params.str("ending_before")}
	if n, ok := c.integer("limit"); ok {
		w.limit = n
		if n < 1 || n > 100 {
			c.fail(badRequest("parameter_invalid_integer", "limit", "Invalid integer: limit must be between 1 and 100"))
		}
	}
	if w.after != "" && w.before != "" {
		c.fail(badRequest("", "ending_before", "You can only specify one of these parameters: ending_before, starting_after."))
	}
	if !withCreated || !c.has("created") {
		return w
	}
	w.created = map[string]int64{}
	if _, exact := c.tree["created"].(string); exact {
		n, _ := c.integer("created")
		w.created["gte"], w.created["lte"] = n, n
		return w
	}
	if h := c.hash("created"); h != nil {
		for _, op := range []string{"gt", "gte", "lt", "lte"} {
			if n, ok := h.integer(op); ok {
				w.created[op] = n
			}
		}
	}
	return w
}

func (w *window) admits(created int64) bool {
	for op, n := range w.created {
		switch {
		case op == "gt" && created <= n, op == "gte" && created < n, op == "lt" && created >= n, op == "lte" && created > n:
			return false
		}
	}
	return true
}

// list answers the rows that keep selects, newest first. ending_before gives
// the page that ends just before the cursor, that is, its next newer
// neighbours.
func list[T any](c *call, t *table[T], w window, kind string, created func(*T) int64, keep func(*T) bool) (any, *apiError) {
	if err := c.done(); err != nil {
		return nil, err
	}
	var ids []string
	for _, id := range slices.Backward(t.Order) {
		row := t.Rows[id]
		if w.admits(created(row)) && keep(row) {
			ids = append(ids, id)
		}
	}
	cursor := w.after + w.before
	at := slices.Index(ids, cursor)
	if cursor != "" && at < 0 {
		name := "starting_after"
		if w.before != "" {
			name = "ending_before"
		}
		return nil, noSuchParam(kind, cursor, name)
	}
	p := page{Object: "list", URL: c.path, Data: []any{}}
	limit := int(w.limit)
	switch {
	case w.before != "":
		newer := ids[:at]
		p.HasMore = len(newer) > limit
		ids = newer[max(0, len(newer)-limit):]
	default:
		rest := ids
		if w.after != "" {
			rest = ids[at+1:]
		}
		p.HasMore = len(rest) > limit
		ids = rest[:min(limit, len(rest))]
	}
	for _, id := range ids {
		p.Data = append(p.Data, c.wire(t.Rows[id]))
	}
	return p, nil
}

// wire is the form in which a row is answered, where it is not the row itself.
func (c *call) wire(row any) any {
	switch v := row.(type) {
	case *customer:
		if v.Deleted {
			return deleted{ID: v.ID, Object: "customer", Deleted: true}
		}
	case *event:
		return c.eventWire(v)
	case *endpoint:
		return v.shown(false)
	}
	return row
}

type deleted struct {
	ID      string `json:"id"`
	Object  string `json:"object"`
	Deleted bool   `json:"deleted"`
}

// render encodes an answer with the asked-for ids replaced by their objects.
func (c *call) render(v any, expand []string) ([]byte, *apiError) {
	v = c.wire(v)
	if len(expand) == 0 {
		return pretty(v), nil
	}
	m := toMap(v)
	for _, path := range expand {
		if !c.expandIn(m, strings.Split(path, ".")) {
			return nil, badRequest("", "expand", "This property cannot be expanded (%s).", path)
		}
	}
	return pretty(m), nil
}

func (c *call) expandIn(m map[string]any, path []string) bool {
	v, ok := m[path[0]]
	if !ok && path[0] == "line_items" && m["object"] == "checkout.session" {
		id, _ := m["id"].(string)
		v, ok = c.lineItemsOf(id), true
		m[path[0]] = v
	}
	if !ok {
		return false
	}
	switch inner := v.(type) {
	case nil:
		return true
	case []any:
		for i, e := range inner {
			if id, isID := e.(string); isID {
				inner[i] = c.expanded(id)
			}
			if em, isMap := inner[i].(map[string]any); isMap && len(path) > 1 && !c.expandIn(em, path[1:]) {
				return false
			}
		}
		return true
	case string:
		object := c.expanded(inner)
		if object == nil {
			return false
		}
		m[path[0]] = object
		return len(path) == 1 || c.expandIn(object, path[1:])
	case map[string]any:
		return len(path) == 1 || c.expandIn(inner, path[1:])
	}
	return false
}

func (c *call) expanded(id string) map[string]any {
	if row := c.find(id); row != nil {
		return toMap(c.wire(row))
	}
	return nil
}

// find looks an object up by its id alone; nil when there is none.
func (s *Sim) find(id string) any {
	st := s.state
	prefix, _, _ := strings.Cut(id, "_")
	lookups := map[string]func() any{
		"cus": func() any { return orNil(st.Customers.get(id)) }, "cbtxn": func() any { return orNil(st.BalanceTransactions.get(id)) },
		"pm": func() any { return orNil(st.PaymentMethods.get(id)) }, "seti": func() any { return orNil(st.SetupIntents.get(id)) },
		"pi": func() any { return orNil(st.PaymentIntents.get(id)) }, "ch": func() any { return orNil(st.Charges.get(id)) },
		"py": func() any { return orNil(st.Charges.get(id)) }, "re": func() any { return orNil(st.Refunds.get(id)) },
		"dp": func() any { return orNil(st.Disputes.get(id)) }, "in": func() any { return orNil(st.Invoices.get(id)) },
		"ii": func() any { return orNil(st.InvoiceItems.get(id)) }, "cn": func() any { return orNil(st.CreditNotes.get(id)) },
		"prod": func() any { return orNil(st.Products.get(id)) }, "price": func() any { return orNil(st.Prices.get(id)) },
		"cs": func() any { return orNil(st.Sessions.get(id)) }, "we": func() any { return orNil(st.Endpoints.get(id)) },
		"evt": func() any { return orNil(st.Events.get(id)) }, "sub": func() any { return orNil(st.Subscriptions.get(id)) },
	}
	if f := lookups[prefix]; f != nil {
		return f()
	}
	return nil
}

// orNil turns a nil pointer into a nil interface.
func orNil[T any](p *T) any {
	if p == nil {
		return nil
	}
	return p
}

// raw is JSON kept as it was rendered.
type raw = json.RawMessage

func compact(v any) raw {
	return bytes.Clone(encode(v))
}
