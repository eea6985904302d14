package localpg

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

func clusterName(major int) string { return "postgres-" + strconv.Itoa(major) }

// clusters lists the majors that the folder has a cluster of.
func clusters(dir string) []int {
	found, _ := filepath.Glob(filepath.Join(dir, "postgres-*", "PG_VERSION"))
	var majors []int
	for _, f := range found {
		name := strings.TrimPrefix(filepath.Base(filepath.Dir(f)), "postgres-")
		if n, err := strconv.Atoi(name); err == nil {
			majors = append(majors, n)
		}
	}
	return majors
}

// ensureCluster makes the cluster unless there is one. initdb works in a
// temporary folder that is renamed when whole, so a crash at any point leaves
// either no cluster or a good one:
//
//	temporary folder → initdb → password file → rename
//
// A crash before the rename leaves a temporary folder, swept here, and
// perhaps a password file that the next attempt overwrites.
func (s *Server) ensureCluster(ctx context.Context) error {
	leftovers, _ := filepath.Glob(filepath.Join(s.dir, "init-*"))
	for _, l := range leftovers {
		os.RemoveAll(l) // a remnant that cannot go now is in nobody's way
	}
	passwordFile := filepath.Join(s.dir, clusterName(s.bin.major)+".password")
	if _, err := os.Lstat(s.cluster); err == nil {
		b, err := os.ReadFile(passwordFile)
		if err != nil {
			return fmt.Errorf("%s is there, but not its password: %w", s.cluster, err)
		}
		s.password = strings.TrimSpace(string(b))
		return nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}

	begun := time.Now()
	tmp, err := os.MkdirTemp(s.dir, "init-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	s.password = rand.Text()
	if err := s.initdb(ctx, tmp); err != nil {
		return err
	}
	os.Remove(passwordFile) // so that the new one has our mode and owner, whatever was there
	if err := writeSynced(passwordFile, s.password+"\n"); err != nil {
		return err
	}
	if err := os.Rename(filepath.Join(tmp, "data"), s.cluster); err != nil {
		return err
	}
	if err := syncFolder(s.dir); err != nil {
		return err
	}
	s.log.Info("postgres cluster made", "version", s.bin.version, "data", s.cluster, "took", time.Since(begun).Round(time.Millisecond))
	return nil
}

// initdb makes tmp/data. The password passes through a file that only the
// server's user can read and that goes with tmp.
func (s *Server) initdb(ctx context.Context, tmp string) error {
	pw := filepath.Join(tmp, "pw")
	if err := os.WriteFile(pw, []byte(s.password+"\n"), 0o600); err != nil {
		return err
	}
	if err := errors.Join(s.user.own(tmp), s.user.own(pw)); err != nil {
		return err
	}
	args := []string{"-D", filepath.Join(tmp, "data"), "-U", superuser, "--pwfile", pw,
		"--auth=scram-sha-256", "--locale=C", "--encoding=UTF8", "--data-checksums"}
	if s.settings["fsync"] == "off" {
		args = append(args, "--no-sync")
	}
	out, err := s.user.run(ctx, tmp, filepath.Join(s.bin.dir, "initdb"), args...)
	if err != nil {
		return fmt.Errorf("initdb: %w\n%s", err, bytes.TrimSpace(out))
	}
	return nil
}

// stopOrphan deals with what an earlier owner left behind when it was killed.
// We hold the lock, so a server on this cluster has no owner any more: it is
// ended and started anew, because an adopted one would outlive us in turn.
func (s *Server) stopOrphan(ctx context.Context) error {
	const pidFile = "postmaster.pid" // line 1 is the pid
	b, err := os.ReadFile(filepath.Join(s.cluster, pidFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	first, rest, _ := bytes.Cut(b, []byte("\n"))
	pid, err := strconv.Atoi(string(bytes.TrimSpace(first)))
	if err != nil || pid <= 1 {
		return fmt.Errorf("%s has no process id in it; remove it if no server runs", filepath.Join(s.cluster, pidFile))
	}
	if runsOn(pid, s.cluster) {
		s.log.Warn("stopping the postgres that a killed process left behind", "pid", pid, "data", s.cluster)
		if err := endProcess(ctx, pid, func() bool { return runsOn(pid, s.cluster) }); err != nil {
			return fmt.Errorf("orphaned postgres, process %d: %w", pid, err)
		}
	}
	// The number may belong to some other process by now, and PostgreSQL would
	// take that for a living server. It knows that its parent is none, so put
	// ourselves there. The file must stay: its last line is how PostgreSQL
	// finds out whether children of the dead server still use the memory.
	f, err := openIn(s.cluster, pidFile, os.O_WRONLY|os.O_TRUNC, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return errors.Join(writeAt(f, strconv.Itoa(os.Getpid())+"\n"+string(rest)), f.Close())
}

func writeSynced(path, text string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(writeAt(f, text), f.Sync(), f.Close())
}

// syncFolder makes a rename inside of dir survive a power cut.
func syncFolder(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
