package handlers

import "strings"

// placeOf is the console's page of the thing with an id; "" where there is none.
func placeOf(id string) string {
	for prefix, page := range map[string]string{"wal_": "wallets", "grt_": "grants", "deb_": "debits", "act_": "audit"} {
		if strings.HasPrefix(id, prefix) {
			return "/console/" + page + "/" + id
		}
	}
	return officePlace(id)
}
