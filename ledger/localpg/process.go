package localpg

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// PostgreSQL's shutdown modes, as signals to its first process.
const (
	fastShutdown      = syscall.SIGINT  // cut the sessions, write a checkpoint, end
	immediateShutdown = syscall.SIGQUIT // end; the next start recovers from the WAL
)

// process is a started server: err is set before done is closed.
type process struct {
	cmd  *exec.Cmd
	done chan struct{}
	err  error
}

// startProcess starts cmd from a goroutine that keeps its OS thread until the
// process has ended: Linux sends the parent-death signal when the thread that
// forked ends, and Go would else end threads as it likes.
func startProcess(cmd *exec.Cmd) (*process, error) {
	p := &process{cmd: cmd, done: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread goes with the goroutine
		err := cmd.Start()
		started <- err
		if err != nil {
			return
		}
		p.err = cmd.Wait()
		close(p.done)
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return p, nil
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// ended says how a process ended that was not asked to.
func (p *process) ended() error {
	if p.err == nil {
		return errors.New("exit status 0")
	}
	return p.err
}

// stop asks ever less politely. It is an error when the first way did not do,
// although the data is safe either way.
func (p *process) stop(fast time.Duration) error {
	select {
	case <-p.done:
		return fmt.Errorf("it had ended before (%w)", p.ended())
	default:
	}
	for _, step := range []struct {
		signal syscall.Signal
		wait   time.Duration
	}{{fastShutdown, fast}, {immediateShutdown, 10 * time.Second}, {syscall.SIGKILL, 10 * time.Second}} {
		if err := p.cmd.Process.Signal(step.signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return err
		}
		select {
		case <-p.done:
			if step.signal == fastShutdown {
				return p.err
			}
			return fmt.Errorf("no end within %v, so it was stopped with %v and recovers at the next start", fast, step.signal)
		case <-time.After(step.wait):
		}
	}
	return errors.New("it does not end, not even killed")
}

// endProcess ends a server that is not our child.
func endProcess(ctx context.Context, pid int, alive func() bool) error {
	for _, step := range []struct {
		signal syscall.Signal
		wait   time.Duration
	}{{fastShutdown, fastTimeout}, {immediateShutdown, 10 * time.Second}} {
		proc, err := os.FindProcess(pid)
		if err != nil {
			return err
		}
		if err := proc.Signal(step.signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return err
		}
		for deadline := time.Now().Add(step.wait); time.Now().Before(deadline); {
			if !alive() {
				return nil
			}
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(20 * time.Millisecond):
			}
		}
	}
	return errors.New("it does not end")
}
