package main

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// An export that can't be is refused; one that is whole says what the API says of the same entries, in both formats.
func TestExportCommand(t *testing.T) {
	w := newWorld(t, quiet)
	for _, args := range [][]string{{"-format", "xml"}, {"-customer", "a", "-wallet", "b"}, {"acme"}, {"-from", "yesterday"}, {"-to", "2026"}} {
		if out, code := w.command(append([]string{"export"}, args...)...); code != 2 || out != "" {
			t.Errorf("export %v: exit %d, %q", args, code, out)
		}
	}
	wallet, _ := w.customer("acme", "10", "")
	w.customer("other", "5", "")
	w.must("POST", "/v1/usage", map[string]any{"customer": "acme", "amount": "0.25", "idempotency_key": "k1", "metadata": map[string]string{"note": "a \"b\",\nc"}})
	w.must("POST", "/v1/holds", map[string]any{"customer": "acme", "amount": "2"})
	for _, args := range [][]string{{"-customer", "nobody"}, {"-wallet", "wal_nothing"}} {
		if out, code := w.command(append([]string{"export"}, args...)...); code != 1 || out != "" {
			t.Errorf("export %v: exit %d, %q", args, code, out)
		}
	}
	entries := w.must("GET", "/v1/wallets/"+wallet+"/entries", nil).list()
	out, code := w.command("export", "-wallet", wallet)
	lines, err := csv.NewReader(strings.NewReader(out)).ReadAll()
	if err != nil || code != 0 || len(lines) != 4 {
		t.Fatalf("exit %d, %v: %q", code, err, out)
	}
	file := filepath.Join(t.TempDir(), "books.jsonl")
	if out, code := w.command("export", "-customer", "acme", "-format", "jsonl", "-o", file); code != 0 || out != "" {
		t.Fatalf("to a file: exit %d, %q", code, out)
	}
	body, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	objects := strings.Split(strings.TrimSpace(string(body)), "\n")
	for i, line := range lines[1:] {
		e := entries[len(entries)-1-i]
		var o answer
		if err := json.Unmarshal([]byte(objects[i]), &o.m); err != nil {
			t.Fatal(err)
		}
		for c, name := range lines[0] {
			switch name {
			case "id", "type", "amount", "balance_after", "reason", "created_at":
				if line[c] != e.str(name) || o.str(name) != e.str(name) {
					t.Errorf("entry %d: %s is %q and %q, want %q", i, name, line[c], o.str(name), e.str(name))
				}
			case "seal":
				if !regexp.MustCompile(`^[0-9a-f]{64}$`).MatchString(line[c]) || o.str(name) != line[c] {
					t.Errorf("entry %d: seal %q and %q", i, line[c], o.str(name))
				}
			}
		}
	}
	debit := strings.Join(lines[2], "|")
	for _, part := range []string{"acme|" + wallet + "|usd|2|ent_", "|debit|-0.25|0|9.75|0|0|0.25|grt_", ":-0.25|usage||k1|", `{"note":"a \"b\",\nc"}`} {
		if !strings.Contains(debit, part) {
			t.Errorf("the debit lacks %q: %q", part, debit)
		}
	}
	if len(objects) != 3 || !strings.Contains(objects[1], `"metadata":{"note":`) || !strings.Contains(objects[0], `"metadata":null`) || !strings.Contains(objects[1], `"parts":[{"grant":"grt_`) {
		t.Errorf("%s", body)
	}
	if out, code := w.command("export", "-to", "2026-01-01"); code != 0 || strings.Count(out, "\n") != 1 {
		t.Errorf("before all: exit %d, %q", code, out)
	}
	if out, code := w.command("export", "-from", time.Now().Add(-24*time.Hour).Format(time.DateOnly)); code != 0 || strings.Count(out, "\n") != 5 {
		t.Errorf("since yesterday: exit %d, %q", code, out)
	}
}

// A file that could not be written whole is not there, nor is what was there before lost.
func TestExportLeavesNoHalf(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "books.csv")
	if err := os.WriteFile(file, []byte("the last one"), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	err := toFile(file, nil, func(out io.Writer) error {
		if _, err := io.WriteString(out, strings.Repeat("half of it\n", 100_000)); err != nil {
			return err
		}
		if body, _ := os.ReadFile(file); string(body) != "the last one" {
			t.Errorf("on the way: %.40q", body)
		}
		cancel()
		return ctx.Err()
	})
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	found, err := os.ReadDir(dir)
	if body, _ := os.ReadFile(file); err != nil || len(found) != 1 || string(body) != "the last one" {
		t.Errorf("%v, %v: %.40q", found, err, body)
	}
	if err := toFile(file, nil, func(out io.Writer) error { _, err := io.WriteString(out, "whole"); return err }); err != nil {
		t.Error(err)
	}
	if body, _ := os.ReadFile(file); string(body) != "whole" {
		t.Errorf("%q", body)
	}
}
