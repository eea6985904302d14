package ledgertest

import (
	"io"
	"net"
	"net/url"
	"sync"
	"testing"
	"time"
)

// Line is a network between a ledger and its PostgreSQL that can be slow, or swallow whatever is sent, as a dead
// network does: nobody is told.
type Line struct {
	listener net.Listener

	mu     sync.Mutex
	to     string // the server's address
	delay  time.Duration
	dead   bool          // connections are taken, and nothing comes of them
	killed chan struct{} // closed when those that are open are to be silent for ever
	open   map[net.Conn]struct{}
}

// NewLine puts a line in front of the server at dsn and answers it with the dsn that leads through it.
func NewLine(t testing.TB, dsn string) (*Line, string) {
	t.Helper()
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &Line{listener: listener, to: u.Host, killed: make(chan struct{}), open: make(map[net.Conn]struct{})}
	go l.serve()
	t.Cleanup(func() {
		_ = listener.Close()
		l.Cut()
	})
	u.Host = listener.Addr().String()
	return l, u.String()
}

// To leads new connections to another server.
func (l *Line) To(t testing.TB, dsn string) {
	t.Helper()
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.to = u.Host
}

// Delay has each packet, in each direction, take so long.
func (l *Line) Delay(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.delay = d
}

// Die swallows all that is sent from now on. What is open then stays silent for ever.
func (l *Line) Die() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dead = true
	close(l.killed)
	l.killed = make(chan struct{})
}

// Live has new connections work again.
func (l *Line) Live() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dead = false
}

// Cut closes all connections.
func (l *Line) Cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.open {
		_ = c.Close()
	}
}

func (l *Line) serve() {
	for {
		c, err := l.listener.Accept()
		if err != nil {
			return
		}
		go l.carry(c)
	}
}

func (l *Line) carry(c net.Conn) {
	l.mu.Lock()
	to, dead, killed := l.to, l.dead, l.killed
	l.open[c] = struct{}{}
	l.mu.Unlock()
	defer l.end(c)
	if dead {
		_, _ = io.Copy(io.Discard, c)
		return
	}
	s, err := net.Dial("tcp4", to)
	if err != nil {
		return
	}
	l.mu.Lock()
	l.open[s] = struct{}{}
	l.mu.Unlock()
	defer l.end(s)
	back := make(chan struct{})
	go func() { l.pump(c, s, killed); close(back) }()
	l.pump(s, c, killed) // until the client goes
	_ = s.Close()
	<-back
}

func (l *Line) end(c net.Conn) {
	_ = c.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.open, c)
}

// pump carries what is sent one way, until either end is closed.
func (l *Line) pump(to, from net.Conn, killed <-chan struct{}) {
	defer func() {
		select {
		case <-killed: // nobody hears of an end either
		default:
			_ = to.Close()
		}
	}()
	b := make([]byte, 64<<10)
	for {
		n, err := from.Read(b)
		if err != nil {
			return
		}
		l.mu.Lock()
		delay := l.delay
		l.mu.Unlock()
		time.Sleep(delay)
		select {
		case <-killed:
			continue
		default:
		}
		if _, err := to.Write(b[:n]); err != nil {
			return
		}
	}
}
