package localpg

import (
	"bufio"
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// helperDir makes the test binary a program that owns a server on that folder
// until it is told to end, for the tests that need a process to kill.
const helperDir = "LOCALPG_TEST_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(helperDir); dir != "" {
		os.Exit(helper(dir))
	}
	os.Exit(m.Run())
}

// helper books a row and says where, then waits. A SIGINT makes it book another
// row and stop in order, as a program does that finishes its work first.
func helper(dir string) int {
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, os.Interrupt)
	s, err := Start(context.Background(), testOptions(dir))
	if err != nil {
		fmt.Println("failed:", strings.ReplaceAll(err.Error(), "\n", " "))
		return 1
	}
	db, err := sql.Open("postgres", s.URL("postgres"))
	if err == nil {
		_, err = db.Exec("create table if not exists t (n int); insert into t values (1)")
	}
	if err != nil {
		fmt.Println("failed:", err)
		return 1
	}
	fmt.Println("up", s.proc.pid())
	<-interrupted
	time.Sleep(300 * time.Millisecond) // time enough for a server that got the signal too
	if _, err := db.Exec("insert into t values (2)"); err != nil {
		fmt.Println("failed:", err)
		return 1
	}
	if err := s.Stop(); err != nil {
		fmt.Println("failed:", err)
		return 1
	}
	return 0
}

// startHelper runs the helper and answers the pid of its server.
func startHelper(t *testing.T, dir string) (*exec.Cmd, int) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), helperDir+"="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	line, _ := bufio.NewReader(out).ReadString('\n')
	pid, err := strconv.Atoi(strings.TrimSpace(strings.TrimPrefix(line, "up ")))
	if err != nil {
		t.Fatalf("helper says %q", line)
	}
	return cmd, pid
}

func testOptions(dir string) Options {
	return Options{
		DataDir:  dir,
		Settings: map[string]string{"fsync": "off", "full_page_writes": "off", "shared_buffers": "16MB"},
		Logger:   slog.New(slog.DiscardHandler),
	}
}

// openDir is a folder that any user can reach, unlike t.TempDir.
func openDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "localpg-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func start(t *testing.T, o Options) *Server {
	t.Helper()
	s, err := Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Stop() })
	return s
}

func stop(t *testing.T, s *Server) {
	t.Helper()
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
}

func query(t *testing.T, s *Server, database, stmt string) string {
	t.Helper()
	db, err := sql.Open("postgres", s.URL(database))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var answer sql.NullString
	if err := db.QueryRowContext(t.Context(), stmt).Scan(&answer); err != nil && !errors.Is(err, sql.ErrNoRows) {
		t.Fatalf("%s: %v", stmt, err)
	}
	return answer.String
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

func TestDataSurvivesRestart(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(openDir(t), "new", "data")
	s := start(t, testOptions(dir))
	query(t, s, "postgres", "create table t (n int)")
	query(t, s, "postgres", "insert into t values (42)")
	stop(t, s)
	select {
	case <-s.Done():
	default:
		t.Error("Done is open after Stop")
	}
	stop(t, s)

	s = start(t, testOptions(dir))
	if got := query(t, s, "postgres", "select n from t"); got != "42" {
		t.Errorf("after a restart the table has %q, want 42", got)
	}
}

// What a server promises: reachable on the loopback address only and with the
// password only, C locale, UTF-8, checksums, and the settings of the caller.
func TestServerIsPrivateAndDeterministic(t *testing.T) {
	t.Parallel()
	dir := openDir(t)
	o := testOptions(dir)
	o.Settings["work_mem"] = "7MB"
	o.Settings["port"] = "1" // must not win
	s := start(t, o)
	for stmt, want := range map[string]string{
		"show listen_addresses":        "127.0.0.1",
		"show unix_socket_directories": "",
		"show server_encoding":         "UTF8",
		"show lc_messages":             "C",
		"show timezone":                "UTC",
		"show data_checksums":          "on",
		"show password_encryption":     "scram-sha-256",
		"show work_mem":                "7MB",
		"show full_page_writes":        "off",
		"show max_connections":         "100",
		"select datcollate from pg_database where datname = 'postgres'": "C",
	} {
		if got := query(t, s, "postgres", stmt); got != want {
			t.Errorf("%s: %q, want %q", stmt, got, want)
		}
	}
	if v := query(t, s, "postgres", "show server_version"); strings.Fields(v)[0] != s.Version() {
		t.Errorf("Version() is %q, the server says %q", s.Version(), v)
	}
	info, err := os.Stat(filepath.Join(dir, clusterName(s.bin.major)+".password"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("password file: %v %v, want mode 0600", info, err)
	}
	db, _ := sql.Open("postgres", strings.Replace(s.URL("postgres"), s.password, "guess", 1))
	defer db.Close()
	if err := db.Ping(); err == nil {
		t.Error("a wrong password was let in")
	}
	args, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", s.proc.pid()))
	if bytes.Contains(args, []byte(s.password)) {
		t.Error("the password is on the server's command line")
	}
}

func TestDatabases(t *testing.T) {
	t.Parallel()
	s, ctx := start(t, testOptions(openDir(t))), t.Context()
	if err := s.CreateDatabase(ctx, `odd "name`, ""); err != nil {
		t.Fatal(err)
	}
	query(t, s, `odd "name`, "create table t (n int)")
	query(t, s, `odd "name`, "insert into t values (7)")
	if err := s.CreateDatabase(ctx, "copy", `odd "name`); err != nil {
		t.Fatal(err)
	}
	if got := query(t, s, "copy", "select n from t"); got != "7" {
		t.Errorf("the copy has %q, want 7", got)
	}
	if err := s.CreateDatabase(ctx, "copy", ""); !errors.Is(err, ErrDatabaseExists) {
		t.Errorf("a second %v, want ErrDatabaseExists", err)
	}
	db, _ := sql.Open("postgres", s.URL("copy"))
	defer db.Close()
	if err := db.Ping(); err != nil { // a connection that is open must not keep it
		t.Fatal(err)
	}
	for range 2 {
		if err := s.DropDatabase(ctx, "copy"); err != nil {
			t.Error(err)
		}
	}
	if got := query(t, s, "postgres", "select count(*) from pg_database where datname = 'copy'"); got != "0" {
		t.Error("the dropped database is there")
	}
}

// Six starts at once on one new folder: one wins, and the others are told who.
func TestOneOwner(t *testing.T) {
	t.Parallel()
	dir := openDir(t)
	var wg sync.WaitGroup
	var mu sync.Mutex
	var won []*Server
	var lost []error
	for range 6 {
		wg.Go(func() {
			s, err := Start(t.Context(), testOptions(dir))
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				lost = append(lost, err)
			} else {
				won = append(won, s)
			}
		})
	}
	wg.Wait()
	for _, s := range won {
		defer s.Stop()
	}
	if len(won) != 1 {
		t.Fatalf("%d servers on one folder; errors: %v", len(won), lost)
	}
	for _, err := range lost {
		if !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), fmt.Sprintf("process %d: %s", os.Getpid(), dir)) {
			t.Errorf("refused with %q, want the folder and the process", err)
		}
	}
}

