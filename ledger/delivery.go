package ledger

import (
	"context"
	"math/rand/v2"
	"strings"
	"time"
)

// An event goes out in steps, each safe to stop after:
//
//	event → commit → deliveries → commit → lease → POST → mark
//
// Killed after the event's commit: whoever lives finds it not fanned. After the deliveries': they are due. After the
// lease or the POST: the lease runs out and it is sent again, under the same id and with the same bytes.

// fanBatch bounds how many events one call of FanOut takes.
const fanBatch = 200

// FanOut writes the deliveries of events that have none yet, one for each enabled endpoint that takes the type, and
// answers how many events it took: fanBatch where there may be more.
func (l *Ledger) FanOut(ctx context.Context) (taken int, more bool, err error) {
	err = l.db.GetContext(ctx, &taken, `
		with e as (
			select bucket, id, type from events where not fanned order by id limit $1 for update skip locked
		), d as (
			insert into deliveries (bucket, event_id, endpoint_id, run_at, created_at)
			select e.bucket, e.id, w.id, $2, $2 from e join webhook_endpoints w
				on w.status = 'enabled' and (w.events = '*' or e.type = any(string_to_array(w.events, ',')))
			on conflict do nothing
		), f as (
			update events set fanned = true from e where events.bucket = e.bucket and events.id = e.id
		)
		select count(*) from e`, fanBatch, l.Now())
	if taken > 0 {
		wake(l.deliveries)
	}
	return taken, taken == fanBatch, err
}

// DeliveriesDue is told, without a count, when deliveries have fallen due.
func (l *Ledger) DeliveriesDue() <-chan struct{} { return l.deliveries }

// Due says that deliveries to an endpoint are due.
type Due struct {
	Endpoint   string `db:"id"`
	Deliveries int    `db:"deliveries"` // no more than was asked for
}

// DueDeliveries answers the enabled endpoints that deliveries are due to, counting no more than most of each.
func (l *Ledger) DueDeliveries(ctx context.Context, most int) ([]Due, error) {
	var due []Due
	err := l.db.SelectContext(ctx, &due, `
		select w.id, d.n as deliveries from webhook_endpoints w cross join lateral (
			select count(*) as n from (select from deliveries d where d.endpoint_id = w.id and d.status = 'pending' and d.run_at <= $1
				and (d.lease_until is null or d.lease_until <= $1) limit $2) due) d
		where w.status = 'enabled' and d.n > 0 order by w.id`, l.Now(), most)
	return due, err
}

// Delivery is an event on its way to an endpoint.
type Delivery struct {
	Event
	Endpoint       string     `db:"endpoint_id"`
	URL            string     `db:"url"`
	Secret         string     `db:"secret"`
	OldSecret      *string    `db:"old_secret"`
	OldSecretUntil *time.Time `db:"old_secret_until"`
	Attempt        int        `db:"attempts"` // 1 for the first
	Tries          int        `db:"tries"`    // where in the schedule it is: 1 for the first
}

// Secrets are those that sign the delivery now.
func (d *Delivery) Secrets(now time.Time) []string {
	secrets := []string{d.Secret}
	if d.OldSecret != nil && d.OldSecretUntil.After(now) {
		secrets = append(secrets, *d.OldSecret)
	}
	return secrets
}

// LeaseDelivery gives the caller one delivery to the endpoint that is due; found is false when there is none.
func (l *Ledger) LeaseDelivery(ctx context.Context, endpoint string) (d Delivery, found bool, err error) {
	now := l.Now()
	found, err = l.getRow(ctx, &d, `
		with d as (
			update deliveries set lease_until = $3, attempts = attempts + 1, tries = tries + 1
			where (bucket, event_id, endpoint_id) = (
				select bucket, event_id, endpoint_id from deliveries where endpoint_id = $1 and status = 'pending' and run_at <= $2
					and (lease_until is null or lease_until <= $2)
					and exists (select from webhook_endpoints where id = $1 and status = 'enabled')
				order by run_at limit 1 for update skip locked)
			returning bucket, event_id, endpoint_id, attempts, tries)
		select e.bucket, e.id, e.type, e.customer_id, e.wallet_id, e.data, e.created_at,
			d.endpoint_id, w.url, w.secret, w.old_secret, w.old_secret_until, d.attempts, d.tries
		from d join events e on e.bucket = d.bucket and e.id = d.event_id join webhook_endpoints w on w.id = d.endpoint_id`,
		endpoint, now, now.Add(Lease))
	return d, found, err
}

