package stripesim

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// load reads the state file, if there is one. Held deliveries have nobody left
// to release them and become due.
func (s *Sim) load() error {
	data, err := os.ReadFile(s.file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, s.state); err != nil {
		return err
	}
	s.state.repair()
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
	data, held := encode(s.state), s.generation
	s.mu.Unlock()
	if err := replaceFile(s.file, data); err != nil {
		s.log.Error("state file not written", "file", s.file, "err", err)
		return err
	}
	s.saved = held
	return nil
}

// replaceFile writes a file beside the old one and moves it into place.
func replaceFile(name string, data []byte) error {
	f, err := os.OpenFile(name+".tmp", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Sync(), f.Close())
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