// A postmaster.pid of a killed server must not keep the next one from starting:
// neither when its process is gone nor when the number is another process's.
func TestStalePidFile(t *testing.T) {
	t.Parallel()
	o := testOptions(openDir(t))
	s := start(t, o)
	query(t, s, "postgres", "create table t (n int)")
	pidFile := filepath.Join(s.cluster, "postmaster.pid")
	content, err := os.ReadFile(pidFile)
	if err != nil {
		t.Fatal(err)
	}
	other := s.user.command("/", "/bin/sleep", "60") // the server's user may signal it
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	defer other.Wait()
	defer other.Process.Kill()
	dead := exec.Command("true")
	if err := dead.Run(); err != nil {
		t.Fatal(err)
	}
	for _, pid := range []int{dead.Process.Pid, other.Process.Pid} {
		stop(t, s)
		_, rest, _ := bytes.Cut(content, []byte("\n"))
		stale := append([]byte(strconv.Itoa(pid)+"\n"), rest...)
		if err := errors.Join(os.WriteFile(pidFile, stale, 0o600), s.user.own(pidFile)); err != nil {
			t.Fatal(err)
		}
		s = start(t, o)
		query(t, s, "postgres", "select count(*) from t")
	}
	if err := other.Process.Signal(syscall.Signal(0)); err != nil {
		t.Errorf("the other process was hurt: %v", err)
	}
}

// kill -9 of the owner: the server ends by itself (on Linux) and what was
// committed is there for the next one.
func TestKilledOwner(t *testing.T) {
	t.Parallel()
	o := testOptions(openDir(t))
	owner, pid := startHelper(t, o.DataDir)
	if _, err := Start(t.Context(), o); !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), strconv.Itoa(owner.Process.Pid)) {
		t.Errorf("started beside process %d: %v", owner.Process.Pid, err)
	}
	cluster := filepath.Join(o.DataDir, clusterName(clusters(o.DataDir)[0]))
	if !runsOn(pid, cluster) {
		t.Errorf("process %d is not seen to run on %s", pid, cluster)
	}
	owner.Process.Kill()
	owner.Wait()
	begun := time.Now()
	if runtime.GOOS == "linux" {
		eventually(t, "the orphan's end", func() bool { return !runsOn(pid, cluster) })
		t.Logf("the server ended %v after its owner", time.Since(begun).Round(time.Millisecond))
	}
	s := start(t, o)
	if got := query(t, s, "postgres", "select count(*) from t"); got != "1" {
		t.Errorf("%s rows after the kill, want the committed one", got)
	}
}