// schedule is how long after each failed try the next one comes: eleven tries in three days.
var schedule = []time.Duration{5 * time.Second, 30 * time.Second, 5 * time.Minute, 30 * time.Minute, 2 * time.Hour, 5 * time.Hour,
	10 * time.Hour, 14 * time.Hour, 20 * time.Hour, 24 * time.Hour}

// maxRetryAfter bounds how long an endpoint may ask to be left alone.
const maxRetryAfter = 24 * time.Hour

// waitAfter is how long to wait after that many tries that failed, the last of which asked for retryAfter; ok is
// false when the schedule has come to its end. A tenth more or less keeps what failed together from coming back
// together.
func waitAfter(tries int, retryAfter time.Duration) (wait time.Duration, ok bool) {
	if tries > len(schedule) {
		return 0, false
	}
	wait = schedule[tries-1]
	wait += time.Duration((rand.Float64() - 0.5) / 5 * float64(wait))
	return max(wait, min(retryAfter, maxRetryAfter)), true
}

// An endpoint that has taken nothing for failingFor is disabled, at a delivery's failingTries-th failure in a row or
// a later one: one bad minute after quiet days is not days of failing.
const (
	failingFor   = 5 * 24 * time.Hour
	failingTries = 4
)

// Tried is what came of one try of a delivery.
type Tried struct {
	Succeeded  bool
	Gone       bool          // the endpoint wants nothing any more
	StatusCode int           // 0: no answer came
	Error      string        // why it failed
	Response   string        // the start of the answer's body
	RetryAfter time.Duration // as the endpoint asked; 0: it did not
	Duration   time.Duration
}

// EndTry notes what came of a leased delivery and answers its outcome: delivered, retry, failed (for good), or
// disabled, with the endpoint.
func (l *Ledger) EndTry(ctx context.Context, d Delivery, r Tried) (outcome string, err error) {
	err = l.inTx(ctx, func(t *tx) error {
		var next *time.Time
		if outcome, next, err = t.endTry(&d, r); err != nil {
			return err
		}
		if err := t.exec(`insert into delivery_attempts (bucket, id, endpoint_id, event_id, event_type, attempt, succeeded, status_code,
				error, response, duration_ms, next_at, created_at)
			values ($1, $2, $3, $4, $5, $6, $7, nullif($8, 0), $9, $10, $11, $12, $13)`,
			d.Bucket, l.ids.newID("atm_", d.Bucket, t.now), d.Endpoint, d.ID, d.Type, d.Attempt, r.Succeeded, r.StatusCode,
			plain(r.Error), plain(r.Response), r.Duration.Milliseconds(), next, t.now); err != nil {
			return err
		}
		status := "failed"
		switch outcome {
		case "delivered":
			status = "delivered"
		case "retry":
			status = "pending"
		}
		// Whoever has leased it since, when our lease had run out, has the word.
		return t.exec(`update deliveries set status = $4, lease_until = null, run_at = coalesce($5, run_at)
			where bucket = $1 and event_id = $2 and endpoint_id = $3 and attempts = $6`,
			d.Bucket, d.ID, d.Endpoint, status, next, d.Attempt)
	})
	return outcome, err
}

