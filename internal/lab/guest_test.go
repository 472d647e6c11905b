package lab

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func needGuests(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("-short: guests take seconds to boot")
	}
	if err := GuestSupport(""); err != nil {
		t.Skip(err)
	}
}

// startGuest starts a guest for a test, which closes it.
func startGuest(t *testing.T, config GuestConfig) *Guest {
	t.Helper()
	needGuests(t)
	guest, err := StartGuest(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := guest.Close(); err != nil {
			t.Error(err)
		}
	})
	return guest
}

func deadline(t *testing.T, length time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), length)
	t.Cleanup(cancel)
	return ctx
}

func TestGuest(t *testing.T) {
	extra := filepath.Join(t.TempDir(), "extra")
	if err := os.WriteFile(extra, []byte("from outside"), 0o644); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	guest := startGuest(t, GuestConfig{Name: "alone", Files: map[string]string{"/data/extra": extra}})
	t.Logf("up after %v", time.Since(begin))

	t.Run("RunReturnsOutputAndStatus", func(t *testing.T) {
		out, exit, err := guest.Run(deadline(t, time.Minute), "hostname; cat /data/extra; echo lost >&2; exit 7")
		if err != nil || exit != 7 || out != "alone\nfrom outside" {
			t.Errorf("got %q, %d, %v", out, exit, err)
		}
		if !strings.Contains(guest.Console(), "lost") {
			t.Error("the standard error is not on the console")
		}
	})
	t.Run("RunsAtTheSameTime", func(t *testing.T) {
		ctx := deadline(t, time.Minute)
		slow := make(chan error, 1)
		go func() {
			_, _, err := guest.Run(ctx, "while [ ! -e /tmp/go ]; do usleep 10000; done")
			slow <- err
		}()
		if _, _, err := guest.Run(ctx, "touch /tmp/go"); err != nil {
			t.Error(err)
		}
		if err := <-slow; err != nil {
			t.Error(err)
		}
	})
	t.Run("OutputIsBounded", func(t *testing.T) {
		out, _, err := guest.Run(deadline(t, 2*time.Minute), "yes | head -c 600000")
		if !errors.Is(err, ErrTruncated) || len(out) != 512<<10 {
			t.Errorf("got %d bytes, %v", len(out), err)
		}
	})
	t.Run("CommandEndsWithItsContext", func(t *testing.T) {
		short, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		if _, _, err := guest.Run(short, "sleep 4321"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		out, _, err := guest.Run(deadline(t, time.Minute), "sleep 0.2; ps | grep -c '[s]leep 4321'")
		if err != nil || out != "0\n" {
			t.Errorf("the command outlived its context: %q, %v", out, err)
		}
	})
	t.Run("ProcessHasItsNameAndPID", func(t *testing.T) { testProcess(t, guest) })
	t.Run("MemoryFileIsTheMemory", func(t *testing.T) {
		memory, err := os.ReadFile(guest.MemoryFile())
		if err != nil {
			t.Fatal(err)
		}
		if len(memory) != 128<<20 || !strings.Contains(string(memory), "Linux version ") {
			t.Errorf("%d bytes, without a kernel's banner", len(memory))
		}
	})
	t.Run("CloseRemovesEverything", func(t *testing.T) {
		memory, dir := guest.MemoryFile(), guest.dir
		if err := guest.Close(); err != nil {
			t.Fatal(err)
		}
		for _, path := range []string{memory, dir} {
			if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%s is still there", path)
			}
		}
		if _, _, err := guest.Run(deadline(t, time.Second), "true"); err == nil {
			t.Error("a closed guest still runs commands")
		}
	})
}

func testProcess(t *testing.T, guest *Guest) {
	ctx := deadline(t, 2*time.Minute)
	server, err := guest.Start(ctx, "shop", "serve", "-tcp", "80")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := server.WaitLine(ctx, func(line string) bool { return strings.Contains(line, `"serving":true`) }); err != nil {
		t.Fatal(err)
	}
	out, _, err := guest.Run(ctx, "pidof shop; readlink /proc/$(pidof shop)/exe; cat /proc/$(pidof shop)/comm")
	if want := strconv.Itoa(server.PID()) + "\n/usr/bin/shop\nshop\n"; err != nil || out != want {
		t.Errorf("got %q, %v, want %q", out, err, want)
	}
	client, err := guest.Start(ctx, "buyer", "transfer", "127.0.0.1:80", "200000", "0")
	if err != nil {
		t.Fatal(err)
	}
	if exit, err := client.Wait(ctx); err != nil || exit != 0 {
		t.Errorf("the client ended with %d, %v: %q", exit, err, client.Lines())
	}
	var last struct {
		OK    bool
		Bytes int
	}
	lines := client.Lines()
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &last); err != nil || !last.OK || last.Bytes != 200000 {
		t.Errorf("the transfer said %q, %v", lines, err)
	}
	if err := server.Signal(syscall.SIGKILL); err != nil {
		t.Error(err)
	}
	if exit, err := server.Wait(ctx); err != nil || exit != 128+9 {
		t.Errorf("the killed server ended with %d, %v", exit, err)
	}
}

func TestGuest_FailureNamesTheReasonAndLeavesNothing(t *testing.T) {
	needGuests(t)
	_, err := StartGuest(t.Context(), GuestConfig{Name: "broken", Append: "rdinit=/nowhere"})
	if err == nil || !strings.Contains(err.Error(), "broken") {
		t.Errorf("got %v", err)
	}
	left, _ := filepath.Glob("/dev/shm/" + Prefix() + "broken*")
	if len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}
