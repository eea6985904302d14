package handlers

import (
	"bytes"
	"encoding/json"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"lockstep/handlers/pages"
	"lockstep/ledger"
	"lockstep/stripeutil"
)

type inboxPage struct {
	Events       []inboxRow
	Page         listPage
	Status, Type string
	Statuses     []option
	Types        []string
	Failed       bool // there is one that failed
}

type inboxRow struct {
	ledger.InboxEvent
	Word string
}

// inboxStatus is how an event from Stripe stands, in words.
var inboxStatus = map[string]string{"pending": "waiting", "done": "done", "ignored": "kept only", "failed": "failed"}

func (s *Server) showInbox(v *visit) error {
	var p inboxPage
	for _, status := range []string{"pending", "failed", "done", "ignored"} {
		p.Statuses = append(p.Statuses, option{status, inboxStatus[status]})
	}
	after := ""
	err := v.asked(map[string]*string{"after": &after, "status": &p.Status, "type": &p.Type})
	if err != nil {
		return err
	}
	events, err := s.Ledger.Inbox(v.ctx(), ledger.InboxFilter{Status: p.Status, Type: p.Type}, after, onPage+1)
	if err != nil {
		return err
	}
	n, page := v.pageOf(len(events), func(i int) string { return events[i].ID })
	p.Page = page
	for _, e := range events[:n] {
		p.Events = append(p.Events, inboxRow{e, inboxStatus[e.Status]})
	}
	if p.Types, err = s.Ledger.InboxTypes(v.ctx()); err != nil {
		return err
	}
	failed, err := s.Ledger.Inbox(v.ctx(), ledger.InboxFilter{Status: "failed"}, "", 1)
	if err != nil {
		return err
	}
	p.Failed = len(failed) > 0
	return s.show(v, http.StatusOK, "stripe_events", pages.Frame{Title: "Stripe events", Data: p})
}

type inboxEventPage struct {
	inboxRow
	At       namedLink
	Says     string // what such an event does
	Customer string // ours, whose it is
	Links    []namedLink
	Traces   ledger.StripeTraces
	Payload  string
	Cut      bool // the payload goes on
	Replay   bool
}

// eventEffects say what an event of Stripe's does to the books, by how its type begins; the longest that fits speaks.
var eventEffects = []option{
	{"payment_intent.", "Settles the top-up that the payment belongs to: paid, failed, or waiting for the customer."},
	{"customer.updated", "Follows the customer's name, address and default card, which may arm a rule that waits for a card, and looks at the balance in Stripe."},
	{"customer.deleted", "Closes the customer's account here: nothing is charged or spent any more."},
	{"charge.", "Takes back the credit of a refunded or disputed payment, or gives it back when the money came back after all."},
	{"refund.", "Takes back the credit of a refunded payment, or gives it back when the refund failed."},
	{"credit_note.", "Takes back the credit of what a credit note gave back."},
	{"invoice.paid", "Gives the credit that the invoice's lines sell, or settles the top-up that the invoice is of."},
	{"invoice.", "Settles the top-up that the invoice is of, and gives back what a voided invoice had used."},
	{"payment_method.", "Follows a card that was renewed or taken away, which may arm or pause a rule."},
	{"checkout.session.", "Gives the credit that was bought on Stripe's page, settles its top-up, or ends it where the page expired; saves a card."},
}

func effectOf(e *ledger.InboxEvent, live bool) string {
	if e.Livemode != live {
		return "Nothing: it is of Stripe's other mode, test or live, than this service."
	}
	if _, known := effects[e.Type]; !known {
		return "Nothing: events of this type say nothing to Lockstep. It is kept only."
	}
	says := ""
	for _, o := range eventEffects {
		if strings.HasPrefix(e.Type, o.Value) && (says == "" || o.Value == e.Type) {
			says = o.Label
		}
	}
	return says
}

func (s *Server) inboxEvent(v *visit) (ledger.InboxEvent, error) {
	id := v.r.PathValue("id")
	if err := texts("id", id); err != nil {
		return ledger.InboxEvent{}, err
	}
	return s.Ledger.InboxEvent(v.ctx(), id)
}

func (s *Server) showInboxEvent(v *visit) error {
	e, err := s.inboxEvent(v)
	if err != nil {
		return err
	}
	p := inboxEventPage{inboxRow: inboxRow{e, inboxStatus[e.Status]}, At: s.namedLink("Event", e.ID), Says: effectOf(&e, s.Stripe.Livemode())}
	_, known := effects[e.Type]
	p.Replay = known && e.Livemode == s.Stripe.Livemode()
	p.Payload, p.Cut = shownPayload(e.Payload)
	if parsed, err := stripeutil.ParseEvent([]byte(e.Payload)); err == nil {
		if err := s.traceEvent(v, parsed, &p); err != nil {
			return err
		}
	}
	return s.show(v, http.StatusOK, "stripe_event", pages.Frame{Title: "Stripe event", Data: p})
}

// traceEvent finds what the books have of the objects that an event is about.
func (s *Server) traceEvent(v *visit, e stripeutil.Event, p *inboxEventPage) error {
	ids, customer := objectsOf(e.Object)
	for _, id := range ids {
		if !strings.HasPrefix(id, "top_") {
			p.Links = append(p.Links, s.namedLink("", id))
		}
	}
	if customer == "" {
		return nil
	}
	if !slices.Contains(ids, customer) {
		p.Links = append(p.Links, s.namedLink("", customer))
	}
	ref, err := s.Ledger.Resolve(v.ctx(), customer)
	if ledger.IsCode(err, ledger.CodeNotFound) {
		return nil // a customer whom we don't know
	}
	if err != nil {
		return err
	}
	p.Customer = ref.ID
	p.Traces, err = s.Ledger.TracesOf(v.ctx(), ref, ids)
	return err
}

