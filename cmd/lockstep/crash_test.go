package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"lockstep/stripeutil/stripesim"
)

// process is a gateway in a process of its own, which can be killed.
type process struct {
	cmd  *exec.Cmd
	base string
	done chan struct{} // closed when it has ended
	log  *lockedBuffer
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// listensAt finds in a process's log where it listens.
var listensAt = regexp.MustCompile(`msg=listening address=(\S+)`)

// spawn starts a gateway process on the world's database and Stripe that kills itself at a point, "" for never.
func (w *world) spawn(crashAt string) *process {
	w.t.Helper()
	exe, err := os.Executable()
	if err != nil {
		w.t.Fatal(err)
	}
	p := &process{cmd: exec.Command(exe, "serve"), done: make(chan struct{}), log: &lockedBuffer{}}
	p.cmd.Stderr, p.cmd.Stdout = p.log, io.Discard
	p.cmd.Env = append(os.Environ(), asMain+"=1", "LOCKSTEP_CRASH_AT="+crashAt, "DATABASE_URL="+w.o.url, "LISTEN_ADDR=127.0.0.1:0",
		"STRIPE_SECRET_KEY="+w.sim.SecretKey(), "STRIPE_WEBHOOK_SECRET="+strings.Join(w.o.secrets, ","), "STRIPE_API_BASE="+w.o.stripeURL,
		"STRIPE_REQUESTS_PER_SECOND=1000", "LOCKSTEP_API_KEY="+w.key, "MIRROR_INTERVAL=100ms", "BACKFILL_INTERVAL=2s", "LOG_LEVEL=debug",
		"OUTBOUND_ALLOW_PRIVATE=true")
	if err := p.cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	go func() { _ = p.cmd.Wait(); close(p.done) }()
	w.t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.done
		if w.t.Failed() {
			w.t.Logf("log of the process that crashes at %q:\n%s", crashAt, p.log)
		}
	})
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if at := listensAt.FindStringSubmatch(p.log.String()); at != nil && p.base == "" {
			p.base = "http://" + at[1]
		}
		if p.ready() {
			return p
		}
		select {
		case <-p.done: // it had reached its point already
			if p.base == "" {
				p.base = "http://127.0.0.1:1" // where nobody listens
			}
			return p
		default:
		}
		if time.Now().After(end) {
			w.t.Fatalf("the process did not come up:\n%s", p.log)
		}
	}
}

func (p *process) ready() bool {
	if p.base == "" {
		return false
	}
	resp, err := http.Get(p.base + "/readyz")
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// killed waits until the process has killed itself, as kill -9 would have.
func (p *process) killed(t *testing.T) {
	t.Helper()
	select {
	case <-p.done:
	case <-time.After(30 * time.Second):
		t.Fatalf("the process never came to its point:\n%s", p.log)
	}
	if s, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || s.Signal() != syscall.SIGKILL {
		t.Fatalf("the process ended by itself: %v\n%s", p.cmd.ProcessState, p.log)
	}
}

// Killed at any step of a charge, the service comes back to one charge and one grant, whether the webhooks
// reached anybody or not.
func TestKilledWhileCharging(t *testing.T) {
	t.Parallel()
	for _, point := range []string{"topup.leased", "topup.fixed", "topup.called", "topup.settling", "topup.settled", "event.applied"} {
		for _, webhooks := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, webhooks %t", point, webhooks), func(t *testing.T) {
				t.Parallel()
				w := detached(t)
				first := w.spawn("")
				w.base = first.base
				wallet, stripeID := w.customer("acme", "10", "pm_card_visa")
				_ = first.cmd.Process.Kill()
				<-first.done

				doomed := w.spawn(point)
				w.base = doomed.base
				if webhooks {
					w.sim.AddEndpoint(stripesim.Endpoint{URL: doomed.base + "/webhooks/stripe", Secrets: w.o.secrets})
				}
				// The rule finds the balance below its threshold and acts at once; the process dies of it.
				path, rule := "/v1/wallets/"+wallet+"/auto_topup", `{"threshold":"11","amount":"20","spend_cap":{"amount":2000,"currency":"usd","interval":"month"}}`
				go w.quietly("PUT", path, rule)
				doomed.killed(t)

				w.base = w.spawn("").base
				w.must("PUT", path, rule) // its caller had no answer, and asks again
				w.within(60*time.Second, "the top-up is settled", func() bool { return w.available("acme") == "30" })
				w.paid("acme", stripeID, "30", 1)
				if n := len(w.sim.PaymentIntents(stripeID)); n != 1 {
					t.Errorf("%d payments, want 1", n)
				}
				w.inStepWithin(60*time.Second, "acme")
			})
		}
	}
}