// A start right at the kill, while the orphan still shuts down.
func TestStartBesideDyingOrphan(t *testing.T) {
	t.Parallel()
	o := testOptions(openDir(t))
	for range 3 {
		owner, _ := startHelper(t, o.DataDir)
		owner.Process.Kill()
		owner.Wait()
		stop(t, start(t, o))
	}
}

// An orphan that lives on, as on systems without a parent-death signal: it is
// stopped, not adopted. Dropping the lock is what its owner's death looks like.
func TestOrphanIsStopped(t *testing.T) {
	t.Parallel()
	o := testOptions(openDir(t))
	orphan := start(t, o)
	query(t, orphan, "postgres", "create table t (n int)")
	unlock(orphan.lock)
	s := start(t, o)
	if runsOn(orphan.proc.pid(), orphan.cluster) || s.proc.pid() == orphan.proc.pid() {
		t.Error("the orphan lives on")
	}
	if got := query(t, s, "postgres", "select count(*) from t"); got != "0" {
		t.Errorf("the table has %q rows", got)
	}
}

// Killed or cancelled in the middle of initdb: no cluster that looks whole,
// and the next start makes one and sweeps up.
func TestInitdbInterrupted(t *testing.T) {
	t.Parallel()
	inInitdb := func(dir string) bool {
		found, _ := filepath.Glob(filepath.Join(dir, "init-*", "data", "base", "1"))
		return len(found) > 0
	}
	t.Run("killed", func(t *testing.T) {
		t.Parallel()
		dir := openDir(t)
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), helperDir+"="+dir)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		eventually(t, "initdb at work", func() bool { return inInitdb(dir) })
		cmd.Process.Kill()
		cmd.Wait()
		afterInterrupt(t, dir)
	})
	t.Run("cancelled", func(t *testing.T) {
		t.Parallel()
		dir := openDir(t)
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			for !inInitdb(dir) && ctx.Err() == nil {
				time.Sleep(time.Millisecond)
			}
			cancel()
		}()
		if _, err := Start(ctx, testOptions(dir)); err == nil {
			t.Fatal("started although cancelled")
		}
		afterInterrupt(t, dir)
	})
}

func afterInterrupt(t *testing.T, dir string) {
	t.Helper()
	if have := clusters(dir); len(have) > 0 {
		t.Fatalf("clusters %v after an initdb that was cut off", have)
	}
	s := start(t, testOptions(dir))
	query(t, s, "postgres", "select 1")
	if left, _ := filepath.Glob(filepath.Join(dir, "init-*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// The terminal's Ctrl-C goes to the whole foreground group. The server must
// not be in it, else the owner's last statements fail.
func TestInterruptLeavesServerToOwner(t *testing.T) {
	t.Parallel()
	o := testOptions(openDir(t))
	owner, _ := startHelper(t, o.DataDir)
	if err := syscall.Kill(-owner.Process.Pid, syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if err := owner.Wait(); err != nil {
		t.Fatalf("the owner could not finish: %v", err)
	}
	s := start(t, o)
	if got := query(t, s, "postgres", "select sum(n) from t"); got != "3" {
		t.Errorf("sum %s, want 3: the row written after the interrupt too", got)
	}
}

// Root: the wanted folder is closed to the server's user, so the data goes
// elsewhere and is found again. Removing the folder means starting anew.
func TestRootInClosedFolder(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root's server runs as another user")
	}
	old := varLib
	varLib = openDir(t)
	defer func() { varLib = old }()
	closed := openDir(t)
	if err := os.Chmod(closed, 0o700); err != nil {
		t.Fatal(err)
	}
	var logged bytes.Buffer
	o := testOptions(filepath.Join(closed, "clone", ".lockstep"))
	o.Logger = slog.New(slog.NewTextHandler(&logged, nil))

	defer func(old []string) { serverUsers = old }(serverUsers)
	serverUsers = []string{"no such user", "nobody"} // as on a machine whose PostgreSQL was fetched

	s := start(t, o)
	query(t, s, "postgres", "create table t (n int)")
	if s.user.name != "nobody" || !strings.HasPrefix(s.cluster, varLib+"/") || !strings.Contains(logged.String(), closed) {
		t.Errorf("data in %s, log:\n%s", s.cluster, &logged)
	}
	if _, err := Start(t.Context(), o); !errors.Is(err, ErrInUse) {
		t.Errorf("second start: %v", err)
	}
	stop(t, s)
	serverUsers = []string{"postgres", "nobody"} // installed later: the data stays with its owner
	s = start(t, o)
	query(t, s, "postgres", "select count(*) from t")
	stop(t, s)

	if err := os.RemoveAll(o.DataDir); err != nil {
		t.Fatal(err)
	}
	s = start(t, o)
	if got := query(t, s, "postgres", "select to_regclass('t')"); got != "" {
		t.Error("the removed folder's data is back")
	}
	stop(t, s)

	if err := os.RemoveAll(filepath.Dir(s.cluster)); err != nil {
		t.Fatal(err)
	}
	if _, err := Start(t.Context(), o); err == nil || !strings.Contains(err.Error(), s.dir) {
		t.Errorf("the data is gone, and Start says %v", err)
	}
}

// Root again, where even /var/lib is closed: the error names the folder.
func TestRootWithNowhereToGo(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root's server runs as another user")
	}
	old := varLib
	varLib = t.TempDir()
	defer func() { varLib = old }()
	dir := t.TempDir()
	_, err := Start(t.Context(), testOptions(dir))
	if err == nil || !strings.Contains(err.Error(), filepath.Dir(dir)) || !strings.Contains(err.Error(), "DATA_DIR") {
		t.Errorf("got %v", err)
	}
}

// As a plain user nothing changes hands. When the tests run as root, the
// restart test is run once more by the user nobody.
func TestPlainUser(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		return // every other test is this one
	}
	dir := openDir(t)
	binary := filepath.Join(dir, "localpg.test")
	// A copy, as go test's own folder is closed to others. By another process,
	// else a test that forks meanwhile holds it open and it cannot be run.
	if out, err := exec.Command("cp", os.Args[0], binary).CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	if err := os.Chmod(binary, 0o755); err != nil {
		t.Fatal(err)
	}
	tmp := filepath.Join(dir, "tmp")
	nobody, err := lookupUser("nobody")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Mkdir(tmp, 0o755), nobody.own(tmp)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(binary, "-test.v", "-test.run=^(TestDataSurvivesRestart|TestKilledOwner|TestOneOwner)$")
	cmd.Dir = tmp
	cmd.Env = []string{"TMPDIR=" + tmp, "PATH=" + os.Getenv("PATH")}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: credential(nobody)}
	out, err := cmd.CombinedOutput()
	if err != nil || bytes.Count(out, []byte("--- PASS")) != 3 {
		t.Errorf("as nobody: %v\n%s", err, out)
	}
}

