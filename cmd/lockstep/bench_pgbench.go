package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/lib/pq"
)

// The yardstick is what the same PostgreSQL does of the plainest ledger there could be: a row written and
// a balance lowered, in one transaction, by 64 clients that talk to it directly.
const (
	yardstickClients = 64

	yardstickTables = `
create table bench_account (id integer primary key, balance bigint not null);
insert into bench_account select n, 0 from generate_series(1, 10000) n;
create table bench_log (id bigint generated always as identity primary key, account integer not null,
	amount bigint not null, created_at timestamptz not null default now())`

	yardstickScript = `\set id random(1, 10000)
begin;
insert into bench_log (account, amount) values (:id, -1);
update bench_account set balance = balance - 1 where id = :id;
commit;
`
)

// benchYardstick runs pgbench on a database.
type benchYardstick struct {
	program string
	script  string // file
	env     []string
	meter   *benchMeter
}

// newBenchYardstick finds pgbench and makes the yardstick's own tables. dir is for the script.
func newBenchYardstick(ctx context.Context, meter *benchMeter, url, dir string, binDirs ...string) (*benchYardstick, error) {
	db := meter.db
	program, err := findPgbench(binDirs...)
	if err != nil {
		return nil, err
	}
	if _, err := db.ExecContext(ctx, yardstickTables); err != nil {
		return nil, fmt.Errorf("tables of the yardstick: %w", err)
	}
	if _, err := db.ExecContext(ctx, `vacuum analyze bench_account, bench_log`); err != nil {
		return nil, fmt.Errorf("tables of the yardstick: %w", err)
	}
	env, err := libpqEnv(url)
	if err != nil {
		return nil, err
	}
	script := filepath.Join(dir, "yardstick.sql")
	return &benchYardstick{program: program, script: script, env: env, meter: meter}, os.WriteFile(script, []byte(yardstickScript), 0o600)
}

// findPgbench looks beside the server's own programs, where packages put them, and in the PATH: Debian's
// wrapper there may find none.
func findPgbench(binDirs ...string) (string, error) {
	for _, dir := range binDirs {
		if p, err := exec.LookPath(filepath.Join(dir, "pgbench")); err == nil {
			return p, nil
		}
	}
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/pgbench")
	if len(found) > 0 {
		return found[len(found)-1], nil
	}
	if p, err := exec.LookPath("pgbench"); err == nil {
		return p, nil
	}
	return "", errors.New(`there is no pgbench here, and it is what the rates are compared with. Install it:
  Debian, Ubuntu:  apt-get install postgresql
  Fedora, RHEL:    dnf install postgresql-contrib
  Alpine:          apk add postgresql
  macOS:           brew install postgresql@17
It is looked for in the PATH and in /usr/lib/postgresql/*/bin`)
}

// libpqEnv says to libpq's programs what a DATABASE_URL says to us. The environment, because arguments
// can be read by everybody on the machine, and there is a password in them.
func libpqEnv(url string) ([]string, error) {
	cfg, err := pq.NewConfig(url)
	if err != nil {
		return nil, fmt.Errorf("database url: %w", err)
	}
	env := slices.DeleteFunc(os.Environ(), func(kv string) bool { return strings.HasPrefix(kv, "PG") })
	hostaddr := ""
	if cfg.Hostaddr.IsValid() {
		hostaddr = cfg.Hostaddr.String()
	}
	for _, v := range [][2]string{
		{"PGHOST", cfg.Host}, {"PGHOSTADDR", hostaddr}, {"PGPORT", strconv.Itoa(int(cfg.Port))}, {"PGDATABASE", cfg.Database},
		{"PGUSER", cfg.User}, {"PGPASSWORD", cfg.Password}, {"PGPASSFILE", cfg.Passfile}, {"PGOPTIONS", cfg.Options},
		{"PGSSLMODE", string(cfg.SSLMode)}, {"PGSSLROOTCERT", cfg.SSLRootCert}, {"PGSSLCERT", cfg.SSLCert}, {"PGSSLKEY", cfg.SSLKey},
	} {
		if v[1] != "" {
			env = append(env, v[0]+"="+v[1])
		}
	}
	return env, nil
}

