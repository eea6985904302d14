package localpg

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha512"
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// entry is a file of a made-up bundle; a link has a target.
type entry struct {
	name, text string
	mode       int64
	link       string
}

var goodBundle = []entry{
	{name: "package/package.json", text: "{}", mode: 0o644},
	{name: "package/native/bin/postgres", text: "binary", mode: 0o644}, // to be made executable
	{name: "package/native/lib/deep/er/x.so", text: "x", mode: 0o755},
	{name: "package/native/lib/libicuuc.so.60.2", text: "icu", mode: 0o644},
	{name: "package/native/pg-symlinks.json", mode: 0o644,
		text: `[{"source":"native/lib/libicuuc.so.60.2","target":"native/lib/libicuuc.so.60"}]`},
}

// tarball writes a bundle as npm would and answers its path and pin.
func tarball(t *testing.T, entries []entry) (path, pin string) {
	t.Helper()
	var b bytes.Buffer
	zip := gzip.NewWriter(&b)
	files := tar.NewWriter(zip)
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Mode: e.mode, Size: int64(len(e.text)), Typeflag: tar.TypeReg}
		if e.link != "" {
			h.Typeflag, h.Linkname = tar.TypeSymlink, e.link
		}
		if err := files.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := files.Write([]byte(e.text)); err != nil {
			t.Fatal(err)
		}
	}
	files.Close()
	zip.Close()
	path = filepath.Join(t.TempDir(), "bundle.tgz")
	if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	sum := sha512.Sum512(b.Bytes())
	return path, base64.StdEncoding.EncodeToString(sum[:])
}

// Several processes install the same bundle: all succeed, and there is one
// whole folder that every user can read.
func TestBundleIsUnpackedWhole(t *testing.T) {
	path, pin := tarball(t, goodBundle)
	dir := filepath.Join(t.TempDir(), "bundle")
	var wg sync.WaitGroup
	for range 4 {
		tmp := t.TempDir()
		wg.Go(func() {
			if err := installBundle(path, pin, tmp, dir); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if b, err := os.ReadFile(filepath.Join(dir, "native/lib/libicuuc.so.60")); string(b) != "icu" {
		t.Errorf("through the link: %q %v", b, err)
	}
	for name, want := range map[string]os.FileMode{
		".":                         0o755,
		"native/lib/deep/er":        0o755,
		"native/bin/postgres":       0o755,
		"native/lib/deep/er/x.so":   0o755,
		"native/pg-symlinks.json":   0o644,
		"native/lib/libicuuc.so.60": 0o644,
	} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v %v, want mode %o", name, info, err, want)
		}
	}
}

func TestBundleIsRefused(t *testing.T) {
	links := func(json string) []entry {
		return []entry{{name: "package/native/lib/a", text: "a", mode: 0o644}, {name: "package/native/pg-symlinks.json", text: json, mode: 0o644}}
	}
	for name, bad := range map[string][]entry{
		"parent folder":       {{name: "package/../../evil", text: "x", mode: 0o644}},
		"absolute name":       {{name: "package//etc/evil", text: "x", mode: 0o644}},
		"link entry":          {{name: "package/native", link: "/etc"}},
		"same file twice":     {goodBundle[0], goodBundle[0]},
		"no list of links":    goodBundle[:1],
		"link target outside": links(`[{"source":"native/lib/a","target":"../evil"}]`),
		"link source outside": links(`[{"source":"../../etc/passwd","target":"native/lib/b"}]`),
		"absolute link":       links(`[{"source":"/etc/passwd","target":"native/lib/b"}]`),
	} {
		t.Run(name, func(t *testing.T) {
			path, pin := tarball(t, bad)
			parent := t.TempDir()
			tmp, dir := filepath.Join(parent, "tmp"), filepath.Join(parent, "bundle")
			if err := os.Mkdir(tmp, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := installBundle(path, pin, tmp, dir); err == nil {
				t.Error("was accepted")
			}
			if _, err := os.Lstat(dir); err == nil {
				t.Error("the bundle's folder is there")
			}
			if _, err := os.Lstat(filepath.Join(parent, "evil")); err == nil {
				t.Error("a file was written outside")
			}
		})
	}
}

func TestBundleWithOtherContentIsRefused(t *testing.T) {
	path, _ := tarball(t, goodBundle)
	_, pin := tarball(t, goodBundle[:2])
	tmp := t.TempDir()
	err := installBundle(path, pin, tmp, filepath.Join(tmp, "bundle"))
	if err == nil || !strings.Contains(err.Error(), "checksum") {
		t.Errorf("got %v, want a refusal for the checksum", err)
	}
	if _, err := os.Lstat(filepath.Join(tmp, "unpacked")); err == nil {
		t.Error("it was unpacked before it was checked")
	}
}

// The place for a fetched bundle must be open to the user of root's server.
func TestDefaultCacheIsReachable(t *testing.T) {
	dir := bundleDir(Options{DataDir: "/data"})
	if !filepath.IsAbs(dir) || !strings.HasSuffix(dir, platform()) {
		t.Errorf("bundle folder %q", dir)
	}
	if os.Geteuid() == 0 && !strings.HasPrefix(dir, "/var/cache/") {
		t.Errorf("root's bundle folder is %q, perhaps below root's home", dir)
	}
}
