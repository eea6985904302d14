package handlers

import (
	"net/http"

	"lockstep/handlers/pages"
)

// showOverview is the console's first page.
func (s *Server) showOverview(v *visit) error {
	return s.show(v, http.StatusOK, "overview", pages.Frame{Title: "Overview"})
}