// objectsOf are the ids that Stripe's object names of what the ledger may know, its own first, and its customer's.
func objectsOf(object []byte) (ids []string, customer string) {
	var o map[string]json.RawMessage
	if json.Unmarshal(object, &o) != nil {
		return nil, ""
	}
	id := func(name string) string { // written as an id, or as the object itself
		var s string
		var whole struct {
			ID string `json:"id"`
		}
		if json.Unmarshal(o[name], &s) != nil && json.Unmarshal(o[name], &whole) == nil {
			s = whole.ID
		}
		if len(s) > 255 {
			return ""
		}
		return s
	}
	for _, name := range []string{"id", "payment_intent", "invoice", "charge", "subscription"} {
		if s := id(name); s != "" && !slices.Contains(ids, s) {
			ids = append(ids, s)
		}
	}
	var metadata map[string]string
	if json.Unmarshal(o["metadata"], &metadata) == nil && strings.HasPrefix(metadata[TopupMetadata], "top_") && len(metadata[TopupMetadata]) < 100 {
		ids = append(ids, metadata[TopupMetadata])
	}
	if customer = id("customer"); customer == "" && len(ids) > 0 && strings.HasPrefix(ids[0], "cus_") {
		customer = ids[0]
	}
	return ids, customer
}

// payloadShown bounds how many bytes of a payload a page has.
const payloadShown = 64 << 10

var (
	secretField = regexp.MustCompile(`(?i)("[^"]*(?:secret|password|token|api_key)[^"]*": )"(?:[^"\\]|\\.)*"`)
	secretValue = regexp.MustCompile(`(_secret_|\b(?:sk|rk|lsk|whsec)_)[A-Za-z0-9_+/=-]+`)
)

// shownPayload is JSON as a person reads it, without what would let its reader act: secrets of payments and keys. A long
// one is cut after a line.
func shownPayload(payload string) (shown string, cut bool) {
	var b bytes.Buffer
	if json.Indent(&b, []byte(payload), "", "  ") == nil {
		payload = b.String()
	}
	if len(payload) > payloadShown {
		end := strings.LastIndexByte(payload[:payloadShown], '\n')
		payload, cut = strings.ToValidUTF8(payload[:max(end, 0)], ""), true
	}
	payload = secretField.ReplaceAllString(payload, `$1"(hidden)"`)
	return secretValue.ReplaceAllString(payload, `$1(hidden)`), cut
}

func (s *Server) replayOrder(v *visit) (*order, error) {
	e, err := s.inboxEvent(v)
	if err != nil {
		return nil, err
	}
	return &order{action: "replay_event", title: "Work an event off again", verb: "Work it off again", object: e.ID, back: "/console/stripe_events/" + e.ID,
		plan: func() (p plan, err error) {
			if _, known := effects[e.Type]; !known || e.Livemode != s.Stripe.Livemode() {
				return p, &fault{http.StatusConflict, "conflict", string(ledger.CodeState), "", effectOf(&e, s.Stripe.Livemode())}
			}
			p.say("The event " + e.ID + " (" + e.Type + ") is worked off again, within a second or so. What it did before is not done twice.")
			p.say(effectOf(&e, s.Stripe.Livemode()))
			p.move("Status", inboxStatus[e.Status], inboxStatus["pending"])
			return p, nil
		},
		do: func(ledger.Once) (d deed, err error) {
			_, err = s.Ledger.Replay(v.ctx(), []string{e.ID})
			s.wakeInbox(err)
			d.said = "The event waits to be worked off. Its page shows what comes of it."
			return d, err
		}}, nil
}

func (s *Server) replayFailedOrder(v *visit) (*order, error) {
	return &order{action: "replay_failed", title: "Work all failed events off again", verb: "Work them off again", back: "/console/stripe_events?status=failed",
		plan: func() (p plan, err error) {
			const most = 1000
			failed, err := s.Ledger.Inbox(v.ctx(), ledger.InboxFilter{Status: "failed"}, "", most)
			if err != nil {
				return p, err
			}
			if len(failed) == 0 {
				return p, &fault{http.StatusConflict, "conflict", string(ledger.CodeState), "", "No event has failed: there is nothing to do."}
			}
			n := "All " + strconv.Itoa(len(failed)) + " events that failed are"
			switch len(failed) {
			case 1:
				n = "The one event that failed is"
			case most:
				n = "All events that failed, a thousand or more, are"
			}
			p.say(n + " worked off again, one after the other. What they did before is not done twice.")
			return p, nil
		},
		do: func(ledger.Once) (d deed, err error) {
			n, err := s.Ledger.Replay(v.ctx(), nil)
			s.wakeInbox(err)
			d.said = strconv.FormatInt(n, 10) + " events wait to be worked off."
			if n == 1 {
				d.said = "One event waits to be worked off."
			}
			return d, err
		}}, nil
}

// wakeInbox has what was put back worked off now.
func (s *Server) wakeInbox(err error) {
	if err == nil && s.EventStored != nil {
		s.EventStored()
	}
}
