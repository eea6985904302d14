package handlers

import (
	"fmt"
	"net/http"
	"strings"
	"time"

	"lockstep/handlers/pages"
	"lockstep/ledger"
)

type endpointsPage struct{ Endpoints []endpointRow }

type endpointRow struct {
	ledger.Endpoint
	ledger.EndpointHealth
	Word   string     // how it goes with it
	Kind   string     // of badge
	Why    string     // it is disabled
	Types  []string   // that it takes
	Signed *time.Time // until when its old secret signs too; nil: it has none
}

// whyDisabled is why an endpoint is disabled, in words.
var whyDisabled = map[string]string{ledger.DisabledManual: "an operator, or a call, disabled it", ledger.DisabledGone: "it answered 410: it wants nothing any more",
	ledger.DisabledFailing: "it has taken nothing for days"}

func (s *Server) endpointRow(e ledger.Endpoint, h ledger.EndpointHealth) endpointRow {
	row := endpointRow{Endpoint: e, EndpointHealth: h, Word: "works", Kind: "good", Types: e.Events()}
	if e.OldSecret != nil && e.OldSecretUntil.After(s.Ledger.Now()) {
		row.Signed = e.OldSecretUntil
	}
	switch {
	case e.Status != "enabled":
		row.Word, row.Kind, row.Why = "disabled", "", whyDisabled[deref(e.DisabledReason)]
	case h.FailingSince != nil:
		row.Word, row.Kind = "failing", "bad"
	case h.LastAt == nil:
		row.Word, row.Kind = "nothing sent yet", "note"
	case h.Succeeded < h.Tries:
		row.Word, row.Kind = "works, with failures", "warn"
	}
	return row
}

func (s *Server) showEndpoints(v *visit) error {
	endpoints, err := s.Ledger.Endpoints(v.ctx()) // twenty at most
	if err != nil {
		return err
	}
	health, err := s.Ledger.EndpointHealths(v.ctx())
	if err != nil {
		return err
	}
	var p endpointsPage
	for _, e := range endpoints {
		p.Endpoints = append(p.Endpoints, s.endpointRow(e, health[e.ID]))
	}
	return s.show(v, http.StatusOK, "webhooks", pages.Frame{Title: "Webhooks", Data: p})
}

type endpointPage struct {
	endpointRow
	Attempts []ledger.Attempt
	Page     listPage
}

func (s *Server) showEndpoint(v *visit) error {
	e, err := s.endpoint(v.call)
	if err != nil {
		return err
	}
	health, err := s.Ledger.EndpointHealths(v.ctx())
	if err != nil {
		return err
	}
	after, err := v.ask("after")
	if err != nil {
		return err
	}
	attempts, err := s.Ledger.Attempts(v.ctx(), e.ID, after, onPage+1)
	if err != nil {
		return err
	}
	p := endpointPage{endpointRow: s.endpointRow(e, health[e.ID])}
	n, page := v.pageOf(len(attempts), func(i int) string { return attempts[i].ID })
	p.Attempts, p.Page = attempts[:n], page
	return s.show(v, http.StatusOK, "webhook", pages.Frame{Title: "Webhook endpoint", Data: p})
}

type eventsPage struct {
	Events         []toldOf
	Page           listPage
	Type, Customer string
	CustomerError  string
	Types          []option
}

func eventOptions() (all []option) {
	for _, t := range ledger.EventTypes {
		all = append(all, option{t, t + ": " + eventWords[t]})
	}
	return all
}

func (s *Server) showEvents(v *visit) error {
	p := eventsPage{Types: eventOptions()}
	after := ""
	err := v.asked(map[string]*string{"after": &after, "type": &p.Type, "customer": &p.Customer})
	if err != nil {
		return err
	}
	var ref ledger.Ref
	status := http.StatusOK
	if p.Customer != "" {
		var c ledger.Customer
		c, err = s.Ledger.Customer(v.ctx(), p.Customer)
		ref = c.Ref
		if ledger.IsCode(err, ledger.CodeNotFound) {
			p.CustomerError, err, status = "There is no such customer.", nil, http.StatusNotFound
		}
	}
	var events []ledger.Event
	if err == nil && p.CustomerError == "" {
		events, err = s.Ledger.Events(v.ctx(), ref, p.Type, after, onPage+1)
	}
	if err != nil {
		return err
	}
	n, page := v.pageOf(len(events), func(i int) string { return events[i].ID })
	p.Page = page
	for _, e := range events[:n] {
		p.Events = append(p.Events, toldOf{e, eventWords[e.Type]})
	}
	return s.show(v, status, "events", pages.Frame{Title: "Events sent out", Data: p})
}

type eventPage struct {
	toldOf
	On      []ledger.EventDelivery
	Tries   []ledger.Attempt
	URLs    map[string]string // of endpoints that there are
	Payload string
	Cut     bool
}

