package localpg

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
)

// Windows compiles and no more: there, set DATABASE_URL.

var errLocked = errors.New("locked")

var errWindows = errors.New("a private PostgreSQL is not supported on Windows; set DATABASE_URL")

func flock(*os.File) error                    { return errWindows }
func unlock(f *os.File)                       { f.Close() }
func killGroup(int) error                     { return errWindows }
func ownerOf(fs.FileInfo) (uid, gid uint32)   { return 0, 0 }
func serverUser(string) (*osUser, error)      { return nil, errWindows }
func serverAttr(*osUser) *syscall.SysProcAttr { return nil }
func runsOn(pid int, cluster string) bool     { return false }
