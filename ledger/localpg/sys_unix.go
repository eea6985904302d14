//go:build unix

package localpg

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
)

// serverUsers are whom root's server may run as, the first that exists.
var serverUsers = []string{"postgres", "nobody"}

var errLocked = error(syscall.EWOULDBLOCK)

func flock(f *os.File) error {
	return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
}

// unlock does not leave it to Close: a child that is being forked at this very
// moment has a copy of the file, and would hold the lock until it execs.
func unlock(f *os.File) {
	syscall.Flock(int(f.Fd()), syscall.LOCK_UN)
	f.Close()
}

func killGroup(pid int) error { return syscall.Kill(-pid, syscall.SIGKILL) }

func ownerOf(info fs.FileInfo) (uid, gid uint32) {
	st := info.Sys().(*syscall.Stat_t)
	return st.Uid, st.Gid
}

// serverUser says whom the server on dir must run as: ourselves, unless we are
// root. The owner of a cluster that is there already goes before all others,
// because PostgreSQL insists on it.
func serverUser(dir string) (*osUser, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	for _, major := range clusters(dir) {
		info, err := os.Stat(filepath.Join(dir, clusterName(major)))
		if err != nil {
			return nil, err
		}
		if uid, gid := ownerOf(info); uid != 0 {
			return &osUser{name: nameOf(uid), uid: uid, gid: gid}, nil
		}
	}
	for _, name := range serverUsers {
		if u, err := lookupUser(name); err == nil {
			return u, nil
		}
	}
	return nil, fmt.Errorf("PostgreSQL does not run as root, and there is no user to run it as, none of %q; make one, or run as a plain user", serverUsers)
}

func lookupUser(name string) (*osUser, error) {
	found, err := user.Lookup(name)
	if err != nil {
		return nil, err
	}
	// Signed, because macOS may write nobody's number as -2.
	uid, err1 := strconv.ParseInt(found.Uid, 10, 64)
	gid, err2 := strconv.ParseInt(found.Gid, 10, 64)
	return &osUser{name: name, uid: uint32(uid), gid: uint32(gid)}, errors.Join(err1, err2)
}

func nameOf(uid uint32) string {
	id := strconv.FormatUint(uint64(uid), 10)
	if u, err := user.LookupId(id); err == nil {
		return u.Username
	}
	return "uid " + id
}

func credential(u *osUser) *syscall.Credential {
	if u == nil {
		return nil
	}
	return &syscall.Credential{Uid: u.uid, Gid: u.gid}
}
