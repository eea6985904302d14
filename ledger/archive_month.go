package ledger

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/lib/pq"
)

// A month of the archive is a partition of archived_entries, such as archived_entries_2026_01. Once it is whole, somebody
// may detach it, and then what can't do without its entries says so.

// attachedSQL finds the partition of month m among those that are attached.
const attachedSQL = `select from pg_inherits i join pg_class c on c.oid = i.inhrelid
	where i.inhparent = 'archived_entries'::regclass and c.relname = m.partition and not i.inhdetachpending`

// makeMonth sees to it that a month has its partition, where entries between two moments of it need one. A table that is
// made and then attached keeps nobody from reading meanwhile.
func (a *archiving) makeMonth(t *tx, month, from, to time.Time) error {
	name := "archived_entries_" + month.Format("2006_01")
	if a.made[name] {
		return nil
	}
	var state struct {
		Needed   bool `db:"needed"`
		Known    bool `db:"known"`
		Attached bool `db:"attached"`
	}
	next := month.AddDate(0, 1, 0)
	if from.Before(month) {
		from = month
	}
	if to.After(next) {
		to = next
	}
	if _, err := t.get(&state, `select exists (select from entries where created_at >= $2 and created_at < $3) as needed,
			m.month is not null as known, exists (`+attachedSQL+`) as attached
		from (values ($1::date)) v(month) left join archived_months m on m.month = v.month`,
		month.Format(time.DateOnly), from, to); err != nil {
		return err
	}
	switch {
	case state.Attached:
		a.made[name] = true
		return nil
	case !state.Needed:
		return nil
	case state.Known:
		return refuse(CodeState, "", "%s was archived before and detached, and there is more of that month to be archived: attach %s again first", month.Format("2006-01"), name)
	}
	if a.in.Tablespace != "" {
		if err := t.exec(`set local default_tablespace = ` + pq.QuoteIdentifier(a.in.Tablespace)); err != nil {
			return err
		}
	}
	bound := func(at time.Time) string { return pq.QuoteLiteral(at.Format("2006-01-02 15:04:05+00")) }
	for _, do := range []string{
		`create table ` + name + ` (like archived_entries including all)`,
		`alter table archived_entries attach partition ` + name + ` for values from (` + bound(month) + `) to (` + bound(next) + `)`,
		fmt.Sprintf(`insert into archived_months (month, partition, created_at) values ('%s', '%s', now())`, month.Format(time.DateOnly), name),
	} {
		if err := t.exec(do); err != nil {
			return fmt.Errorf("make %s: %w", name, err)
		}
	}
	if !slices.Contains(a.result.Months, name) { // of a transaction that runs again
		a.result.Months = append(a.result.Months, name)
	}
	return nil // that it is there is noted once it is committed, by the next look
}

// attached refuses to add up the entries between two moments (nil: since ever, until now) where a month of them was
// detached. No month goes while the transaction lasts.
func (t *tx) attached(param string, from, to *time.Time) error {
	if from != nil && from.After(t.now.Add(-archiveAge)) {
		return nil
	}
	if err := t.exec(`lock table only archived_entries in access share mode`); err != nil {
		return err
	}
	var partition string
	found, err := t.get(&partition, `select partition from archived_months m
		where ($1::timestamptz is null or (month + interval '1 month') at time zone 'UTC' > $1)
			and ($2::timestamptz is null or month::timestamp at time zone 'UTC' < $2) and not exists (`+attachedSQL+`) order by month desc limit 1`, from, to)
	if err == nil && found {
		err = refuse(CodeState, param, "entries of that time were archived and detached: attach %s to archived_entries again, or ask for a later time", partition)
	}
	return err
}

// lockTimeout reports whether err says that somebody else had a lock for too long.
func lockTimeout(err error) bool {
	var pe *pq.Error
	return errors.As(err, &pe) && pe.Code == "55P03"
}
