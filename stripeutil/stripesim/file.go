package stripesim

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// record is a line of the state file after the first, which holds everything
// else. Events and balance transactions are most of an old account and hardly
// ever change: their lines are rendered once.
type record struct {
	Event              *event              `json:",omitempty"`
	BalanceTransaction *balanceTransaction `json:",omitempty"`
}

// load reads the state file, if there is one. Held deliveries have nobody left
// to release them and become due.
func (s *Sim) load() error {
	f, err := os.Open(s.file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	lines := json.NewDecoder(bufio.NewReader(f))
	if err := lines.Decode(s.state); err != nil {
		return err
	}
	s.state.repair()
	for {
		var r record
		err := lines.Decode(&r)
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		if r.Event != nil {
			s.state.Events.put(r.Event.ID, r.Event)
		}
		if t := r.BalanceTransaction; t != nil {
			s.state.BalanceTransactions.put(t.ID, t)
		}
	}
	for _, d := range s.state.Pending {
		d.Held = false
	}
	return nil
}

// flush returns when the file holds the given generation of the state or a
// later one. Calls that wait for the writer find their change written along
// with its own: one fsync serves them all. The file is replaced as a whole, so
// a kill at any moment leaves the old or the new state.
func (s *Sim) flush(generation uint64) error {
	if s.file == "" {
		return nil
	}
	s.save.Lock()
	defer s.save.Unlock()
	if s.saved >= generation {
		return nil
	}
	s.mu.Lock()
	lines, held := s.state.lines(), s.generation
	s.mu.Unlock()
	if err := replaceFile(s.file, lines); err != nil {
		s.log.Error("state file not written", "file", s.file, "err", err)
		return err
	}
	s.saved = held
	return nil
}

// lines is the state as the file holds it.
func (st *state) lines() [][]byte {
	out := make([][]byte, 1, 1+len(st.Events.Order)+len(st.BalanceTransactions.Order))
	out[0] = encode(st)
	for id, e := range st.Events.oldest {
		out = append(out, st.Events.line(id, record{Event: e}))
	}
	for id, t := range st.BalanceTransactions.oldest {
		out = append(out, st.BalanceTransactions.line(id, record{BalanceTransaction: t}))
	}
	return out
}

// replaceFile writes a file beside the old one and moves it into place.
func replaceFile(name string, lines [][]byte) error {
	f, err := os.OpenFile(name+".tmp", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	w := bufio.NewWriterSize(f, 1<<20)
	for _, l := range lines {
		w.Write(l)
		w.WriteByte('\n') // an error stays with the writer until Flush
	}
	err = errors.Join(w.Flush(), f.Sync(), f.Close())
	if err != nil {
		return err
	}
	if err := os.Rename(name+".tmp", name); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(name))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
