package pages

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"mime"
	"path"
)

// What others have written: htmx 2.0.11, Pico 2.1.1 and uPlot 1.6.32, as npm has them, each with its license, which goes
// wherever the binary goes.
//
//go:embed static/*.css static/*.js static/*.LICENSE
var staticFiles embed.FS

// Static is one file that pages load: a style sheet, a script, a picture.
type Static struct {
	Kind    string // its Content-Type
	Content []byte
	Version string // changes with the content
}

func newStatic(kind string, content []byte) Static {
	sum := sha256.Sum256(content)
	return Static{kind, content, hex.EncodeToString(sum[:6])}
}

// statics are the embedded files by name.
func statics() (map[string]Static, error) {
	all := make(map[string]Static)
	entries, err := staticFiles.ReadDir("static")
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		b, err := staticFiles.ReadFile("static/" + e.Name())
		if err != nil {
			return nil, err
		}
		kind := mime.TypeByExtension(path.Ext(e.Name()))
		if path.Ext(e.Name()) == ".LICENSE" {
			kind = "text/plain; charset=utf-8"
		}
		all[e.Name()] = newStatic(kind, b)
	}
	return all, nil
}

// Static is the file of that name that pages load.
func (s *Site) Static(name string) (Static, bool) {
	f, ok := s.statics[name]
	return f, ok
}

// asset is the address of a file that pages load. The version in it lets a browser keep the file for good.
func (s *Site) asset(name string) (string, error) {
	f, ok := s.statics[name]
	if !ok {
		return "", errNoFile(name)
	}
	return "/static/" + f.Version + "/" + name, nil
}

type errNoFile string

func (e errNoFile) Error() string { return "pages: there is no file " + string(e) }