// endTry decides what becomes of a delivery, and of its endpoint.
func (t *tx) endTry(d *Delivery, r Tried) (outcome string, next *time.Time, err error) {
	if r.Succeeded {
		return "delivered", nil, t.exec(`update webhook_endpoints set failing_since = null where id = $1 and failing_since is not null`, d.Endpoint)
	}
	var e struct {
		Status string    `db:"status"`
		Since  time.Time `db:"failing_since"`
	}
	found, err := t.get(&e, `update webhook_endpoints set failing_since = coalesce(failing_since, $2) where id = $1
		returning status, failing_since`, d.Endpoint, t.now)
	switch {
	case err != nil:
		return "", nil, err
	case !found || e.Status != "enabled":
		return "failed", nil, nil
	case r.Gone:
		return "disabled", nil, t.disable(d.Endpoint, DisabledGone)
	case d.Tries >= failingTries && t.now.Sub(e.Since) >= failingFor:
		return "disabled", nil, t.disable(d.Endpoint, DisabledFailing)
	}
	wait, again := waitAfter(d.Tries, r.RetryAfter)
	if !again {
		return "failed", nil, nil
	}
	at := t.now.Add(wait)
	return "retry", &at, nil
}

// plain is what of a text from outside the database takes.
func plain(s string) string {
	return strings.ToValidUTF8(strings.ReplaceAll(s, "\x00", ""), "\uFFFD")
}

// Attempt is one try of a delivery, as the log has it.
type Attempt struct {
	ID         string     `db:"id"`
	Endpoint   string     `db:"endpoint_id"`
	Event      string     `db:"event_id"`
	EventType  string     `db:"event_type"`
	Attempt    int        `db:"attempt"`
	Succeeded  bool       `db:"succeeded"`
	StatusCode *int       `db:"status_code"`
	Error      string     `db:"error"`
	Response   string     `db:"response"`
	DurationMS int        `db:"duration_ms"`
	NextAt     *time.Time `db:"next_at"`
	CreatedAt  time.Time  `db:"created_at"`
}

// Attempts lists an endpoint's delivery log, newest first.
func (l *Ledger) Attempts(ctx context.Context, endpoint, after string, limit int) ([]Attempt, error) {
	if _, ok := bucketOfID("atm_", after); after != "" && !ok {
		return nil, noneAfter(after)
	}
	var attempts []Attempt
	err := l.db.SelectContext(ctx, &attempts, `select id, endpoint_id, event_id, event_type, attempt, succeeded, status_code, error, response,
			duration_ms, next_at, created_at from delivery_attempts
		where endpoint_id = $1 and ($2 = '' or id < $2) order by id desc limit $3`, endpoint, after, limit)
	return attempts, err
}

// Resend sends an event anew: to one endpoint, whichever types that takes, or with "" to every enabled one that
// takes its type. One that has it on its way gets it now.
func (l *Ledger) Resend(ctx context.Context, e Event, endpoint string, once Once) error {
	once.Bucket = e.Bucket
	return l.inTx(ctx, func(t *tx) error {
		if _, replayed, err := t.claim(once, e.ID); err != nil || replayed {
			return err
		}
		if endpoint != "" {
			one, err := t.lockEndpoint(endpoint)
			if err != nil {
				return err
			}
			if one.Status != "enabled" {
				return refuse(CodeState, "endpoint", "webhook endpoint %s is disabled: enable it first", endpoint)
			}
		}
		res, err := t.ExecContext(ctx, `insert into deliveries (bucket, event_id, endpoint_id, run_at, created_at)
			select $1, $2, w.id, $5, $5 from webhook_endpoints w where w.status = 'enabled' and case when $4 = '' then
				w.events = '*' or $3 = any(string_to_array(w.events, ',')) else w.id = $4 end order by w.id
			on conflict (bucket, event_id, endpoint_id) do update set status = 'pending', run_at = excluded.run_at,
				tries = case when coalesce(deliveries.lease_until > $5, false) then deliveries.tries else 0 end`,
			e.Bucket, e.ID, e.Type, endpoint, t.now)
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil || n == 0 {
			return refuse(CodeState, "endpoint", "no enabled webhook endpoint takes %s: name one", e.Type)
		}
		t.sent = true
		return nil
	})
}