func (s *Server) showEvent(v *visit) error {
	e, err := s.Ledger.EventByID(v.ctx(), v.r.PathValue("id"))
	if err != nil {
		return err
	}
	p := eventPage{toldOf: toldOf{e, eventWords[e.Type]}, URLs: make(map[string]string)}
	if p.On, p.Tries, err = s.Ledger.EventDeliveries(v.ctx(), &e); err != nil {
		return err
	}
	endpoints, err := s.Ledger.Endpoints(v.ctx())
	if err != nil {
		return err
	}
	for _, one := range endpoints {
		p.URLs[one.ID] = one.URL
	}
	body, err := EventBody(&e)
	if err != nil {
		return err
	}
	p.Payload, p.Cut = shownPayload(strings.TrimSpace(string(body)))
	return s.show(v, http.StatusOK, "event", pages.Frame{Title: "Event", Data: p})
}

// endpointFields are what is said of an endpoint.
func endpointFields(e *ledger.Endpoint) []*formField {
	events := append([]option{{"*", "All, also those that are yet to come"}}, eventOptions()...)
	return []*formField{
		{Name: "url", Label: "URL", Help: "Where events are sent by POST. It begins with https://.", Value: e.URL},
		{Name: "events", Label: "Events", Kind: "checks", Options: events, Value: e.EventList},
		{Name: "description", Label: "Description", Value: e.Description, Optional: true},
	}
}

// endpointSaid is what the form of an order says of an endpoint.
func (s *Server) endpointSaid(o *order) (ledger.EndpointInput, error) {
	url, description := o.value("url"), o.value("description")
	in := ledger.EndpointInput{URL: &url, Events: strings.Split(o.value("events"), ","), Description: &description, AllowPrivate: s.OutboundPrivate}
	return in, in.Check()
}

func inAll(events string) string {
	if events == "*" {
		return "all events"
	}
	return strings.ReplaceAll(events, ",", ", ")
}

// secretShown shows a signing secret to whoever has just made it.
type secretShown struct{ Title, What, Secret, Note, Back, BackName string }

func (s *Server) newEndpointOrder(v *visit) (*order, error) {
	var made ledger.Endpoint
	o := &order{action: "create_endpoint", keyed: true, title: "Add a webhook endpoint", verb: "Add the endpoint", back: "/console/webhooks", fields: endpointFields(&ledger.Endpoint{EventList: "*"})}
	o.plan = func() (p plan, err error) {
		if _, err = s.endpointSaid(o); err != nil {
			return p, err
		}
		p.say("From now on " + inAll(o.value("events")) + " will be sent to " + o.value("url") + ".")
		p.say("Its signing secret is shown once, right after.")
		return p, nil
	}
	o.do = func(once ledger.Once) (d deed, err error) {
		in, err := s.endpointSaid(o)
		if err != nil {
			return d, err
		}
		once.Bucket = ledger.BucketOfKey(once.Key)
		if made, err = s.Ledger.CreateEndpoint(v.ctx(), in, once); err != nil {
			return d, err
		}
		return deed{said: "The endpoint takes " + inAll(made.EventList) + ".", result: made.ID}, nil
	}
	o.reveal = func() (string, pages.Frame) { return secretPage(&made, "The endpoint was added") }
	return o, nil
}

// secretPage shows an endpoint's signing secret; of none it is no page.
func secretPage(e *ledger.Endpoint, title string) (string, pages.Frame) {
	if e.Secret == "" {
		return "", pages.Frame{}
	}
	return "secret", pages.Frame{Title: title, Data: secretShown{title, "Signing secret", e.Secret,
		"Keep it where the receiver finds it: it shows that what it gets came from here. It is not shown again; it can be replaced by another.",
		"/console/webhooks/" + e.ID, "The endpoint"}}
}

func (s *Server) editEndpointOrder(v *visit) (*order, error) {
	e, err := s.endpoint(v.call)
	if err != nil {
		return nil, err
	}
	o := &order{action: "change_endpoint", title: "Change a webhook endpoint", verb: "Change the endpoint", object: e.ID, back: "/console/webhooks/" + e.ID, fields: endpointFields(&e)}
	o.plan = func() (p plan, err error) {
		if _, err = s.endpointSaid(o); err != nil {
			return p, err
		}
		for _, one := range []struct{ what, before, after string }{{"URL", e.URL, o.value("url")}, {"Events", inAll(e.EventList), inAll(o.value("events"))},
			{"Description", e.Description, o.value("description")}} {
			if one.before != one.after {
				p.move(one.what, one.before, one.after)
			}
		}
		if p.Moves == nil {
			p.say("Nothing: this is what it is now.")
		} else {
			p.say("It changes for what is sent from now on, tries of earlier events too. Its secret stays.")
		}
		return p, nil
	}
	o.do = func(ledger.Once) (d deed, err error) {
		in, err := s.endpointSaid(o)
		if err == nil {
			_, err = s.Ledger.ChangeEndpoint(v.ctx(), e.ID, in)
		}
		d.said = "The endpoint was changed."
		return d, err
	}
	return o, nil
}

func (s *Server) disableEndpointOrder(v *visit) (*order, error) {
	return s.statusOrder(v, "disable_endpoint", "Disable a webhook endpoint", "Disable the endpoint", "disabled",
		"Nothing more is sent to it. What is on its way to it now is given up; it can be sent again, event by event.", "The endpoint is disabled.")
}

