package ledger

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"net/url"
	"slices"
	"strings"
	"time"
)

// Endpoint is a receiver of the merchant's, to which events are POSTed.
type Endpoint struct {
	ID             string     `db:"id"`
	URL            string     `db:"url"`
	EventList      string     `db:"events"` // comma-separated types, or *
	Description    string     `db:"description"`
	Metadata       string     `db:"metadata"`
	Status         string     `db:"status"` // enabled, disabled
	DisabledReason *string    `db:"disabled_reason"`
	Secret         string     `db:"secret"`
	OldSecret      *string    `db:"old_secret"`
	OldSecretUntil *time.Time `db:"old_secret_until"`
	CreatedAt      time.Time  `db:"created_at"`
}

const endpointColumns = `id, url, events, description, metadata, status, disabled_reason, secret, old_secret, old_secret_until, created_at`

// Why an endpoint is disabled.
const (
	DisabledManual  = "manual"  // by a call
	DisabledGone    = "gone"    // it answered 410
	DisabledFailing = "failing" // it has taken nothing for days
)

// Limits on endpoints.
const (
	maxEndpoints   = 20
	maxEndpointURL = 500
)

// secretLife is how long a secret signs beside the one that has replaced it.
const secretLife = 24 * time.Hour

// Events are the types that the endpoint takes; "*" is all.
func (e *Endpoint) Events() []string { return strings.Split(e.EventList, ",") }

// EndpointInput makes an endpoint, or, with nil for what stays as it is, changes one.
type EndpointInput struct {
	URL          *string
	Events       []string
	Description  *string
	Metadata     *string
	Status       *string
	AllowPrivate bool // http and private addresses are fine
}

// Check refuses what no endpoint can be.
func (in *EndpointInput) Check() error { return in.apply(&Endpoint{}) }

func (in *EndpointInput) apply(e *Endpoint) error {
	if in.URL != nil {
		if err := checkURL(*in.URL, in.AllowPrivate); err != nil {
			return err
		}
		e.URL = *in.URL
	}
	if in.Events != nil {
		if err := checkEvents(in.Events); err != nil {
			return err
		}
		e.EventList = strings.Join(in.Events, ",")
	}
	if in.Description != nil {
		e.Description = *in.Description
	}
	if in.Metadata != nil {
		e.Metadata = *in.Metadata
	}
	if in.Status == nil {
		return nil
	}
	switch *in.Status {
	case "enabled":
		e.DisabledReason = nil
	case "disabled":
		if e.Status != "disabled" {
			e.DisabledReason = ref(DisabledManual)
		}
	default:
		return refuse(CodeInvalid, "status", "status is enabled or disabled")
	}
	e.Status = *in.Status
	return nil
}

// checkURL refuses what can't be a receiver. Whether its address is a public one is looked at when it is
// connected to: a name may mean another one by then.
func checkURL(s string, allowPrivate bool) error {
	u, err := url.Parse(s)
	switch {
	case len(s) > maxEndpointURL:
		return refuse(CodeInvalid, "url", "url is longer than %d bytes", maxEndpointURL)
	case err != nil || u.Hostname() == "" || u.Opaque != "":
		return refuse(CodeInvalid, "url", "url must be one such as https://example.com/webhooks")
	case u.Scheme != "https" && !(u.Scheme == "http" && allowPrivate):
		return refuse(CodeInvalid, "url", "url must begin with https://")
	case u.User != nil:
		return refuse(CodeInvalid, "url", "url can't carry a user or password: what is sent is signed instead")
	case u.Fragment != "":
		return refuse(CodeInvalid, "url", "url can't have a fragment: it is never sent")
	}
	return nil
}

func checkEvents(types []string) error {
	if len(types) == 0 {
		return refuse(CodeInvalid, "events", `events is empty: name types, or "*" for all`)
	}
	for i, one := range types {
		switch {
		case one == "*" && len(types) > 1:
			return refuse(CodeInvalid, "events", `"*" is all types: nothing stands beside it`)
		case one != "*" && !slices.Contains(EventTypes, one):
			return refuse(CodeInvalid, "events", "there is no event %.60q; there are %s", one, strings.Join(EventTypes, ", "))
		case slices.Contains(types[:i], one):
			return refuse(CodeInvalid, "events", "%s is named twice", one)
		}
	}
	return nil
}

// newSecret makes a signing secret as Standard Webhooks writes them.
func newSecret() string {
	var random [32]byte
	_, _ = rand.Read(random[:]) // never fails since Go 1.24
	return "whsec_" + base64.StdEncoding.EncodeToString(random[:])
}