// Killed at any step of a flush, the service posts each difference once.
func TestKilledWhileFlushing(t *testing.T) {
	t.Parallel()
	for _, point := range []string{"mirror.planned", "mirror.called", "mirror.listed"} {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			w := detached(t)
			first := w.spawn("")
			w.base = first.base
			_, stripeID := w.customer("acme", "10", "")
			w.inStepWithin(30*time.Second, "acme")
			_ = first.cmd.Process.Kill()
			<-first.done

			doomed := w.spawn(point)
			w.base = doomed.base
			w.sim.AddEndpoint(stripesim.Endpoint{URL: doomed.base + "/webhooks/stripe", Secrets: w.o.secrets})
			if _, err := w.sim.Operator().AdjustBalance(stripeID, -500, "usd", "goodwill"); err != nil {
				t.Fatal(err)
			}
			go w.quietly("POST", "/v1/usage", `{"customer":"acme","amount":"2"}`)
			doomed.killed(t)

			w.base = w.spawn("").base
			w.within(60*time.Second, "the goodwill is booked once", func() bool { a := w.available("acme"); return a == "13" || a == "15" })
			w.inStepWithin(60*time.Second, "acme")
		})
	}
}

// Killed between a customer's row and its Stripe customer, the service makes exactly one.
func TestKilledWhileMakingACustomer(t *testing.T) {
	t.Parallel()
	for _, point := range []string{"customer.created", "customer.called"} {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			w := detached(t)
			doomed := w.spawn(point)
			w.base = doomed.base
			go w.quietly("POST", "/v1/customers", `{"id":"acme","name":"Acme"}`)
			doomed.killed(t)
			w.base = w.spawn("").base
			a := w.must("POST", "/v1/customers", `{"id":"acme","name":"Acme"}`)
			if n := len(w.sim.Customers()); n != 1 || a.str("stripe_customer") != w.sim.Customers()[0].ID {
				t.Errorf("%d customers in Stripe; answer %v", n, a)
			}
		})
	}
}

// Told to stop under load, the service answers what it has accepted, whole, and says of each connection that it is closed;
// what it answered is in the books once, and what it did not answer is not.
func TestStopUnderLoad(t *testing.T) {
	t.Parallel()
	w := detached(t)
	p := w.spawn("")
	w.base = p.base
	w.customer("acme", "1000", "")
	var wg sync.WaitGroup
	var mu sync.Mutex
	acknowledged := map[string]bool{}
	refused, cut, closed := 0, 0, 0
	spend := func(key string) bool {
		req, err := http.NewRequest("POST", w.base+"/v1/usage", strings.NewReader(`{"customer":"acme","amount":"0.01","idempotency_key":"`+key+`"}`))
		if err != nil {
			t.Error(err)
			return false
		}
		req.Header.Set("Authorization", "Bearer "+w.key)
		resp, err := client.Do(req)
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		_, err = io.ReadAll(resp.Body)
		mu.Lock()
		defer mu.Unlock()
		if err != nil {
			cut++
		}
		if resp.Close {
			closed++
		}
		if resp.StatusCode != http.StatusOK {
			refused++
			return false
		}
		acknowledged[key] = true
		return true
	}
	for i := range 32 {
		wg.Go(func() {
			for n := 0; spend(fmt.Sprint(i, "-", n)); n++ {
			}
		})
	}
	time.Sleep(500 * time.Millisecond)
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	wg.Wait()
	<-p.done
	if code := p.cmd.ProcessState.ExitCode(); code != 0 || refused != 0 || cut != 0 || closed == 0 {
		t.Errorf("exit code %d, %d requests refused, %d answers cut, %d connections said to be closed\n%s", code, refused, cut, closed, p.log)
	}
	var booked []string
	if err := w.g.ledger.DB().Select(&booked, `select key from entries where type = 'debit'`); err != nil {
		t.Fatal(err)
	}
	for _, key := range booked {
		if !acknowledged[key] {
			t.Errorf("%s was booked and not answered", key)
		}
		delete(acknowledged, key)
	}
	for key := range acknowledged {
		t.Errorf("%s was acknowledged and is not in the books", key)
	}
}

// detached is a world whose own gateway only keeps the books for the checks at the end: processes take its
// place. Its workers are as good as stopped.
func detached(t *testing.T) *world {
	t.Helper()
	if raced { // what is killed can't report a race, and takes several times as long
		t.Skip("it is killed without the race detector")
	}
	return newWorld(t, func(o *worldOptions) { o.noWebhook, o.idle = true, true })
}

// quietly calls and does not mind when nobody answers: status 0.
func (w *world) quietly(method, path, body string) (said string, status int) {
	req, err := http.NewRequestWithContext(context.Background(), method, w.base+path, strings.NewReader(body))
	if err != nil {
		return "", 0
	}
	req.Header.Set("Authorization", "Bearer "+w.key)
	resp, err := client.Do(req)
	if err != nil {
		return "", 0
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return "", 0
	}
	judged(w.t, exchange{method, path, req.Header, []byte(body), answer{status: resp.StatusCode, raw: b, header: resp.Header}})
	return string(b), resp.StatusCode
}
