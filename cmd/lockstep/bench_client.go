package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"
)

// benchConn is one kept-alive HTTP/1.1 connection. The load generator shares the machine with what it measures, so it
// spends as little as it can: net/http's client would cost as much CPU as the server's side of the same request.
type benchConn struct {
	conn net.Conn
	in   *bufio.Reader
	head []byte // what follows the path of every request: the protocol and the headers that are always the same
	out  []byte
	body []byte
}

// dialBench connects to addr for requests with an API key.
func dialBench(ctx context.Context, addr, key string) (*benchConn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	head := fmt.Appendf(nil, " HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\n", addr, key)
	return &benchConn{conn: conn, in: bufio.NewReaderSize(conn, 8<<10), head: head}, nil
}

func (c *benchConn) close() { _ = c.conn.Close() }

// stopBy makes every read and write fail from a moment on.
func (c *benchConn) stopBy(at time.Time) { _ = c.conn.SetDeadline(at) }

// post sends a body to a path and reads the whole answer, which is good until the next request. After an error the
// connection is of no use any more.
func (c *benchConn) post(path, body []byte) (status int, answer []byte, err error) {
	c.begin("POST ", path)
	c.out = append(c.out, "Content-Type: application/json\r\nContent-Length: "...)
	c.out = strconv.AppendInt(c.out, int64(len(body)), 10)
	c.out = append(c.out, "\r\n\r\n"...)
	c.out = append(c.out, body...)
	return c.send()
}

// get asks for a path, as post does.
func (c *benchConn) get(path []byte) (status int, answer []byte, err error) {
	c.begin("GET ", path)
	c.out = append(c.out, "\r\n"...)
	return c.send()
}

func (c *benchConn) begin(method string, path []byte) {
	c.out = append(append(append(c.out[:0], method...), path...), c.head...)
}

func (c *benchConn) send() (status int, answer []byte, err error) {
	if _, err := c.conn.Write(c.out); err != nil {
		return 0, nil, err
	}
	return c.answer()
}

var errBenchAnswer = errors.New("the answer is not HTTP/1.1 as this client knows it")

func (c *benchConn) answer() (status int, body []byte, err error) {
	line, err := c.line()
	if err != nil {
		return 0, nil, err
	}
	// "HTTP/1.1 200 OK"
	if len(line) < 12 || !bytes.HasPrefix(line, []byte("HTTP/1.1 ")) {
		return 0, nil, fmt.Errorf("%w: it begins with %q", errBenchAnswer, line)
	}
	if status, err = strconv.Atoi(string(line[9:12])); err != nil {
		return 0, nil, fmt.Errorf("%w: status %q", errBenchAnswer, line)
	}
	length, chunked, err := c.headers()
	if err != nil {
		return 0, nil, err
	}
	c.body = c.body[:0]
	switch {
	case chunked:
		err = c.chunks()
	case length >= 0:
		err = c.read(length)
	default:
		err = fmt.Errorf("%w: it has no length", errBenchAnswer)
	}
	return status, c.body, err
}

// headers reads up to the empty line and answers how the body is framed; length is -1 when none is named.
func (c *benchConn) headers() (length int, chunked bool, err error) {
	length = -1
	for {
		line, err := c.line()
		if err != nil || len(line) == 0 {
			return length, chunked, err
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		switch {
		case bytes.EqualFold(name, []byte("Content-Length")):
			if length, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil || length < 0 {
				return 0, false, fmt.Errorf("%w: %q", errBenchAnswer, line)
			}
		case bytes.EqualFold(name, []byte("Transfer-Encoding")):
			chunked = bytes.EqualFold(bytes.TrimSpace(value), []byte("chunked"))
		}
	}
}

func (c *benchConn) chunks() error {
	for {
		line, err := c.line()
		if err != nil {
			return err
		}
		size, err := strconv.ParseUint(string(line), 16, 31)
		if err != nil {
			return fmt.Errorf("%w: chunk of %q", errBenchAnswer, line)
		}
		if err := c.read(int(size)); err != nil {
			return err
		}
		if line, err = c.line(); err != nil {
			return err
		}
		if len(line) > 0 { // the chunk did not end where it said; trailers are never sent to us
			return fmt.Errorf("%w: %q after a chunk", errBenchAnswer, line)
		}
		if size == 0 {
			return nil
		}
	}
}

// read appends the next n bytes to the body.
func (c *benchConn) read(n int) error {
	from := len(c.body)
	if cap(c.body) < from+n {
		c.body = append(make([]byte, 0, max(2*cap(c.body), from+n)), c.body...)
	}
	c.body = c.body[:from+n]
	_, err := io.ReadFull(c.in, c.body[from:])
	return err
}

// line is the next line without its end, good until the next read.
func (c *benchConn) line() ([]byte, error) {
	line, err := c.in.ReadSlice('\n')
	if err != nil {
		return nil, err
	}
	return bytes.TrimRight(line, "\r\n"), nil
}
