package localpg

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

const minMajor = 14 // the oldest that lib/pq and our SQL support

// installed are the places that package managers use, all majors of each.
var installed = []string{
	"/usr/lib/postgresql/*/bin",                          // Debian, Ubuntu
	"/usr/pgsql-*/bin",                                   // PostgreSQL's own RPMs
	"/usr/libexec/postgresql*",                           // Alpine
	"/opt/homebrew/opt/postgresql@*/bin",                 // Homebrew, Apple silicon
	"/usr/local/opt/postgresql@*/bin",                    // Homebrew, Intel
	"/Applications/Postgres.app/Contents/Versions/*/bin", // Postgres.app
	"/usr/local/pgsql/bin",                               // built from source
}

const howToInstall = `
  Debian, Ubuntu:  apt-get install postgresql
  Fedora, RHEL:    dnf install postgresql-server
  Alpine:          apk add postgresql
  macOS:           brew install postgresql@17
or set DATABASE_URL to a PostgreSQL that you run`

// binaries is a folder with initdb and postgres.
type binaries struct {
	dir     string
	version string // as in "15.20"
	major   int
}

// find answers the first binaries, in the order of the package's search, that
// fit the data: where a folder has clusters, only their majors do, because a
// new major would start with an empty database beside the old one. BinDir is
// taken at its word.
func find(ctx context.Context, o Options, dir string, user *osUser) (binaries, error) {
	have := clusters(dir)
	fits := func(major int) bool { return len(have) == 0 || slices.Contains(have, major) }
	if o.BinDir != "" {
		bin, err := probe(ctx, o.BinDir, user)
		if err == nil && !fits(bin.major) {
			o.Logger.Warn("another major's data is in this folder and stays unused", "uses", bin.major, "has", have, "folder", dir)
		}
		return bin, err
	}
	var rejected []string
	places := []string{}
	if !o.hideSystem {
		places = systemPlaces(ctx)
	}
	if d := bundleBin(o); d != "" {
		if _, err := os.Stat(d); err == nil {
			places = append(places, d)
		}
	}
	for _, place := range places {
		bin, err := probe(ctx, place, user)
		if err == nil && fits(bin.major) {
			return bin, nil
		}
		if err == nil {
			err = fmt.Errorf("%s is PostgreSQL %s", place, bin.version)
		}
		rejected = append(rejected, err.Error())
	}
	if o.Fetch && fits(bundleMajor) {
		place, err := fetchBundle(ctx, o)
		if err == nil {
			return probe(ctx, place, user)
		}
		rejected = append(rejected, err.Error())
	}
	why := ""
	if len(have) > 0 {
		why = fmt.Sprintf("; the data in %s is PostgreSQL %v's, so that major is needed", dir, have)
	}
	for _, r := range rejected {
		why += "\n  " + r
	}
	return binaries{}, fmt.Errorf("%w (%d or newer)%s\nInstall it:%s", ErrNoPostgres, minMajor, why, howToInstall)
}

// systemPlaces lists folders that may hold binaries: those of the PATH first,
// then each package manager's, newest major first.
func systemPlaces(ctx context.Context) []string {
	var places []string
	if p, err := exec.LookPath("postgres"); err == nil {
		if p, err = filepath.EvalSymlinks(p); err == nil {
			places = append(places, filepath.Dir(p))
		}
	}
	if out, err := exec.CommandContext(ctx, "pg_config", "--bindir").Output(); err == nil {
		places = append(places, string(bytes.TrimSpace(out)))
	}
	for _, pattern := range installed {
		found, _ := filepath.Glob(pattern)
		slices.SortFunc(found, func(a, b string) int { return majorIn(b) - majorIn(a) })
		places = append(places, found...)
	}
	var once []string
	for _, p := range places {
		if !slices.Contains(once, p) {
			once = append(once, p)
		}
	}
	return once
}

// majorIn is the first number in a path, such as 15 in /usr/lib/postgresql/15/bin.
func majorIn(path string) int {
	from := strings.IndexAny(path, "0123456789")
	if from < 0 {
		return 0
	}
	digits := path[from:]
	if to := strings.IndexFunc(digits, func(r rune) bool { return r < '0' || r > '9' }); to >= 0 {
		digits = digits[:to]
	}
	n, _ := strconv.Atoi(digits)
	return n
}

// probe asks the binaries for their version, as the user that will run them,
// which shows at the same time that this user can and that no library is missing.
func probe(ctx context.Context, dir string, user *osUser) (binaries, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return binaries{}, err
	}
	for _, program := range []string{"initdb", "postgres"} {
		if _, err := os.Stat(filepath.Join(dir, program)); err != nil {
			return binaries{}, fmt.Errorf("%s: no %s there", dir, program)
		}
	}
	if closed := closedFolder(dir, user); closed != "" {
		return binaries{}, fmt.Errorf("%s: the user %q, whom root's PostgreSQL runs as, cannot enter %s", dir, user.name, closed)
	}
	out, err := user.run(ctx, "/", filepath.Join(dir, "postgres"), "--version")
	if err != nil {
		return binaries{}, fmt.Errorf("%s: postgres --version as %s: %w %s", dir, user, err, bytes.TrimSpace(out))
	}
	// "postgres (PostgreSQL) 15.20 (Debian 15.20-0+deb12u1)"
	words := strings.Fields(string(out))
	if len(words) < 3 {
		return binaries{}, fmt.Errorf("%s: postgres --version says %q", dir, bytes.TrimSpace(out))
	}
	bin := binaries{dir: dir, version: words[2], major: majorIn(words[2])}
	if bin.major < minMajor {
		return binaries{}, fmt.Errorf("%s is PostgreSQL %s, too old", dir, bin.version)
	}
	return bin, nil
}
