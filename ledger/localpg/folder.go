package localpg

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// varLib holds the data of root's servers whose wanted folder is out of reach
// for the user they run as. A variable for the tests only.
var varLib = "/var/lib/lockstep"

const linkName = "postgres"

// prepareFolder makes the data folder and answers where the data really goes
// and whom the server must run as (nil: whoever we are).
func prepareFolder(wanted string, log *slog.Logger) (string, *osUser, error) {
	if wanted == "" {
		return "", nil, errors.New("Options.DataDir is empty")
	}
	dir, err := makeFolder(wanted, 0o711) // the cluster inside is closed to others
	if err != nil {
		return "", nil, err
	}
	// A link from an earlier run wins over every rule below: that is where the data is.
	link := filepath.Join(dir, linkName)
	if target, err := os.Readlink(link); err == nil {
		if dir, err = filepath.EvalSymlinks(link); err != nil {
			return "", nil, fmt.Errorf("%s says that the data is in %s, but that is gone; put it back, or remove the link to start with an empty database", link, target)
		}
	}
	user, err := serverUser(dir)
	if err != nil || user == nil {
		return dir, nil, err
	}
	closed := closedFolder(dir, user)
	if closed == "" {
		return dir, user, nil
	}
	target, err := linkToVarLib(dir, link, user)
	if err != nil {
		return "", nil, fmt.Errorf("PostgreSQL does not run as root, and the user %q cannot enter %s; set DATA_DIR to a folder it can reach, or DATABASE_URL to a server that you run (%w)", user.name, closed, err)
	}
	log.Warn("postgres data is outside of the wanted folder, which its user cannot enter",
		"wanted", dir, "closed", closed, "user", user.name, "data", target)
	return target, user, nil
}

// makeFolder creates a folder of ours and those above it, open for others as
// mode says whatever the umask is, and answers its absolute path without links,
// which is how the server itself names it. What is there already stays as it is.
func makeFolder(wanted string, mode fs.FileMode) (string, error) {
	dir, err := filepath.Abs(wanted)
	if err != nil {
		return "", err
	}
	switch info, err := os.Stat(dir); {
	case err == nil && info.IsDir():
		return filepath.EvalSymlinks(dir)
	case err == nil:
		return "", fmt.Errorf("%s is no folder", dir)
	case !errors.Is(err, fs.ErrNotExist):
		return "", err
	}
	if _, err := makeFolder(filepath.Dir(dir), 0o755); err != nil {
		return "", err
	}
	if err := os.Mkdir(dir, mode); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", err
	}
	if err := os.Chmod(dir, mode); err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(dir)
}

// linkToVarLib makes a folder below varLib and leaves a link to it. The name is
// new each time, so that removing the data folder means an empty database
// next time, as one expects. Of two processes the one whose link is first wins.
func linkToVarLib(dir, link string, user *osUser) (string, error) {
	base, err := makeFolder(varLib, 0o755)
	if err != nil {
		return "", err
	}
	if closed := closedFolder(base, user); closed != "" {
		return "", fmt.Errorf("nor %s", closed)
	}
	target, err := os.MkdirTemp(base, fmt.Sprintf("%x", sha256.Sum256([]byte(dir)))[:12]+"-*")
	if err != nil {
		return "", err
	}
	if err := os.Chmod(target, 0o711); err != nil {
		return "", err
	}
	if err := os.Symlink(target, link); err != nil {
		os.Remove(target)
		if !errors.Is(err, fs.ErrExist) {
			return "", err
		}
	}
	return filepath.EvalSymlinks(link)
}

// lockFolder takes the lock that lives as long as the server. The kernel drops
// it with the process, however that ends, so it is never stale.
func lockFolder(dir string) (*os.File, error) {
	f, err := openIn(dir, "postgres.lock", os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	if err := flock(f); err != nil {
		defer f.Close()
		if !errors.Is(err, errLocked) {
			return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
		}
		return nil, fmt.Errorf("%w by process %s: %s", ErrInUse, lockHolder(f), dir)
	}
	if err := errors.Join(f.Truncate(0), writeAt(f, strconv.Itoa(os.Getpid())+"\n")); err != nil {
		unlock(f)
		return nil, err
	}
	return f, nil
}

// lockHolder reads the pid that the winner writes, an instant after it has won.
func lockHolder(f *os.File) string {
	b := make([]byte, 20)
	for range 20 {
		n, _ := f.ReadAt(b, 0)
		if pid, whole := strings.CutSuffix(string(b[:n]), "\n"); whole {
			return pid
		}
		time.Sleep(10 * time.Millisecond)
	}
	return "(unknown)"
}

func writeAt(f *os.File, text string) error {
	_, err := f.WriteAt([]byte(text), 0)
	return err
}

// openIn opens a file of a folder without following links out of it: root
// works in folders that belong to others.
func openIn(dir, name string, flag int, perm fs.FileMode) (*os.File, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	return root.OpenFile(name, flag, perm)
}