// A server that cannot start: the error carries what it said.
func TestFailureShowsServersWords(t *testing.T) {
	t.Parallel()
	o := testOptions(openDir(t))
	o.Settings["shared_buffers"] = "12 parsecs"
	_, err := Start(t.Context(), o)
	if err == nil || !strings.Contains(err.Error(), "12 parsecs") || !strings.Contains(err.Error(), "postgres.log") {
		t.Errorf("got %v", err)
	}
	delete(o.Settings, "shared_buffers")
	if err := os.WriteFile(filepath.Join(o.DataDir, "postgres.log"), make([]byte, maxLog+1), 0o600); err != nil {
		t.Fatal(err)
	}
	start(t, o)
	if info, err := os.Stat(filepath.Join(o.DataDir, "postgres.log")); err != nil || info.Size() > maxLog/2 {
		t.Errorf("the log was not cut: %v %v", info, err)
	}
}

// The ways to have no PostgreSQL: each error says what to do.
func TestNothingToRun(t *testing.T) {
	t.Parallel()
	o := testOptions(openDir(t))
	o.CacheDir = openDir(t)
	o.hideSystem = true
	_, err := Start(t.Context(), o)
	if !errors.Is(err, ErrNoPostgres) {
		t.Fatalf("got %v, want ErrNoPostgres", err)
	}
	for _, want := range []string{"apt-get install postgresql", "brew install", "DATABASE_URL"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not say %q: %v", want, err)
		}
	}
	o.BinDir = o.CacheDir
	if _, err := Start(t.Context(), o); err == nil || !strings.Contains(err.Error(), "no initdb there") {
		t.Errorf("empty BinDir: %v", err)
	}
	o.BinDir, o.hideSystem = "", false
	if err := os.MkdirAll(filepath.Join(o.DataDir, "postgres-9"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(o.DataDir, "postgres-9", "PG_VERSION"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Start(t.Context(), o); !errors.Is(err, ErrNoPostgres) || !strings.Contains(err.Error(), "PostgreSQL [9]") {
		t.Errorf("data of another major: %v", err)
	}
}

func TestOnlyLoopback(t *testing.T) {
	t.Parallel()
	s := start(t, testOptions(openDir(t)))
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		ip := a.(*net.IPNet).IP
		if ip.Equal(net.IPv4(127, 0, 0, 1)) || ip.IsLinkLocalUnicast() {
			continue
		}
		c, err := net.DialTimeout("tcp", net.JoinHostPort(ip.String(), strconv.Itoa(s.port)), time.Second)
		if err == nil {
			c.Close()
			t.Errorf("the server listens on %s", ip)
		}
	}
}
