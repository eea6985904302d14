// Package browsertest tests pages as people meet them: `lockstep dev` in a process of its own, with its database and its
// simulated Stripe, and a headless Chromium that clicks through it.
//
// A World is one running gateway. Tests share worlds, because each costs a database; Main ends them and checks their books:
//
//	func TestMain(m *testing.M) { browsertest.Main(m) }
//
//	func TestPortal(t *testing.T) {
//		w := browsertest.Shared(t)
//		w.Post("/v1/customers", browsertest.JSON{"id": "acme"})
//		tab := w.Tab()
//		tab.Open("/docs")
//		tab.Axe()
//	}
//
// A Tab fails its test for whatever a page does that it must not: see Tab.
package browsertest

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// World is a running gateway, as one test sees it.
type World struct {
	*gateway
	t testing.TB
}

// gateway is `lockstep dev` with a folder of its own.
type gateway struct {
	URL       string // http://127.0.0.1:…
	Key       string // of the API
	StripeURL string // the simulated Stripe: its API, and the pages that Stripe hosts
	StripeKey string

	dir  string
	env  []string
	cmd  *exec.Cmd
	done chan struct{}
	log  *output
}

// shared are the worlds that Main ends, by their settings.
var shared = struct {
	sync.Mutex
	all map[string]*gateway
}{all: map[string]*gateway{}}

// Main runs the tests of a package, then ends the worlds that they shared, checks their books, and ends the browser.
func Main(m *testing.M) {
	code := m.Run()
	for _, g := range shared.all {
		if err := g.end(); err != nil {
			fmt.Fprintf(os.Stderr, "FAIL: the world that tests shared: %v\n", err)
			code = max(code, 1)
		}
	}
	closeBrowser()
	if dir, err := binaryDir(); err == nil {
		_ = os.RemoveAll(dir)
	}
	os.Exit(code)
}

// Shared is a world that all tests with the same settings (NAME=value) share. The package's TestMain calls Main.
func Shared(t testing.TB, env ...string) *World {
	t.Helper()
	requireBrowser(t) // before anything is built for nothing
	shared.Lock()
	defer shared.Unlock()
	name := strings.Join(env, "\x00")
	if shared.all[name] == nil {
		g, err := start(env)
		if err != nil {
			t.Fatal(err)
		}
		shared.all[name] = g
	}
	return &World{shared.all[name], t}
}

// New is a world of the test's own, for a test that stops it, or that others must not see.
func New(t testing.TB, env ...string) *World {
	t.Helper()
	requireBrowser(t)
	g, err := start(env)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := g.end(); err != nil {
			t.Error(err)
		}
	})
	return &World{g, t}
}

// At is a gateway that the test itself runs, and ends. The browser ends with the test.
func At(t testing.TB, url string) *World {
	t.Helper()
	requireBrowser(t)
	t.Cleanup(closeBrowser)
	return &World{&gateway{URL: url, log: &output{}}, t}
}

// With is the same world for a subtest.
func (w *World) With(t testing.TB) *World { return &World{w.gateway, t} }

// Log is what the gateway has written to its log.
func (g *gateway) Log() string { return g.log.String() }

// binary builds the gateway once.
var binary = sync.OnceValues(func() (string, error) {
	dir, err := binaryDir()
	if err != nil {
		return "", err
	}
	exe := filepath.Join(dir, "lockstep")
	// Of a checkout that belongs to somebody else, git says nothing, and go build asks it.
	if out, err := exec.Command("go", "build", "-buildvcs=false", "-o", exe, "lockstep/cmd/lockstep").CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return exe, nil
})

var binaryDir = sync.OnceValues(func() (string, error) { return os.MkdirTemp("", "lockstep-pages-") })

func start(env []string) (*gateway, error) {
	dir, err := os.MkdirTemp("", "lockstep-world-")
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(dir, 0o755); err != nil { // root's PostgreSQL runs as somebody else
		return nil, err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	address := listener.Addr().String()
	if err := listener.Close(); err != nil {
		return nil, err
	}
	g := &gateway{URL: "http://" + address, Key: "lsk_dev_key", dir: dir, log: &output{}}
	for _, name := range []string{"PATH", "HOME", "TMPDIR"} {
		if v, ok := os.LookupEnv(name); ok {
			g.env = append(g.env, name+"="+v)
		}
	}
	g.env = append(g.env, "LISTEN_ADDR="+address, "DATA_DIR="+filepath.Join(dir, "data"))
	g.env = append(g.env, env...)
	for _, setting := range g.env {
		if key, ok := strings.CutPrefix(setting, "LOCKSTEP_API_KEY="); ok {
			g.Key = key
		}
	}
	if err := g.run(); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return g, nil
}

var simulated = regexp.MustCompile(`^Stripe +simulated at (\S+), key (\S+)`)

// run starts the process and waits for its word that it is ready.
func (g *gateway) run() error {
	exe, err := binary()
	if err != nil {
		return err
	}
	g.cmd, g.done = exec.Command(exe, "dev"), make(chan struct{})
	g.cmd.Env, g.cmd.Stderr = g.env, g.log
	stdout, err := g.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := g.cmd.Start(); err != nil {
		return err
	}
	ready := make(chan []string, 1)
	go func() {
		lines := bufio.NewScanner(stdout)
		var stripe []string
		for lines.Scan() {
			if m := simulated.FindStringSubmatch(lines.Text()); m != nil {
				stripe = m[1:]
			}
			if strings.Contains(lines.Text(), "^C stops") { // the last line of what it says when it is ready
				ready <- stripe
			}
		}
		_ = g.cmd.Wait()
		close(g.done)
	}()
	select {
	case stripe := <-ready:
		if len(stripe) == 2 {
			g.StripeURL, g.StripeKey = stripe[0], stripe[1]
		}
		return nil
	case <-g.done:
		return fmt.Errorf("lockstep dev ended: %s", g.log)
	case <-time.After(3 * time.Minute): // it may have to fetch a PostgreSQL first
		_ = g.cmd.Process.Kill()
		<-g.done
		return fmt.Errorf("lockstep dev did not come up: %s", g.log)
	}
}

// end stops the process as ^C does, and checks the books that it leaves.
func (g *gateway) end() error {
	defer os.RemoveAll(g.dir)
	_ = g.cmd.Process.Signal(syscall.SIGINT)
	select {
	case <-g.done:
	case <-time.After(time.Minute):
		_ = g.cmd.Process.Kill()
		<-g.done
		return fmt.Errorf("lockstep dev did not stop: %s", g.log)
	}
	if code := g.cmd.ProcessState.ExitCode(); code != 0 {
		return fmt.Errorf("lockstep dev ended with %d: %s", code, g.log)
	}
	exe, err := binary()
	if err != nil {
		return err
	}
	verify := exec.Command(exe, "verify")
	verify.Env = g.env
	if out, err := verify.CombinedOutput(); err != nil {
		return fmt.Errorf("lockstep verify: %w\n%s", err, out)
	}
	return nil
}

// allowed tells whether a page may ask host for anything: the gateway and the pages of the simulated Stripe.
func (g *gateway) allowed(host string, more []string) bool {
	own := func(url string) bool { return url != "" && strings.TrimPrefix(url, "http://") == host }
	return own(g.URL) || own(g.StripeURL) || slices.Contains(more, host)
}

// output is what a process has written so far.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}
