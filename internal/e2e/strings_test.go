package e2e_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/vmgate/vmgate/internal/api"
	"github.com/vmgate/vmgate/internal/event"
	"github.com/vmgate/vmgate/internal/lab"
	"github.com/vmgate/vmgate/pkg/vmi/vmitest"
)

// metricsAddress is free in every gateway's own namespace.
const metricsAddress = "127.0.0.1:9110"

// hostile is a program's file name, as printf in the guest makes it: it colours
// the terminal, sets its title, begins a line of its own, overwrites one, turns
// the direction of writing and is no UTF-8. The first 15 bytes are the process's
// name.
const hostile = `\033[31m\ninjected\rz\033]0;t\007\302\233\342\200\256\377\t"end`

// checkStrings has a hidden and convicted process with hostile strings connect,
// and looks at everything that tells of it.
func (g *gateway) checkStrings(t *testing.T, guest *lab.Guest) {
	mark := g.events.mark()
	out := ask(t, guest, fmt.Sprintf(`f=$(printf '/tmp/%s'); cat /bin/workload >"$f"; chmod +x "$f"
long=; n=0; while [ $n -lt 3000 ]; do long="$long -size 64"; n=$((n+1)); done
"$f" connect %s -n 0 -every 300ms -timeout 1s $long >/tmp/hostile.out 2>&1 </dev/null &
echo $!`, hostile, address(g.Web1, 80, false)))
	pid, err := strconv.Atoi(strings.TrimSpace(out))
	must(t, err)
	defer func() {
		out := ask(t, guest, fmt.Sprintf("kill -9 %d; tail -n 3 /tmp/hostile.out", pid))
		if t.Failed() {
			t.Logf("the hostile process said: %s", out)
		}
	}()
	ofIt := func(kind string) func(e event.Event) bool {
		return func(e event.Event) bool {
			return e.Type == kind && e.SrcProcess != nil && int(e.SrcProcess.PID) == pid
		}
	}
	e := g.events.wait(t, mark, "the decision on it", ofIt("decision"))
	if want := `\x1b[31m\ninjected\r`; e.SrcProcess.Name != want {
		t.Errorf("its name is shown as %q", e.SrcProcess.Name)
	}
	must(t, vmitest.Hide(guest.MemoryFile(), "q35", uint32(pid)))
	defer func() { must(t, vmitest.Unhide(guest.MemoryFile(), "q35", uint32(pid))) }()
	g.events.wait(t, mark, "that it is hidden", func(e event.Event) bool { return ofIt("decision")(e) && e.SrcProcess.Hidden })
	must(t, g.Client.Measure(t.Context(), api.Measure{Action: "isolate", VM: "app3", PID: uint32(pid)}))

	told := map[string]string{}
	for name, args := range map[string][]string{
		"ps": {"ps", "app3"}, "sockets": {"sockets", "app3"}, "findings": {"findings", "app3"}, "lists": {"lists", "show"}, "verdicts": {"verdicts"},
		"owner": {"owner", "app3", "tcp", fmt.Sprint(e.SrcPort)},
	} {
		for _, format := range []string{"table", "json"} {
			out, exit := g.run(append(args, "-o", format, "--socket", g.Socket())...)
			told["gatewayd "+name+" -o "+format] = out
			if format == "json" && exit == 0 && !json.Valid([]byte(out)) {
				t.Errorf("gatewayd %s -o json is none: %q", name, out)
			}
		}
	}
	for _, name := range []string{"ps", "findings"} {
		if out := told["gatewayd "+name+" -o table"]; !strings.Contains(out, "ninj") {
			t.Errorf("gatewayd %s does not tell of it:\n%s", name, out)
		}
	}
	told["the events"], told["the log"] = read(t, g.File("events.json")), read(t, g.File("gatewayd.log"))
	for line := range strings.Lines(told["the events"]) {
		if !json.Valid([]byte(line)) {
			t.Errorf("the line of the events is no JSON: %q", line)
		}
	}
	if !strings.Contains(told["the events"], "ninj") {
		t.Error("the events do not tell of it")
	}
	told["the metrics"] = g.metrics(t)
	told["gatewayd monitor"] = g.monitorUntil(t, strconv.Itoa(pid))
	for name, text := range told {
		if at := unprintable(text); at >= 0 {
			t.Errorf("%s tell its strings as they are: %q", name, text[max(0, at-80):min(len(text), at+80)])
		}
		for line := range strings.Lines(text) {
			if strings.HasPrefix(strings.TrimSpace(line), "inj") {
				t.Errorf("a line of %s is the guest's: %q", name, line)
			}
		}
	}
}

// unprintable is where text has something that a terminal would act upon; -1 if
// nowhere.
func unprintable(text string) int {
	for at, r := range text {
		if r == utf8.RuneError || r != '\n' && !unicode.IsPrint(r) {
			return at
		}
	}
	return -1
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	must(t, err)
	return string(b)
}

// metrics are what a scrape is answered.
func (g *gateway) metrics(t *testing.T) string {
	t.Helper()
	var text strings.Builder
	must(t, g.Gateway.Do(func() error {
		conn, err := net.Dial("tcp", metricsAddress)
		if err != nil {
			return err
		}
		defer conn.Close()
		request, err := http.NewRequest(http.MethodGet, "http://"+metricsAddress+"/metrics", nil)
		if err != nil {
			return err
		}
		request.Close = true
		if err := request.Write(conn); err != nil {
			return err
		}
		answer, err := http.ReadResponse(bufio.NewReader(conn), request)
		if err != nil {
			return err
		}
		defer answer.Body.Close()
		_, err = io.Copy(&text, answer.Body)
		return err
	}))
	if !strings.Contains(text.String(), "# TYPE") {
		t.Errorf("the metrics are %q", text.String())
	}
	return text.String()
}

// monitorUntil is what gatewayd monitor prints, up to a line that has the word.
func (g *gateway) monitorUntil(t *testing.T, word string) string {
	t.Helper()
	ctx, stop := context.WithCancel(soon(t))
	defer stop()
	command := g.Gateway.Command(ctx, gatewayd, "monitor", "--socket", g.Socket())
	out, err := command.StdoutPipe()
	must(t, err)
	must(t, command.Start())
	defer func() { stop(); _ = command.Wait() }() // it is ended by its context
	var text strings.Builder
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		text.WriteString(lines.Text() + "\n")
		if strings.Contains(lines.Text(), word) {
			return text.String()
		}
	}
	t.Errorf("gatewayd monitor does not tell of process %s:\n%s", word, text.String())
	return text.String()
}
