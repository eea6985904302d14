package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/jmoiron/sqlx"
)

// benchUse is what an event costs beside time. What could not be measured is 0, and the report says why.
type benchUse struct {
	Gateway  float64 `json:"gateway_cpu_us,omitzero"` // microseconds of processor time, of all gateways together
	Postgres float64 `json:"postgres_cpu_us,omitzero"`
	Load     float64 `json:"load_cpu_us,omitzero"` // of the load generator, which the simulated Stripe is part of
	WAL      float64 `json:"wal_bytes,omitzero"`
	Memory   float64 `json:"gateway_peak_mb,omitzero"` // the most that a gateway had at once, in 10⁶ bytes
}

// per divides what a second took by the events of a second.
func (u benchUse) per(rate float64) benchUse {
	if rate <= 0 {
		return benchUse{Memory: u.Memory}
	}
	return benchUse{u.Gateway / rate, u.Postgres / rate, u.Load / rate, u.WAL / rate, u.Memory}
}

// benchMeter reads what processes and the database have used so far: the processes from /proc, where there is one.
type benchMeter struct {
	db         *sqlx.DB
	proc       string // "": there is none
	postmaster int    // PostgreSQL's first process; 0: it is not on this machine, or not to be seen
	gateways   []int  // processes
	missing    []string
}

func newBenchMeter(ctx context.Context, db *sqlx.DB, proc string) (*benchMeter, error) {
	m := &benchMeter{db: db, proc: proc}
	if _, err := readProcStat(proc, os.Getpid()); err != nil {
		m.proc = ""
		m.missing = append(m.missing, fmt.Sprintf("CPU and memory by process were not measured: that needs Linux's /proc (%v)", err))
		return m, nil
	}
	var err error
	if m.postmaster, err = findPostmaster(ctx, db, proc); err != nil {
		return nil, err
	}
	if m.postmaster == 0 {
		m.missing = append(m.missing, "PostgreSQL's CPU was not measured: its processes are not to be seen from here")
	}
	return m, nil
}

// findPostmaster finds the parent of the process that serves us; 0 when that is not here. The number of a process says
// nothing by itself, since the server may be on another machine: its name and its title must fit as well.
func findPostmaster(ctx context.Context, db *sqlx.DB, proc string) (int, error) {
	conn, err := db.Connx(ctx)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	var self struct {
		PID      int    `db:"pid"`
		Database string `db:"database"`
	}
	if err := conn.GetContext(ctx, &self, `select pg_backend_pid() as pid, current_database() as database`); err != nil {
		return 0, err
	}
	backend, err := readProcStat(proc, self.PID)
	if err != nil || !strings.HasPrefix(backend.name, "postgres") {
		return 0, nil
	}
	title, err := os.ReadFile(filepath.Join(proc, strconv.Itoa(self.PID), "cmdline"))
	if err != nil || !strings.Contains(string(title), self.Database) {
		return 0, nil
	}
	return backend.parent, nil
}

// benchReading is what had been used by a moment.
type benchReading struct {
	at                      time.Time
	gateway, postgres, load time.Duration
	wal                     int64 // bytes written since the cluster was made
}

func (m *benchMeter) read(ctx context.Context) (r benchReading, err error) {
	if err := m.db.GetContext(ctx, &r.wal, `select (pg_current_wal_lsn() - '0/0'::pg_lsn)::bigint`); err != nil {
		return r, err
	}
	r.at = time.Now() // the query may have had to wait
	if m.proc == "" {
		return r, nil
	}
	for _, pid := range m.gateways {
		s, err := readProcStat(m.proc, pid)
		if err != nil {
			return r, err
		}
		r.gateway += s.cpu
	}
	self, err := readProcStat(m.proc, os.Getpid()) // without its children: those are the gateways and pgbench
	if err != nil {
		return r, err
	}
	r.load = self.cpu
	if m.postmaster != 0 {
		r.postgres, err = familyCPU(m.proc, m.postmaster)
	}
	return r, err
}

// since is what was used between two readings, by the second.
func (r benchReading) since(before benchReading) benchUse {
	seconds := r.at.Sub(before.at).Seconds()
	if seconds <= 0 {
		return benchUse{}
	}
	us := func(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) / seconds }
	return benchUse{Gateway: us(r.gateway - before.gateway), Postgres: us(r.postgres - before.postgres), Load: us(r.load - before.load),
		WAL: float64(r.wal-before.wal) / seconds}
}

// during measures from one moment to another, beside what is being done. result waits for that, unless the work has
// failed, which ended it early.
func (m *benchMeter) during(ctx context.Context, from, to time.Time) (result func(failed bool) (benchUse, error)) {
	if m == nil {
		return func(bool) (benchUse, error) { return benchUse{}, nil }
	}
	for _, pid := range m.gateways {
		if m.proc != "" {
			forgetPeakMemory(m.proc, pid)
		}
	}
	over, read := make(chan struct{}), make(chan struct{})
	var use benchUse
	var err error
	go func() {
		defer close(read)
		use, err = m.between(ctx, from, to, over)
	}()
	return func(failed bool) (benchUse, error) {
		if failed {
			close(over)
		}
		<-read
		return use, err
	}
}

// errBenchOver says that what was to be measured ended before its time, which has a reason of its own.
var errBenchOver = errors.New("the run ended early")

func (m *benchMeter) between(ctx context.Context, from, to time.Time, over <-chan struct{}) (benchUse, error) {
	var readings [2]benchReading
	for i, at := range []time.Time{from, to} {
		select {
		case <-time.After(time.Until(at)):
		case <-over:
			return benchUse{}, errBenchOver
		case <-ctx.Done():
			return benchUse{}, ctx.Err()
		}
		var err error
		if readings[i], err = m.read(ctx); err != nil {
			return benchUse{}, err
		}
	}
	use := readings[1].since(readings[0])
	for _, pid := range m.gateways {
		if m.proc == "" {
			break
		}
		peak, err := peakMemory(m.proc, pid)
		if err != nil {
			return use, err
		}
		use.Memory = max(use.Memory, float64(peak)/1e6)
	}
	return use, nil
}
