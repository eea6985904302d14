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

	"github.com/jmoiron/sqlx"
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
}

// newBenchYardstick finds pgbench and makes the yardstick's own tables. dir is for the script.
func newBenchYardstick(ctx context.Context, db *sqlx.DB, url, dir string, binDirs ...string) (*benchYardstick, error) {
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
	return &benchYardstick{program: program, script: script, env: env}, os.WriteFile(script, []byte(yardstickScript), 0o600)
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
	if _, err := y.run(ctx, warm); err != nil {
		return benchSample{}, err
	}
	for try := 0; ; try++ {
		report, err := y.run(ctx, seconds<<try)
		if err != nil {
			return benchSample{}, err
		}
		sample, err := parsePgbench(report)
		if err == nil || try == 3 { // so may a measured one: then it takes longer
			return sample, err
		}
	}
}

func (y *benchYardstick) run(ctx context.Context, seconds int) (report string, err error) {
	cmd := exec.CommandContext(ctx, y.program, "--no-vacuum", "--protocol=prepared", "--client="+strconv.Itoa(yardstickClients),
		"--jobs=2", "--time="+strconv.Itoa(seconds), "--file="+y.script)
	cmd.Env = y.env
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err = cmd.Run()
	if ctx.Err() != nil {
		return "", ctx.Err()
	}
	if err != nil {
		return "", fmt.Errorf("pgbench: %w\n%.2000s", err, bytes.TrimSpace(stderr.Bytes()))
	}
	return stdout.String(), nil
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