// measure runs the yardstick for some seconds, first unmeasured to warm up: pgbench reports one rate over
// all its time, so that is a run of its own.
func (y *benchYardstick) measure(ctx context.Context, warm, seconds int) (benchSample, error) {
	// On a busy machine it may be over before the clients have connected: its report does not matter.
	if _, _, err := y.run(ctx, yardstickClients, warm); err != nil {
		return benchSample{}, err
	}
	for try := 0; ; try++ {
		before, err := y.meter.read(ctx)
		if err != nil {
			return benchSample{}, err
		}
		report, took, err := y.run(ctx, yardstickClients, seconds<<try)
		if err != nil {
			return benchSample{}, err
		}
		after, err := y.meter.read(ctx)
		if err != nil {
			return benchSample{}, err
		}
		sample, err := parsePgbench(report)
		if err == nil {
			use := after.since(before) // of a little more than the measured time, by the second all the same
			use.Gateway, use.Load = 0, 0
			if y.meter.proc != "" {
				use.Load = float64(took.Microseconds()) / after.at.Sub(before.at).Seconds()
			}
			sample.benchUse = use.per(sample.Rate)
		}
		if err == nil || try == 3 { // so may a measured one: then it takes longer
			return sample, err
		}
	}
}

// lone measures how long one transaction takes when there is one client, with pauses as the lone debit has them: the
// median, in milliseconds.
func (y *benchYardstick) lone(ctx context.Context, pause time.Duration, seconds int) (float64, error) {
	prefix := y.script + ".log"
	defer func() {
		files, _ := filepath.Glob(prefix + ".*")
		for _, f := range files {
			_ = os.Remove(f)
		}
	}()
	if _, _, err := y.run(ctx, 1, seconds, "--rate="+strconv.FormatFloat(1/pause.Seconds(), 'f', 3, 64), "--log", "--log-prefix="+prefix); err != nil {
		return 0, err
	}
	files, err := filepath.Glob(prefix + ".*")
	if err != nil || len(files) != 1 {
		return 0, fmt.Errorf("pgbench wrote %d logs: %w", len(files), err)
	}
	text, err := os.ReadFile(files[0])
	if err != nil {
		return 0, err
	}
	took, err := parsePgbenchLog(string(text))
	if err != nil {
		return 0, err
	}
	return benchPercentile(took, 0.5), nil
}

// parsePgbenchLog reads how long each transaction took from pgbench's log of a run with a rate, and sorts them. A line is
// "client transaction time script epoch microseconds lag": time runs from when the transaction was due, and lag is how
// much later it began.
func parsePgbenchLog(text string) ([]time.Duration, error) {
	var took []time.Duration
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < 7 {
			return nil, fmt.Errorf("pgbench's log has a line %q", line)
		}
		whole, err := strconv.ParseInt(fields[2], 10, 64)
		lag, err2 := strconv.ParseInt(fields[6], 10, 64)
		if err != nil || err2 != nil || lag < 0 || whole < lag {
			return nil, fmt.Errorf("pgbench's log has a line %q", line)
		}
		took = append(took, time.Duration(whole-lag)*time.Microsecond)
	}
	if len(took) == 0 {
		return nil, errors.New("pgbench's log is empty")
	}
	slices.Sort(took)
	return took, nil
}

// run runs pgbench and answers its report and the processor time that it took itself.
func (y *benchYardstick) run(ctx context.Context, clients, seconds int, more ...string) (report string, cpu time.Duration, err error) {
	cmd := exec.CommandContext(ctx, y.program, append([]string{"--no-vacuum", "--protocol=prepared", "--client=" + strconv.Itoa(clients),
		"--jobs=" + strconv.Itoa(min(2, clients)), "--time=" + strconv.Itoa(seconds), "--file=" + y.script}, more...)...)
	cmd.Env = y.env
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err = cmd.Run()
	if ctx.Err() != nil {
		return "", 0, ctx.Err()
	}
	if err != nil {
		return "", 0, fmt.Errorf("pgbench: %w\n%.2000s", err, bytes.TrimSpace(stderr.Bytes()))
	}
	return stdout.String(), cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(), nil
}

var (
	pgbenchTPS    = regexp.MustCompile(`(?m)^tps = ([0-9.]+)`)
	pgbenchFailed = regexp.MustCompile(`(?m)^number of failed transactions: ([0-9]+)`)
)

// parsePgbench reads pgbench's report.
func parsePgbench(report string) (benchSample, error) {
	m := pgbenchTPS.FindStringSubmatch(report)
	if m == nil {
		return benchSample{}, fmt.Errorf("pgbench did not say how fast it was:\n%.2000s", report)
	}
	tps, err := strconv.ParseFloat(m[1], 64)
	if err != nil || tps <= 0 {
		return benchSample{}, fmt.Errorf("pgbench says tps = %s", m[1])
	}
	if m := pgbenchFailed.FindStringSubmatch(report); m != nil && m[1] != "0" {
		return benchSample{}, fmt.Errorf("%s transactions of pgbench failed", m[1])
	}
	return benchSample{Rate: tps}, nil
}

// version is what pgbench says of itself.
func (y *benchYardstick) version(ctx context.Context) string {
	out, _ := exec.CommandContext(ctx, y.program, "--version").Output()
	return string(bytes.TrimSpace(out))
}
