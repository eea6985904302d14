package localpg

import (
	"context"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
)

// osUser is whom the server runs as when that is not ourselves. All methods
// work on nil, which stands for ourselves.
type osUser struct {
	name     string
	uid, gid uint32
}

func (u *osUser) String() string {
	if u == nil {
		return "the current user"
	}
	return u.name
}

// own gives a file to the user.
func (u *osUser) own(path string) error {
	if u == nil {
		return nil
	}
	return os.Lchown(path, int(u.uid), int(u.gid))
}

// command prepares a program of PostgreSQL's. Its environment is empty but
// for the locale, so that a stray PG… or LC_… variable changes nothing. It has
// a process group of its own: the terminal's Ctrl-C is for us, and we stop the
// server when we no longer need it.
func (u *osUser) command(dir, program string, args ...string) *exec.Cmd {
	cmd := exec.Command(program, args...)
	cmd.Dir = dir
	cmd.Env = []string{"LC_ALL=C", "PATH=/usr/bin:/bin"}
	cmd.SysProcAttr = serverAttr(u)
	return cmd
}

// run runs a program to its end and answers all that it printed. When ctx ends,
// the program and its children are killed.
func (u *osUser) run(ctx context.Context, dir, program string, args ...string) ([]byte, error) {
	// Its parent-death signal is tied to this thread, see startProcess.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd := exec.CommandContext(ctx, program, args...)
	proto := u.command(dir, program)
	cmd.Dir, cmd.Env, cmd.SysProcAttr = proto.Dir, proto.Env, proto.SysProcAttr
	cmd.Cancel = func() error { return killGroup(cmd.Process.Pid) }
	return cmd.CombinedOutput()
}

// closedFolder answers the first folder on the way to dir (or dir itself) that
// the user may not pass, "" when there is none.
func closedFolder(dir string, u *osUser) string {
	if u == nil {
		return ""
	}
	if parent := filepath.Dir(dir); parent != dir {
		if closed := closedFolder(parent, u); closed != "" {
			return closed
		}
	}
	info, err := os.Stat(dir)
	if err != nil || !passable(info, u) {
		return dir
	}
	return ""
}

// passable reads the mode bits as the kernel does: the first class that fits decides.
func passable(info fs.FileInfo, u *osUser) bool {
	uid, gid := ownerOf(info)
	switch {
	case uid == u.uid:
		return info.Mode()&0o100 != 0
	case gid == u.gid:
		return info.Mode()&0o010 != 0
	}
	return info.Mode()&0o001 != 0
}
