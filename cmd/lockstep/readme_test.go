package main

import (
	"bufio"
	"bytes"
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// shellBlocks are the README's commands, in order.
func shellBlocks(t *testing.T) []string {
	t.Helper()
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	var blocks []string
	for _, m := range regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(string(readme), -1) {
		blocks = append(blocks, m[1])
	}
	return blocks
}

// The README's commands do what it says they do: dev comes up, each curl is answered, the demo tells its story
// to the end, and ^C stops everything. The test command is the one that runs this.
func TestReadme(t *testing.T) {
	t.Parallel()
	blocks := shellBlocks(t)
	if len(blocks) < 5 || blocks[0] != "go run ./cmd/lockstep dev\n" || blocks[len(blocks)-1] != "go test ./...\n" {
		t.Fatalf("the README's commands are not the ones known here: %q", blocks)
	}
	if _, err := exec.LookPath("curl"); err != nil {
		t.Fatal("the README's commands call curl: install it")
	}
	d := startDev(t)
	for _, block := range blocks[1 : len(blocks)-1] {
		cmd := exec.CommandContext(t.Context(), "bash", "-ec", strings.ReplaceAll(block, "127.0.0.1:8080", d.address))
		cmd.Dir = "../.."
		cmd.Env = append(os.Environ(), "LOCKSTEP_URL=http://"+d.address, "STRIPE_API_BASE="+d.stripe)
		out, err := cmd.CombinedOutput()
		if err != nil || bytes.Contains(out, []byte(`{"error":{"type":"api_error"`)) || len(out) == 0 {
			t.Errorf("%s\n%s\n%v", block, out, err)
		}
	}
	d.stop(t)

	// The data is kept: the second start finds the books as they were.
	d.run(t)
	cmd := exec.CommandContext(t.Context(), "curl", "-s", "http://"+d.address+"/v1/usage", "-H", "Authorization: Bearer lsk_dev_key",
		"-d", `{"customer":"demo","amount":"6","idempotency_key":"req-1"}`, "-i")
	if out, err := cmd.CombinedOutput(); err != nil || !bytes.Contains(out, []byte("Idempotent-Replayed: true")) {
		t.Errorf("after a restart: %s %v", out, err)
	}
	// Killed, it comes back all the same.
	_ = d.cmd.Process.Kill()
	<-d.done
	d.run(t)
	d.stop(t)
}

// devProcess is `lockstep dev` in a process and a folder of its own.
type devProcess struct {
	dir, address, stripe string
	cmd                  *exec.Cmd
	done                 chan struct{}
	log                  *lockedBuffer
}

func startDev(t *testing.T) *devProcess {
	t.Helper()
	dir, err := os.MkdirTemp("", "lockstep-dev-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil { // root's PostgreSQL runs as somebody else
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d := &devProcess{dir: dir, address: listener.Addr().String()}
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	d.run(t)
	return d
}

// run starts the process and waits for its word that it is ready.
func (d *devProcess) run(t *testing.T) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	d.cmd, d.done, d.log = exec.Command(exe, "dev"), make(chan struct{}), &lockedBuffer{}
	d.cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME"), asMain + "=1",
		"LISTEN_ADDR=" + d.address, "DATA_DIR=" + filepath.Join(d.dir, "data")}
	d.cmd.Stderr = d.log
	stdout, err := d.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ready := make(chan string, 1)
	go func() {
		lines := bufio.NewScanner(stdout)
		stripe := ""
		for lines.Scan() {
			if m := regexp.MustCompile(`^Stripe +simulated at (\S+),`).FindStringSubmatch(lines.Text()); m != nil {
				stripe = m[1]
			}
			if strings.Contains(lines.Text(), "^C stops") {
				ready <- stripe
			}
		}
		_ = d.cmd.Wait()
		close(d.done)
	}()
	t.Cleanup(func() { _ = d.cmd.Process.Kill(); <-d.done })
	select {
	case d.stripe = <-ready:
	case <-d.done:
		t.Fatalf("dev ended: %s", d.log)
	case <-time.After(3 * time.Minute):
		t.Fatalf("dev did not come up: %s", d.log)
	}
}

