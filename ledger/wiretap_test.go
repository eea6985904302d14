package ledger_test

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"net/url"
	"sync"
	"testing"
)

// wiretap stands between a ledger and its database and notes the statements that are really sent.
type wiretap struct {
	url    string // of the database, through the tap
	mu     sync.Mutex
	sent   map[string]bool // statements since the last take
	lanes  map[string]bool // those that a lane ever sent
	parsed int             // how many were sent to be parsed, with or without a name
}

// tap listens in on the way to the database at url.
func tap(t *testing.T, database string) *wiretap {
	t.Helper()
	u, err := url.Parse(database)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	w := &wiretap{sent: make(map[string]bool), lanes: make(map[string]bool)}
	server := u.Host
	u.Host = listener.Addr().String()
	w.url = u.String()
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			go w.relay(client, server)
		}
	}()
	return w
}

// relay passes one connection on, both ways.
func (w *wiretap) relay(client net.Conn, server string) {
	defer client.Close()
	db, err := net.Dial("tcp", server)
	if err != nil {
		return
	}
	defer db.Close()
	go func() {
		_, _ = io.Copy(client, db)
		_ = client.Close()
	}()
	in, named := bufio.NewReader(client), make(map[string]string)
	lane := false
	for head := 4; ; head = 5 { // only the first message has no letter before its length
		message := make([]byte, head)
		if _, err := io.ReadFull(in, message); err != nil {
			return
		}
		body := make([]byte, int(binary.BigEndian.Uint32(message[head-4:]))-4)
		if _, err := io.ReadFull(in, body); err != nil {
			return
		}
		if head == 5 {
			lane = lane || bytes.Contains(body, []byte("force_generic_plan")) // among a lane's settings
			w.note(message[0], body, named, lane)
		}
		if _, err := db.Write(append(message, body...)); err != nil {
			return
		}
	}
}

// note notes a statement when it is executed: a Query, or the Bind of one that was parsed.
func (w *wiretap) note(letter byte, body []byte, named map[string]string, lane bool) {
	fields := bytes.SplitN(body, []byte{0}, 3)
	text := ""
	w.mu.Lock()
	defer w.mu.Unlock()
	switch letter {
	case 'P': // name, text
		named[string(fields[0])] = string(fields[1])
		w.parsed++
		return
	case 'B': // portal, name
		text = named[string(fields[1])]
	case 'Q':
		text = string(fields[0])
	default:
		return
	}
	w.sent[text] = true
	if lane {
		w.lanes[text] = true
	}
}

// take answers what was sent since the last time.
func (w *wiretap) take() (statements []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for s := range w.sent {
		statements = append(statements, s)
	}
	clear(w.sent)
	return statements
}

// ofLane reports whether a statement is one that a lane sends.
func (w *wiretap) ofLane(statement string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.lanes[statement]
}

// parses answers how many statements were sent to be parsed so far.
func (w *wiretap) parses() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.parsed
}
