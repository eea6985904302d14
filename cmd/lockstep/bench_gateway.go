package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

// benchGateway is `lockstep serve` as a process of its own, just as it runs in production: it shares no
// memory, no garbage collector and no scheduler with the load generator.
type benchGateway struct {
	cmd  *exec.Cmd
	addr string
	said benchTail
	done chan struct{} // closed when it has ended
	err  error         // how, once it has
}

// startBenchGateway starts exe as a gateway on a free port and returns when it is ready.
func startBenchGateway(ctx context.Context, exe, dir string, env map[string]string) (*benchGateway, error) {
	for try := 1; ; try++ {
		g, err := startBenchGatewayOnce(ctx, exe, dir, env)
		if err == nil {
			return g, nil
		}
		// Somebody may take the port between our look and the gateway's.
		if try == 3 || !strings.Contains(err.Error(), "address already in use") {
			return nil, err
		}
	}
}

func startBenchGatewayOnce(ctx context.Context, exe, dir string, env map[string]string) (*benchGateway, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	g := &benchGateway{addr: l.Addr().String(), done: make(chan struct{})}
	if err := l.Close(); err != nil {
		return nil, err
	}
	g.cmd = exec.Command(exe, "serve")
	g.cmd.Dir = dir // no file of the caller's folder has a say
	g.cmd.Stdout, g.cmd.Stderr = &g.said, &g.said
	g.cmd.SysProcAttr = benchChildAttr()
	g.cmd.Env = []string{"LISTEN_ADDR=" + g.addr}
	for _, name := range []string{"PATH", "HOME", "TMPDIR", "SystemRoot", "GOMAXPROCS", "GOGC", "GOMEMLIMIT", "GODEBUG", "METRICS_ADDR"} {
		if v, ok := os.LookupEnv(name); ok {
			g.cmd.Env = append(g.cmd.Env, name+"="+v)
		}
	}
	for name, value := range env {
		g.cmd.Env = append(g.cmd.Env, name+"="+value)
	}
	started := make(chan error, 1)
	go func() {
		// Where the kernel ends the child with its parent, that is the thread which started it.
		runtime.LockOSThread()
		err := g.cmd.Start()
		started <- err
		if err == nil {
			g.err = g.cmd.Wait()
			close(g.done)
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start the gateway: %w", err)
	}
	if err := g.awaitReady(ctx); err != nil {
		return nil, errors.Join(err, g.stop())
	}
	return g, nil
}

func (g *benchGateway) awaitReady(ctx context.Context) error {
	client := &http.Client{Timeout: time.Second}
	defer client.CloseIdleConnections()
	for deadline := time.Now().Add(30 * time.Second); ; {
		res, err := client.Get("http://" + g.addr + "/readyz")
		if err == nil {
			_ = res.Body.Close()
			if res.StatusCode == http.StatusOK {
				return nil
			}
			err = fmt.Errorf("/readyz answers %s", res.Status)
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the gateway is not ready: %w%s", err, g.said.tail())
		}
		select {
		case <-g.done:
			return fmt.Errorf("the gateway did not start: %w", g.ended())
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// ended says how a gateway ended that has.
func (g *benchGateway) ended() error {
	if g.err == nil {
		return errors.New("it has ended" + g.said.tail())
	}
	return fmt.Errorf("%w%s", g.err, g.said.tail())
}

// stop asks the gateway to end, as its supervisor would, and makes it when it does not.
func (g *benchGateway) stop() error {
	select {
	case <-g.done: // whoever waited for it has reported how
		return nil
	default:
	}
	if err := g.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		_ = g.cmd.Process.Kill() // a system without the signal
	}
	select {
	case <-g.done:
		if g.err != nil {
			return fmt.Errorf("the gateway did not end well: %w", g.ended())
		}
		return nil
	case <-time.After(30 * time.Second):
		_ = g.cmd.Process.Kill()
		<-g.done
		return fmt.Errorf("the gateway did not end within 30 s of SIGTERM%s", g.said.tail())
	}
}

// usedCPU is the processor time that the gateway took, once it has ended.
func (g *benchGateway) usedCPU() time.Duration {
	select {
	case <-g.done:
		return g.cmd.ProcessState.UserTime() + g.cmd.ProcessState.SystemTime()
	default:
		return 0
	}
}

// benchTail keeps the end of what a process said.
type benchTail struct {
	mu  sync.Mutex
	buf []byte
}

const benchTailSize = 4096

func (t *benchTail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, b...)
	if extra := len(t.buf) - benchTailSize; extra > 0 {
		t.buf = append(t.buf[:0], t.buf[extra:]...)
	}
	return len(b), nil
}

// tail is the end, ready to be put behind an error's text.
func (t *benchTail) tail() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.buf) == 0 {
		return ""
	}
	return "; it said:\n" + string(bytes.TrimSpace(t.buf))
}