// stop is ^C.
func (d *devProcess) stop(t *testing.T) {
	t.Helper()
	_ = d.cmd.Process.Signal(syscall.SIGINT)
	select {
	case <-d.done:
	case <-time.After(time.Minute):
		t.Fatalf("dev did not stop: %s", d.log)
	}
	if code := d.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("dev ended with %d: %s", code, d.log)
	}
}

// .env.example lists every setting of the configuration, with its default, and no other.
func TestEnvExample(t *testing.T) {
	t.Parallel()
	file, err := os.ReadFile("../../.env.example")
	if err != nil {
		t.Fatal(err)
	}
	listed := map[string]string{}
	for line := range strings.Lines(string(file)) {
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		name, value, ok := strings.Cut(line, "=")
		if !ok {
			t.Errorf("not a setting: %q", line)
		}
		listed[name] = value
	}
	typ := reflect.TypeFor[config]()
	for i := range typ.NumField() {
		f := typ.Field(i)
		name := f.Tag.Get("envconfig")
		if name == "" {
			continue
		}
		value, ok := listed[name]
		if !ok {
			t.Errorf("%s is not in .env.example", name)
		}
		if want := f.Tag.Get("default"); value != want && !(value == "0" && want == "") {
			t.Errorf("%s is %q in .env.example, its default is %q", name, value, want)
		}
		delete(listed, name)
	}
	for name := range listed {
		t.Errorf("%s is in .env.example and no setting", name)
	}
}

// A command that can't do what it is asked says why and what to do, and exits with 1 or 2.
func TestCommandLineRefusals(t *testing.T) {
	for _, tt := range []struct {
		args []string
		env  map[string]string
		code int
		says string
	}{
		{nil, nil, 2, "Usage: lockstep"},
		{[]string{"sevre"}, nil, 2, `no command "sevre"`},
		{[]string{"serve", "--port", "1"}, nil, 2, "flag provided but not defined"},
		{[]string{"serve"}, nil, 1, "STRIPE_SECRET_KEY is missing"},
		{[]string{"serve"}, nil, 1, "STRIPE_WEBHOOK_SECRET is missing"},
		{[]string{"serve"}, map[string]string{"DATABASE_URL": "mysql://x"}, 1, "DATABASE_URL must start with postgres://"},
		{[]string{"serve"}, map[string]string{"MIRROR_INTERVAL": "12"}, 1, "MIRROR_INTERVAL"},
		{[]string{"serve"}, map[string]string{"LISTEN_ADDR": "8080"}, 1, "LISTEN_ADDR must be host:port"},
		{[]string{"serve"}, map[string]string{"LOCKSTEP_API_KEY": "short"}, 1, "LOCKSTEP_API_KEY must have at least"},
		{[]string{"dev"}, map[string]string{"STRIPE_SECRET_KEY": "sk_live_x"}, 1, "not a live one"},
		{[]string{"dev"}, map[string]string{"STRIPE_SECRET_KEY": "sk_test_x"}, 1, "stripe listen --forward-to"},
		{[]string{"dev"}, map[string]string{"LISTEN_ADDR": "0.0.0.0:8080"}, 1, "set LOCKSTEP_API_KEY"},
		{[]string{"verify"}, map[string]string{"DATABASE_URL": "postgres://nobody@127.0.0.1:1/none?sslmode=disable"}, 1, "connection refused"},
		{[]string{"keys"}, nil, 2, "Usage: lockstep keys"},
		{[]string{"replay"}, nil, 2, "Usage: lockstep replay"},
		{[]string{"reconcile"}, nil, 1, "STRIPE_SECRET_KEY is missing"},
	} {
		for _, name := range []string{"DATABASE_URL", "LISTEN_ADDR", "STRIPE_SECRET_KEY", "STRIPE_WEBHOOK_SECRET", "MIRROR_INTERVAL", "LOCKSTEP_API_KEY"} {
			t.Setenv(name, tt.env[name])
			if tt.env[name] == "" {
				_ = os.Unsetenv(name)
			}
		}
		var stdout, stderr bytes.Buffer
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		code := run(ctx, tt.args, &stdout, &stderr)
		cancel()
		if code != tt.code || !strings.Contains(stderr.String(), tt.says) {
			t.Errorf("lockstep %v with %v: exit %d, %q; want exit %d and %q", tt.args, tt.env, code, stderr.String(), tt.code, tt.says)
		}
	}
}
