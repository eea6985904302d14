package localpg

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/lib/pq"
)

const (
	fastTimeout   = 30 * time.Second // for a fast shutdown, which writes a checkpoint
	answerTimeout = 60 * time.Second // without any sign of life from a starting server
	maxLog        = 1 << 20          // bytes of postgres.log that a start keeps
)

// defaultSettings suit a small production ledger. Durability is untouched:
// fsync, full_page_writes and synchronous_commit are on unless Options say so.
var defaultSettings = map[string]string{
	"max_connections": "100",
	"shared_buffers":  "256MB",
	// Fewer and longer checkpoints: a ledger writes all the time, and every
	// checkpoint makes each page's next change cost a whole page of WAL.
	"checkpoint_timeout": "15min",
	"max_wal_size":       "2GB",
	"min_wal_size":       "256MB",
	"wal_compression":    "on",
	// Compiling a plan costs more than any statement of ours runs.
	"jit": "off",
	// The constraints are the ledger's judges, so refused statements are daily
	// business; their errors reach the client and would fill the log with data.
	"log_min_messages": "log",
	"log_checkpoints":  "off",
	"timezone":         "UTC",
	"log_timezone":     "UTC",
}

// launch starts the server on a free port. Somebody may take the port between
// our look and the server's, hence the attempts.
func (s *Server) launch(ctx context.Context) error {
	for attempt := 1; ; attempt++ {
		err := s.launchOnce(ctx)
		if err == nil {
			return nil
		}
		if attempt == 5 || !strings.Contains(err.Error(), "Address already in use") {
			return err
		}
	}
}

func (s *Server) launchOnce(ctx context.Context) error {
	port, err := freePort()
	if err != nil {
		return err
	}
	s.port = port
	logFile, err := s.openLog()
	if err != nil {
		return err
	}
	defer logFile.Close()
	connector, err := pq.NewConnector(s.URL("postgres") + "&connect_timeout=5")
	if err != nil {
		return err
	}
	cmd := s.user.command(s.cluster, filepath.Join(s.bin.dir, "postgres"), s.arguments()...)
	cmd.Stdout, cmd.Stderr = logFile, logFile
	if s.proc, err = startProcess(cmd); err != nil {
		return fmt.Errorf("start %s as %s: %w", cmd.Path, s.user, err)
	}
	s.admin = sql.OpenDB(connector)
	s.admin.SetMaxOpenConns(4)
	s.admin.SetConnMaxIdleTime(30 * time.Second)
	if err := s.awaitAnswer(ctx); err != nil {
		s.stopping.Store(true)
		s.admin.Close()
		s.proc.stop(5 * time.Second)
		return fmt.Errorf("postgres did not come up: %w%s", err, s.logTail())
	}
	s.stopping.Store(false)
	go s.watch(s.proc)
	return nil
}

// watch reports a server that ends unasked, killed for memory for example.
func (s *Server) watch(p *process) {
	<-p.done
	if !s.stopping.Load() {
		s.log.Error("postgres has ended by itself", "error", p.err, "log", s.logTail())
	}
}

// arguments are all of the server's settings: nothing is written into
// postgresql.conf, so the next version's defaults apply to old clusters too.
func (s *Server) arguments() []string {
	all := maps.Clone(defaultSettings)
	maps.Copy(all, s.settings)
	maps.Copy(all, map[string]string{ // what the rest of this package stands on
		"listen_addresses":        "127.0.0.1",
		"port":                    strconv.Itoa(s.port),
		"unix_socket_directories": "",
		"logging_collector":       "off",
		"ssl":                     "off",
	})
	args := []string{"-D", s.cluster}
	for _, k := range slices.Sorted(maps.Keys(all)) {
		args = append(args, "-c", k+"="+all[k])
	}
	return args
}

// awaitAnswer returns when the server takes a login. Recovery after a crash
// may take long; as long as the server says that it is at it, we wait.
func (s *Server) awaitAnswer(ctx context.Context) error {
	begun, lastSign, lastWord := time.Now(), time.Now(), time.Now()
	for {
		err := s.admin.PingContext(ctx)
		if err == nil {
			return nil
		}
		if pe, ok := errors.AsType[*pq.Error](err); ok {
			switch pe.Code {
			case "57P03": // cannot_connect_now: starting up
				lastSign = time.Now()
			case "53300": // too_many_connections: up, and somebody is faster
				return nil
			case "28P01": // wrong password: not the cluster's, or not our server, and ours is about to fail on the port
				lastSign = lastSign.Add(-answerTimeout / 50)
			default:
				return err
			}
		}
		if time.Since(lastSign) > answerTimeout {
			return fmt.Errorf("no answer on port %d: %w", s.port, err)
		}
		if time.Since(lastWord) > 5*time.Second {
			lastWord = time.Now()
			s.log.Info("waiting for postgres", "since", time.Since(begun).Round(time.Second), "says", err)
		}
		select {
		case <-s.proc.done:
			return fmt.Errorf("it ended at once (%w)", s.proc.ended())
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func freePort() (int, error) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// openLog opens the server's log for appending, emptied first when it has
// grown: it is bounded at each start, and quiet in between.
func (s *Server) openLog() (*os.File, error) {
	f, err := openIn(s.dir, "postgres.log", os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && info.Size() > maxLog {
		err = f.Truncate(0)
		s.logMark = 0
	} else if err == nil {
		s.logMark = info.Size()
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// logTail is the end of what the server said since it was started, ready to
// be put behind an error's text.
func (s *Server) logTail() string {
	f, err := openIn(s.dir, "postgres.log", os.O_RDONLY, 0)
	if err != nil {
		return ""
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return ""
	}
	from := max(s.logMark, info.Size()-4096)
	b, _ := io.ReadAll(io.NewSectionReader(f, from, info.Size()-from))
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	lines = lines[max(0, len(lines)-15):]
	return fmt.Sprintf("\n%s ends with:\n  %s", filepath.Join(s.dir, "postgres.log"), strings.Join(lines, "\n  "))
}