func (s *Server) enableEndpointOrder(v *visit) (*order, error) {
	return s.statusOrder(v, "enable_endpoint", "Enable a webhook endpoint", "Enable the endpoint", "enabled",
		"Events that happen from now on are sent to it. What happened while it was disabled is not, unless it is sent again, event by event.", "The endpoint is enabled.")
}

func (s *Server) statusOrder(v *visit, action, title, verb, status, says, said string) (*order, error) {
	e, err := s.endpoint(v.call)
	if err != nil {
		return nil, err
	}
	return &order{action: action, title: title, verb: verb, danger: status == "disabled", object: e.ID, back: "/console/webhooks/" + e.ID,
		plan: func() (p plan, err error) {
			if e.Status == status {
				return p, &fault{http.StatusConflict, "conflict", string(ledger.CodeState), "", "It is " + status + " already."}
			}
			p.say(says)
			p.move(e.URL, e.Status, status)
			return p, nil
		},
		do: func(ledger.Once) (deed, error) {
			_, err := s.Ledger.ChangeEndpoint(v.ctx(), e.ID, ledger.EndpointInput{Status: &status})
			return deed{said: said}, err
		}}, nil
}

func (s *Server) deleteEndpointOrder(v *visit) (*order, error) {
	e, err := s.endpoint(v.call)
	if err != nil && v.r.Method == http.MethodPost && ledger.IsCode(err, ledger.CodeNotFound) {
		e, err = ledger.Endpoint{ID: v.r.PathValue("id")}, nil // it was deleted by this very form
	}
	if err != nil {
		return nil, err
	}
	return &order{action: "delete_endpoint", removes: true, title: "Delete a webhook endpoint", verb: "Delete the endpoint", danger: true, object: e.ID, back: "/console/webhooks",
		plan: func() (p plan, err error) {
			if e, err = s.Ledger.EndpointByID(v.ctx(), e.ID); err != nil {
				return p, err
			}
			p.say("The endpoint " + e.URL + " is deleted, with its secret and all that is on its way to it. Its delivery log is kept for thirty days, but has no page any more.")
			return p, nil
		},
		do: func(ledger.Once) (deed, error) {
			err := s.Ledger.DeleteEndpoint(v.ctx(), e.ID)
			return deed{said: "The endpoint was deleted."}, err
		}}, nil
}

func (s *Server) rotateOrder(v *visit) (*order, error) {
	e, err := s.endpoint(v.call)
	if err != nil {
		return nil, err
	}
	var made ledger.Endpoint
	return &order{action: "rotate_secret", keyed: true, title: "Rotate a signing secret", verb: "Make another secret", object: e.ID, back: "/console/webhooks/" + e.ID,
		plan: func() (p plan, err error) {
			p.say("The endpoint " + e.URL + " gets another signing secret, which is shown once, right after.")
			p.say("For a day what is sent is signed with both, so that the receiver can be changed in peace.")
			if e.OldSecret != nil && e.OldSecretUntil.After(s.Ledger.Now()) {
				p.say("It was rotated less than a day ago: the secret from before that stops signing at once.")
			}
			return p, nil
		},
		do: func(once ledger.Once) (d deed, err error) {
			once.Bucket = ledger.BucketOfKey(once.Key)
			made, err = s.Ledger.RotateSecret(v.ctx(), e.ID, once)
			return deed{said: "The endpoint has another signing secret. The one before signs beside it for a day."}, err
		},
		reveal: func() (string, pages.Frame) { return secretPage(&made, "There is another signing secret") }}, nil
}

func (s *Server) resendOrder(v *visit) (*order, error) {
	e, err := s.Ledger.EventByID(v.ctx(), v.r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	endpoints, err := s.Ledger.Endpoints(v.ctx())
	if err != nil {
		return nil, err
	}
	to := &formField{Name: "endpoint", Label: "To", Kind: "select", Optional: true, Options: []option{{"", "Every endpoint that takes such events"}}}
	urls := make(map[string]string)
	for _, one := range endpoints {
		if urls[one.ID] = one.URL; one.Status == "enabled" {
			to.Options = append(to.Options, option{one.ID, one.URL})
		}
	}
	o := &order{action: "resend_event", keyed: true, title: "Send an event again", verb: "Send it again", customer: e.Customer, object: e.ID, back: "/console/events/" + e.ID, fields: []*formField{to}}
	o.plan = func() (p plan, err error) {
		where := "to every enabled endpoint that takes such events"
		if id := o.value("endpoint"); id != "" {
			if urls[id] == "" {
				return p, invalid("endpoint", "There is no such endpoint.")
			}
			where = "to " + urls[id]
		}
		p.say(fmt.Sprintf("The event %s (%s) is sent %s, under the same id and with the same content: a receiver that has it already can tell.", e.ID, e.Type, where))
		return p, nil
	}
	o.do = func(once ledger.Once) (deed, error) {
		err := s.Ledger.Resend(v.ctx(), e, o.value("endpoint"), once)
		return deed{said: "The event is on its way again. Its page shows what comes of it."}, err
	}
	return o, nil
}
