package ledger

import (
	"context"
	"time"
)

// EndpointHealth is how it goes with an endpoint.
type EndpointHealth struct {
	FailingSince *time.Time `db:"failing_since"` // the first failure since anything was taken; nil: the last try succeeded
	Waiting      int        `db:"waiting"`       // deliveries on their way to it; healthMost where there are as many or more
	Tries        int        `db:"tries"`         // of the last healthTries, how many were made
	Succeeded    int        `db:"succeeded"`     // and went through
	LastAt       *time.Time `db:"last_at"`       // the last try
	LastCode     *int       `db:"last_code"`
	LastError    string     `db:"last_error"`
}

// How much is looked at for an endpoint's health.
const (
	healthMost  = 1000
	healthTries = 100
)

// EndpointHealths answers how it goes with each endpoint.
func (l *Ledger) EndpointHealths(ctx context.Context) (map[string]EndpointHealth, error) {
	var rows []struct {
		ID string `db:"id"`
		EndpointHealth
	}
	err := l.db.SelectContext(ctx, &rows, `select e.id, e.failing_since, d.waiting, a.tries, a.succeeded, one.created_at as last_at,
			one.status_code as last_code, coalesce(one.error, '') as last_error
		from webhook_endpoints e
		cross join lateral (select count(*) as waiting from (
			select from deliveries where endpoint_id = e.id and status = 'pending' limit $1) d) d
		cross join lateral (select count(*) as tries, count(*) filter (where succeeded) as succeeded from (
			select succeeded from delivery_attempts where endpoint_id = e.id order by id desc limit $2) a) a
		left join lateral (select created_at, status_code, error from delivery_attempts where endpoint_id = e.id order by id desc limit 1) one on true`,
		healthMost, healthTries)
	health := make(map[string]EndpointHealth, len(rows))
	for _, r := range rows {
		health[r.ID] = r.EndpointHealth
	}
	return health, err
}

// EventDelivery is where an event is on its way to one endpoint.
type EventDelivery struct {
	Endpoint string    `db:"endpoint_id"`
	Status   string    `db:"status"` // pending, delivered, failed
	Attempts int       `db:"attempts"`
	RunAt    time.Time `db:"run_at"` // when it is tried next, where it is pending
}

// EventDeliveries answers where an event is on its way to each endpoint, and the last tries of it all, newest first.
func (l *Ledger) EventDeliveries(ctx context.Context, e *Event) (on []EventDelivery, tries []Attempt, err error) {
	if err := l.db.SelectContext(ctx, &on, `select endpoint_id, status, attempts, run_at from deliveries
		where bucket = $1 and event_id = $2 order by endpoint_id`, e.Bucket, e.ID); err != nil {
		return nil, nil, err
	}
	err = l.db.SelectContext(ctx, &tries, `select id, endpoint_id, event_id, event_type, attempt, succeeded, status_code, error, response,
			duration_ms, next_at, created_at from delivery_attempts
		where bucket = $1 and event_id = $2 order by id desc limit 100`, e.Bucket, e.ID)
	return on, tries, err
}
