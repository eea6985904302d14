package handlers

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"time"

	"lockstep/handlers/openapi"
	"lockstep/handlers/pages"
)

// getDocument serves the description of all that is served.
func (s *Server) getDocument(c *call) error {
	d, err := openapi.Load()
	if err != nil {
		return err
	}
	return c.file("application/json", d.JSON)
}

// pagePolicy lets a page load its style from here, and nothing else from anywhere.
const pagePolicy = "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// getDocs serves the description as a page.
func (s *Server) getDocs(c *call) error {
	page, err := pages.Docs()
	if err != nil {
		return err
	}
	c.w.Header().Set("Content-Security-Policy", pagePolicy)
	c.w.Header().Set("Referrer-Policy", "no-referrer")
	return c.file("text/html; charset=utf-8", page)
}

func (s *Server) getDocsStyle(c *call) error {
	style, err := pages.Style("docs.css")
	if err != nil {
		return err
	}
	return c.file("text/css; charset=utf-8", style)
}

// file serves bytes that change with the binary alone: whoever has them asks whether they are still the same.
func (c *call) file(kind string, content []byte) error {
	c.done = true
	h := c.w.Header()
	sum := sha256.Sum256(content)
	h.Set("ETag", `"`+hex.EncodeToString(sum[:16])+`"`)
	h.Set("Cache-Control", "no-cache")
	h.Set("Content-Type", kind)
	h.Set("X-Content-Type-Options", "nosniff")
	http.ServeContent(c.w, c.r, "", time.Time{}, bytes.NewReader(content))
	return nil
}