// CreateEndpoint makes an endpoint, with its secret.
func (l *Ledger) CreateEndpoint(ctx context.Context, in EndpointInput, once Once) (Endpoint, error) {
	switch {
	case in.URL == nil:
		return Endpoint{}, refuse(CodeMissing, "url", "url is missing")
	case in.Events == nil:
		return Endpoint{}, refuse(CodeMissing, "events", `events is missing: name types, or "*" for all`)
	}
	e := Endpoint{Status: "enabled", Metadata: "{}"}
	if err := in.apply(&e); err != nil {
		return Endpoint{}, err
	}
	id := ""
	err := l.inTx(ctx, func(t *tx) (err error) {
		var replayed bool
		if id, replayed, err = t.claim(once, l.ids.newID("whk_", 0, t.now)); err != nil || replayed {
			return err
		}
		if err := t.exec(`lock table webhook_endpoints in share row exclusive mode`); err != nil { // so that the count holds
			return err
		}
		var n int
		if _, err := t.get(&n, `select count(*) from webhook_endpoints`); err != nil {
			return err
		}
		if n >= maxEndpoints {
			return refuse(CodeState, "", "there are %d webhook endpoints, which is the most: delete one first", n)
		}
		return t.exec(`insert into webhook_endpoints (id, url, events, description, metadata, status, disabled_reason, secret, created_at)
			values ($1, $2, $3, $4, $5, $6, $7, $8, $9)`, id, e.URL, e.EventList, e.Description, e.Metadata, e.Status, e.DisabledReason, newSecret(), t.now)
	})
	if err != nil {
		return Endpoint{}, err
	}
	return l.EndpointByID(ctx, id)
}

func noEndpoint(id string) error {
	return refuse(CodeNotFound, "webhook_endpoint", "No such webhook endpoint: '%s'", id)
}

// EndpointByID finds an endpoint.
func (l *Ledger) EndpointByID(ctx context.Context, id string) (Endpoint, error) {
	var e Endpoint
	found, err := l.getRow(ctx, &e, `select `+endpointColumns+` from webhook_endpoints where id = $1`, id)
	if err == nil && !found {
		err = noEndpoint(id)
	}
	return e, err
}

// Endpoints lists all endpoints, newest first.
func (l *Ledger) Endpoints(ctx context.Context) ([]Endpoint, error) {
	var endpoints []Endpoint
	err := l.db.SelectContext(ctx, &endpoints, `select `+endpointColumns+` from webhook_endpoints order by id desc`)
	return endpoints, err
}

// lockEndpoint takes the endpoint's row lock: before any row of its deliveries.
func (t *tx) lockEndpoint(id string) (e Endpoint, err error) {
	found, err := t.get(&e, `select `+endpointColumns+` from webhook_endpoints where id = $1 for update`, id)
	if err == nil && !found {
		err = noEndpoint(id)
	}
	return e, err
}

// ChangeEndpoint changes an endpoint. Disabled, nothing more is sent to it; enabled again, it has a clean slate.
func (l *Ledger) ChangeEndpoint(ctx context.Context, id string, in EndpointInput) (Endpoint, error) {
	var e Endpoint
	err := l.inTx(ctx, func(t *tx) (err error) {
		if e, err = t.lockEndpoint(id); err != nil {
			return err
		}
		was := e.Status
		if err := in.apply(&e); err != nil {
			return err
		}
		if err := t.exec(`update webhook_endpoints set url = $2, events = $3, description = $4, metadata = $5, status = $6,
			disabled_reason = $7, failing_since = case when $8 then null else failing_since end where id = $1`,
			id, e.URL, e.EventList, e.Description, e.Metadata, e.Status, e.DisabledReason, e.Status != was); err != nil {
			return err
		}
		if e.Status == was || e.Status == "enabled" {
			return nil
		}
		return t.stopDeliveries(id)
	})
	return e, err
}

// stopDeliveries ends all that is on its way to an endpoint.
func (t *tx) stopDeliveries(endpoint string) error {
	return t.exec(`update deliveries set status = 'failed', lease_until = null where endpoint_id = $1 and status = 'pending'`, endpoint)
}

// disable disables an endpoint whose answers ask for it.
func (t *tx) disable(endpoint, reason string) error {
	if err := t.exec(`update webhook_endpoints set status = 'disabled', disabled_reason = $2 where id = $1 and status = 'enabled'`, endpoint, reason); err != nil {
		return err
	}
	return t.stopDeliveries(endpoint)
}

// DeleteEndpoint deletes an endpoint with all that is on its way to it.
func (l *Ledger) DeleteEndpoint(ctx context.Context, id string) error {
	return l.inTx(ctx, func(t *tx) error {
		if _, err := t.lockEndpoint(id); err != nil {
			return err
		}
		if err := t.exec(`delete from webhook_endpoints where id = $1`, id); err != nil {
			return err
		}
		return t.stopDeliveries(id)
	})
}

// RotateSecret gives an endpoint a new secret. The one that it had signs beside it for a day.
func (l *Ledger) RotateSecret(ctx context.Context, id string, once Once) (Endpoint, error) {
	err := l.inTx(ctx, func(t *tx) error {
		if _, replayed, err := t.claim(once, id); err != nil || replayed {
			return err
		}
		if _, err := t.lockEndpoint(id); err != nil {
			return err
		}
		return t.exec(`update webhook_endpoints set old_secret = secret, old_secret_until = $2, secret = $3 where id = $1`,
			id, t.now.Add(secretLife), newSecret())
	})
	if err != nil {
		return Endpoint{}, err
	}
	return l.EndpointByID(ctx, id)
}
