package ledger

import (
	"context"
	"slices"
	"strconv"
	"time"
)

// TopupStatuses and TopupTriggers are all the words for how a top-up stands and for what called for it.
var (
	TopupStatuses = []string{"pending", "processing", "action_required", "succeeded", "failed", "canceled"}
	TopupTriggers = []string{"auto", "manual"}
)

// TopupFilter says which top-ups are listed; what is empty chooses nothing.
type TopupFilter struct {
	Customer        Ref
	Status, Trigger string
}

// ListTopups lists the top-ups that a filter lets through, newest first. A choice by status or trigger is looked up for each
// of the few pairs of the two, so that it costs the same whether one in two or one in a million is of it. A customer's are
// read in their order, for they are few.
func (l *Ledger) ListTopups(ctx context.Context, f TopupFilter, after string, limit int) ([]Topup, error) {
	if _, ok := bucketOfID("top_", after); after != "" && !ok {
		return nil, noneAfter(after)
	}
	statuses, triggers := TopupStatuses, TopupTriggers
	if f.Status != "" {
		statuses = []string{f.Status}
	}
	if f.Trigger != "" {
		triggers = []string{f.Trigger}
	}
	if !slices.Contains(TopupStatuses, statuses[0]) {
		return nil, refuse(CodeInvalid, "status", "there is no status %.60q", f.Status)
	}
	if !slices.Contains(TopupTriggers, triggers[0]) {
		return nil, refuse(CodeInvalid, "trigger", "there is no trigger %.60q", f.Trigger)
	}
	// What is known when the statement is written, the planner knows too.
	most := ` order by id desc limit ` + strconv.Itoa(limit)
	if after == "" {
		after = "~" // which comes after all ids
	}
	args := []any{after}
	var chosen string
	switch {
	case f.Customer.ID != "":
		chosen = `select bucket, id from topups where id < $1 and status = any($2::text[]) and trigger = any($3::text[]) and bucket = $4 and customer_id = $5`
		args = append(args, textArray(statuses), textArray(triggers), f.Customer.Bucket, f.Customer.ID)
	case f.Status == "" && f.Trigger == "":
		chosen = `select bucket, id from topups where id < $1`
	default:
		// The rows are compared as the index has them, for whoever looks for a rare status in the order of all ids looks long.
		chosen = `select t.bucket, t.id from unnest($2::text[]) s(status) cross join unnest($3::text[]) r(trigger) cross join lateral (
			select bucket, id from topups where (status, trigger, id) < (s.status, r.trigger, $1) and (status, trigger, id) >= (s.status, r.trigger, '')
			order by status desc, trigger desc, id desc limit ` + strconv.Itoa(limit) + `) t`
		args = append(args, textArray(statuses), textArray(triggers))
	}
	var tops []Topup
	err := l.db.SelectContext(ctx, &tops, `with chosen as (`+chosen+most+`)
		select `+topupColumns+topupsFrom+`join chosen on chosen.bucket = t.bucket and chosen.id = t.id order by t.id desc`, args...)
	return tops, err
}

// TopupStory is what the books know of a top-up beside its row.
type TopupStory struct {
	SettledAt *time.Time // when it came to its end
	RunAt     *time.Time // when it is looked at next; nil: not any more
	Grant     Grant
	Back      []TakenBack
	Events    []Event // what was told of it, the oldest first
	Paused    string  // why its wallet's rule is paused because of it; "" where it is not
}

// TakenBack is a refund, a dispute or a credit note, with what it took back of one grant.
type TakenBack struct {
	ID        string    `db:"id"`
	Kind      string    `db:"kind"`
	Amount    int64     `db:"amount"` // minor units
	Currency  string    `db:"currency"`
	Status    string    `db:"status"` // Stripe's word
	Stands    bool      `db:"stands"`
	Steps     int64     `db:"steps"` // of credit, of this grant
	Entry     string    `db:"entry_id"`
	Returned  bool      `db:"returned"`
	CreatedAt time.Time `db:"created_at"`
}

// storyEvents bounds how many events of a customer since the top-up are looked through for those that tell of it.
const storyEvents = 2000

// TopupStory tells a top-up's story.
func (l *Ledger) TopupStory(ctx context.Context, top *Topup) (s TopupStory, err error) {
	var times struct {
		SettledAt *time.Time `db:"settled_at"`
		RunAt     time.Time  `db:"run_at"`
	}
	if _, err := l.getRow(ctx, &times, `select settled_at, run_at from topups where bucket = $1 and id = $2`, top.Bucket, top.ID); err != nil {
		return s, err
	}
	s.SettledAt = times.SettledAt
	if top.InFlight() {
		s.RunAt = &times.RunAt
	}
	if s.Grant, err = l.GrantByID(ctx, top.GrantID); err != nil {
		return s, err
	}
	if err := l.db.SelectContext(ctx, &s.Back, `select c.id, c.kind, c.amount, c.currency, c.status, c.stands, c.created_at, g.steps, g.entry_id, g.returned
		from clawback_grants g join clawbacks c on c.bucket = g.bucket and c.id = g.id
		where g.bucket = $1 and g.grant_id = $2 order by c.created_at, c.id limit 100`, top.Bucket, top.GrantID); err != nil {
		return s, err
	}
	if _, err := l.getRow(ctx, &s.Paused, `select coalesce(pause_reason, '') from topup_rules where bucket = $1 and wallet_id = $2 and pause_topup = $3`,
		top.Bucket, top.Wallet, top.ID); err != nil {
		return s, err
	}
	// Its id begins with when it was made, as theirs do: what was told before that is not about it.
	since := "evt_" + top.ID[len("top_"):len("top_")+10]
	err = l.db.SelectContext(ctx, &s.Events, `select `+eventFields+` from (
			select * from events where bucket = $1 and customer_id = $2 and id >= $3 order by id limit `+strconv.Itoa(storyEvents)+`) e
		where type like 'topup.%' and data::json ->> 'id' = $4 order by id`, top.Bucket, top.Customer, since, top.ID)
	return s, err
}
