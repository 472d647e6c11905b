package snort

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Snort is in no distribution, so its supervision is tested with this test
// program in its place. It behaves as Snort 3 was seen to where the package
// relies on it: the version, messages, the configuration test, sockets on both
// devices, an alert file a thread, SIGHUP and SIGTERM. It inspects nothing: it
// writes one alert for every frame that it sees, and forwards none.
const fakeVariable = "VMGATE_TEST_FAKE_SNORT"

func TestMain(m *testing.M) {
	if os.Getenv(fakeVariable) == "" {
		os.Exit(m.Run())
	}
	if err := fakeSnort(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "FATAL:", err)
		os.Exit(1)
	}
}

// fakeBinary is the script that is run as snort.
func fakeBinary(t *testing.T) string {
	t.Helper()
	self, err := os.Executable()
	must(t, err)
	path := filepath.Join(t.TempDir(), "snort")
	script := fmt.Sprintf("#!/bin/sh\nexec env %s=1 '%s' \"$@\"\n", fakeVariable, self)
	must(t, os.WriteFile(path, []byte(script), 0o700))
	return path
}

func fakeSnort(args []string) error {
	option := func(name string) string {
		if i := slices.Index(args, name); i >= 0 && i+1 < len(args) {
			return args[i+1]
		}
		return ""
	}
	if slices.Contains(args, "-V") {
		fmt.Println("   ,,_     -*> Snort++ <*-\n  o\"  )~   Version 3.11.1.0")
		return nil
	}
	config := option("-c")
	message, err := fakeRules(config)
	if err != nil || slices.Contains(args, "-T") {
		return err
	}
	file, err := os.OpenFile(filepath.Join(option("-l"), "0_alert_json.txt"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGTERM, unix.SIGHUP)
	frames := make(chan struct{})
	for name := range strings.SplitSeq(option("-i"), ":") {
		if err := fakeSocket(name, frames); err != nil {
			return err
		}
	}
	for {
		select {
		case s := <-signals:
			if s == unix.SIGTERM {
				return nil
			}
			if message, err = fakeReload(config, message); err != nil {
				return err
			}
		case <-frames:
			fmt.Fprintf(file, "%s\n", snortWith("drop", message, "UDP"))
		}
	}
}

// fakeReload answers as Snort does; "stubborn" are rules that pass the test and
// cannot be changed over to.
func fakeReload(config, old string) (text string, err error) {
	fmt.Println(".. reloading configuration")
	if text, err = fakeRules(config); err != nil {
		return "", err
	}
	if text == "stubborn" {
		fmt.Println("== reload failed - restart required - stubborn.x")
		return old, nil
	}
	fmt.Println("== reload complete")
	return text, nil
}

var fakeInclude = regexp.MustCompile(`(?m)^include (.*)$`)

// fakeRules gives the text of the last rule file that the configuration
// includes; "nonsense" is an error in it.
func fakeRules(config string) (text string, err error) {
	lua, err := os.ReadFile(config)
	if err != nil {
		return "", err
	}
	if !bytes.Contains(lua, []byte("http_inspect = {}")) {
		return "", errors.New("not the configuration that was to be written")
	}
	for _, include := range fakeInclude.FindAllStringSubmatch(string(lua), -1) {
		rules, err := os.ReadFile(include[1])
		if err != nil {
			return "", err
		}
		text = strings.TrimSpace(string(rules))
		if strings.Contains(text, "nonsense") {
			fmt.Fprintf(os.Stderr, "ERROR: %s:1 unknown rule keyword: nonsense.\n", include[1])
			return "", errors.New("see prior 1 errors (0 warnings)")
		}
	}
	return text, nil
}

func fakeSocket(name string, frames chan<- struct{}) error {
	dev, err := net.InterfaceByName(name)
	if err != nil {
		return err
	}
	all := htons(unix.ETH_P_ALL)
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, int(all))
	if err != nil {
		return err
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: dev.Index}); err != nil {
		return err
	}
	go func() {
		buf := make([]byte, 1<<16)
		for {
			if _, err := unix.Read(fd, buf); err != nil {
				return
			}
			frames <- struct{}{}
		}
	}()
	return nil
}

