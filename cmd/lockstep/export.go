package main

import (
	"bufio"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"lockstep/handlers"
	"lockstep/ledger"
)

// export writes entries out for other programs and other years: every column, amounts in the asset's unit.
func export(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	f := flags("export", stderr)
	customer := f.String("customer", "", "only this one: your id, or Stripe's cus_…")
	wallet := f.String("wallet", "", "only this one")
	format := f.String("format", "csv", "csv, or jsonl: an object a line")
	file := f.String("o", "", "write to this file, which appears when it is whole (default: standard output)")
	var in ledger.ExportInput
	f.Func("from", "entries from this moment on: 2026-01-31 or 2026-01-31T12:00:00Z", moment(&in.From))
	f.Func("to", "entries before this moment", moment(&in.To))
	f.Usage = func() {
		fmt.Fprint(stderr, "Usage: lockstep export [-customer ID | -wallet wal_…] [-from TIME] [-to TIME] [-format csv|jsonl] [-o FILE]\n")
		f.PrintDefaults()
	}
	if err := parse(f, args); err != nil {
		return err
	}
	if f.NArg() > 0 || *customer != "" && *wallet != "" || *format != "csv" && *format != "jsonl" {
		f.Usage()
		return errUsage
	}
	return withLedger(ctx, stderr, func(l *ledger.Ledger) error {
		if *customer != "" {
			c, err := l.Customer(ctx, *customer)
			if err != nil {
				return err
			}
			in.Customer = c.Ref
		}
		if *wallet != "" {
			w, err := l.Wallet(ctx, *wallet)
			if err != nil {
				return err
			}
			in.Wallet, in.Customer = w.ID, ledger.Ref{Bucket: w.Bucket, ID: w.Customer}
		}
		return toFile(*file, stdout, func(out io.Writer) error { return exportTo(ctx, l, in, *format, out, stderr) })
	})
}

// moment reads a flag that is a time or a day in UTC.
func moment(into **time.Time) func(string) error {
	return func(s string) error {
		at, err := time.Parse(time.RFC3339Nano, s)
		if err != nil {
			if at, err = time.Parse(time.DateOnly, s); err != nil {
				return errors.New("want a day such as 2026-01-31, or an RFC 3339 time")
			}
		}
		*into = &at
		return nil
	}
}

// toFile has a file written under another name, which becomes the file's when it is whole and on disk, so that one cut
// short is not taken for whole.
func toFile(name string, stdout io.Writer, write func(io.Writer) error) (err error) {
	if name == "" {
		out := bufio.NewWriterSize(stdout, 1<<16)
		return errors.Join(write(out), out.Flush())
	}
	partial := name + ".partial"
	file, err := os.OpenFile(partial, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	out := bufio.NewWriterSize(file, 1<<16)
	if err = write(out); err == nil {
		err = out.Flush()
	}
	if err == nil {
		err = file.Sync()
	}
	if err = errors.Join(err, file.Close()); err == nil {
		err = os.Rename(partial, name)
	}
	if err != nil {
		_ = os.Remove(partial) // it says by its name what it is, should it stay
	}
	return err
}

func exportTo(ctx context.Context, l *ledger.Ledger, in ledger.ExportInput, format string, out, stderr io.Writer) error {
	write := writeJSONL(out)
	end := func() error { return nil }
	if format == "csv" {
		w := csv.NewWriter(out)
		if err := w.Write(handlers.ExportColumns); err != nil {
			return err
		}
		write = func(e *ledger.ExportedEntry) error { return w.Write(handlers.ExportRecord(e)) }
		end = func() error { w.Flush(); return w.Error() }
	}
	shown := newProgress(stderr, "export")
	defer shown.end()
	if err := l.Export(ctx, in, shown.at, write); err != nil {
		return err
	}
	return end()
}

// writeJSONL writes entries as objects of texts, of the names and in the order of the CSV, but for what is no text
// there either: parts are a list, metadata is an object.
func writeJSONL(out io.Writer) func(*ledger.ExportedEntry) error {
	type part struct {
		Grant  string `json:"grant"`
		Amount string `json:"amount"`
	}
	var line strings.Builder
	return func(e *ledger.ExportedEntry) error {
		line.Reset()
		for i, text := range handlers.ExportRecord(e) {
			var v any = text
			switch handlers.ExportColumns[i] {
			case "seq":
				v = e.Seq
			case "parts":
				parts := make([]part, len(e.Parts))
				for i, p := range e.Parts {
					parts[i] = part{p.Grant, ledger.FormatSteps(p.Amount, e.Scale)}
				}
				v = parts
			case "metadata":
				switch {
				case text == "":
					v = nil
				case json.Valid([]byte(text)): // else somebody has been at the row: as a text it is still told
					v = json.RawMessage(text)
				}
			}
			value, err := json.Marshal(v)
			if err != nil {
				return err
			}
			sep := ","
			if i == 0 {
				sep = "{"
			}
			line.WriteString(sep + `"` + handlers.ExportColumns[i] + `":`)
			line.Write(value)
		}
		line.WriteString("}\n")
		_, err := io.WriteString(out, line.String())
		return err
	}
}