func fakeConfig(t *testing.T, w *wire) Config {
	return Config{
		Engine: EngineSnort, Binary: fakeBinary(t), User: "root", NetNS: w.engineNS, In: "i0p", Out: "i1p",
		Rules: []string{ruleFile(t, "some rule")}, Dir: runDir(t), Log: testLog(t),
	}
}

func TestSnort_Supervision(t *testing.T) {
	w := newWire(t)
	c := fakeConfig(t, w)
	r := run(t, c)
	first := r.await(PhaseUp)
	expect := func(message string) {
		t.Helper()
		w.i0.send(udpFrame(t, false, []byte("x")))
		a, ok := r.alert(5 * time.Second)
		if !ok || a.Message != message || a.Engine != EngineSnort || a.Action != ActionDrop {
			t.Fatalf("alert %+v, want message %q", a, message)
		}
	}
	expect("some rule")

	must(t, os.WriteFile(c.Rules[0], []byte("other rule"), 0o600))
	must(t, r.Reload(t.Context()))
	expect("other rule")

	must(t, os.WriteFile(c.Rules[0], []byte("nonsense"), 0o600))
	err := r.Reload(t.Context())
	if want := c.Rules[0] + ":1 unknown rule keyword: nonsense."; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("bad rules: %v", err)
	}
	expect("other rule")

	must(t, os.WriteFile(c.Rules[0], []byte("stubborn"), 0o600))
	if err := r.Reload(t.Context()); err == nil || !strings.Contains(err.Error(), "restart required") {
		t.Errorf("rules that it cannot change over to: %v", err)
	}
	expect("other rule")

	// What it could not take over is not what a new one finds.
	must(t, unix.Kill(first.PID, unix.SIGKILL))
	if s := r.await(PhaseDown); !strings.Contains(s.Detail, "killed") {
		t.Errorf("detail %q", s.Detail)
	}
	if s := r.await(PhaseUp); s.PID == first.PID || s.Restarts != 1 {
		t.Errorf("after the restart: %+v", s)
	}
	expect("other rule")

	must(t, r.stop())
	if _, err := os.Stat(c.Dir); !os.IsNotExist(err) {
		left, _ := filepath.Glob(c.Dir + "/*")
		t.Errorf("left in the directory: %v", left)
	}
}

func TestRun_MissingDeviceIsToldAndWaitedFor(t *testing.T) {
	w := newWire(t)
	c := fakeConfig(t, w)
	c.Out = "i9p"
	r := run(t, c)
	if s := r.await(PhaseDown); !strings.Contains(s.Detail, "i9p") {
		t.Errorf("detail %q", s.Detail)
	}
	r.await(PhaseStarting) // again
	must(t, r.stop())
	if s := r.State(); s.Phase != PhaseDown {
		t.Errorf("state %+v", s)
	}
}

func TestRun_PausesGrowAndAreBounded(t *testing.T) {
	pauses := newPauses()
	for i := range 40 {
		wait := pauses.NextBackOff()
		if i == 0 && wait > 2*firstPause {
			t.Errorf("first pause %v", wait)
		}
		if i >= 20 && (wait < longestPause/2 || wait > 2*longestPause) {
			t.Errorf("pause %d is %v", i, wait)
		}
	}
}

func TestRun_SlowReceiverLosesAlertsAndSaysSo(t *testing.T) {
	queue := make(chan Alert, 2)
	e := &Engine{alerts: intake{log: testLog(t), queue: queue}}
	for range 5 {
		e.alerts.line(snort3{}, []byte(snortWith("drop", "m", "TCP")))
	}
	e.alerts.line(snort3{}, []byte("{ nothing"))
	e.alerts.overlong()
	if s := e.State(); s.Lines != 7 || s.Lost != 3 || s.Malformed != 2 || len(queue) != 2 {
		t.Errorf("%+v, %d in the queue", s, len(queue))
	}
}
