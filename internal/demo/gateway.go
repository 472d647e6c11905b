package demo

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"text/template"
	"time"

	"github.com/vmgate/vmgate/internal/lab"
)

// floodRule is the rule that the paper gives, with flow:stateless, for a SYN is
// part of no established flow. It counts by source and target.
const floodRule = `drop tcp any any -> any any (msg:"TCP SYN flood"; flow:stateless; flags:S; detection_filter: track by_src, count 10, seconds 60; sid:1000001; rev:1;)
`

// configuration is what the operator of the demonstration would write.
var configuration = template.Must(template.New("gateway.yaml").Parse(`gateway:
  pins: {{.Pins}}
  state: {{.Dir}}/state
  run: {{.Dir}}/run
segments:
  - {name: apps, vnic: gw-apps, subnets: [10.77.0.0/24, "fd77::/64"], reflect: true}
  - {name: web, vnic: gw-web, subnets: [10.77.0.0/24, "fd77::/64"]}
vms:
{{- range .VMs}}
  - id: {{.Name}}
    segment: {{.Segment}}
    macs: ["{{.MAC}}"]
    addresses: {static: [{{.V4.Addr}}, "{{.V6.Addr}}"]}
    memory: {file: {{.Guest.MemoryFile}}}
{{- end}}
policy:
  default: deny
  rules:
    - {name: no-ssh, to: {vm: web1}, protocol: tcp, ports: [22], action: deny, alert: true}
    - {name: web, from: {segment: apps}, to: {vm: web1}, protocol: tcp, ports: [80, 8080], action: allow}
    - {name: app-to-app, from: {segment: apps}, to: {segment: apps}, protocol: tcp, ports: [7000], action: allow}
    - {name: ping, protocol: icmp, action: allow}
lists:
  suspect:
    - {name: suspect-tool, reason: "known to be vulnerable"}
ids:
  engine: {{.Engine}}
  rules: [{{.Dir}}/local.rules]
events:
  file: {{.Dir}}/events.json
`))

// gateway is the running daemon.
type gateway struct {
	command *exec.Cmd
	config  string
	pins    string
	socket  string
	log     string
	program string
	ended   chan struct{} // closed when the daemon has ended
	ns      *lab.Namespace
}

type demoVM struct {
	*lab.Host
	Segment string
}

// startGateway starts gatewayd in the gateway's namespace.
func startGateway(ctx context.Context, st *stage) (*gateway, error) {
	g := &gateway{
		config: st.path("gateway.yaml"), log: st.path("gatewayd.log"), socket: st.path("run/gatewayd.sock"),
		pins:    filepath.Join("/sys/fs/bpf", filepath.Base(st.dir)),
		program: st.opt.Gatewayd, ended: make(chan struct{}), ns: st.lab.Gateway,
	}
	var text strings.Builder
	err := configuration.Execute(&text, map[string]any{
		"Dir": st.dir, "Pins": g.pins, "Engine": st.opt.Engine,
		"VMs": []demoVM{{st.lab.App1, "apps"}, {st.lab.App2, "apps"}, {st.lab.Web1, "web"}},
	})
	if err != nil {
		return nil, err
	}
	log, err := os.Create(g.log)
	if err != nil {
		return nil, err
	}
	defer log.Close() // the daemon has its own descriptor
	if err := errors.Join(os.WriteFile(g.config, []byte(text.String()), 0o644), os.WriteFile(st.path("local.rules"), []byte(floodRule), 0o644)); err != nil {
		return nil, err
	}
	// Not bound to ctx: after Ctrl-C it is to stop in good order.
	g.command = st.lab.Gateway.Command(context.WithoutCancel(ctx), g.program, "run", "--config", g.config)
	g.command.Stdout, g.command.Stderr = log, log
	g.command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is for us to pass on
	if err := g.command.Start(); err != nil {
		return nil, fmt.Errorf("cannot start %s: %w", g.program, err)
	}
	go func() {
		_ = g.command.Wait() // alive and said tell how it went
		close(g.ended)
	}()
	return g, nil
}

// alive says whether the daemon runs, with its last words if not.
func (g *gateway) alive() error {
	select {
	case <-g.ended:
		return errors.New("gatewayd has ended")
	default:
		return nil
	}
}

// said returns the end of the daemon's log as an error.
func (g *gateway) said() error {
	log, err := os.ReadFile(g.log)
	if err != nil {
		return err
	}
	return fmt.Errorf("gatewayd said:\n%s", log[max(0, len(log)-4096):])
}

// close stops the daemon and takes what it pinned out of the kernel.
func (g *gateway) close() error {
	if g.command.Process == nil {
		return nil
	}
	_ = g.command.Process.Signal(syscall.SIGTERM) // it may have ended already
	select {
	case <-g.ended:
	case <-time.After(15 * time.Second):
		_ = g.command.Process.Kill()
		<-g.ended
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if out, err := g.ns.Command(ctx, g.program, "teardown", "--config", g.config).CombinedOutput(); err != nil {
		return fmt.Errorf("cannot tear the gateway down: %w: %s", err, out)
	}
	return nil
}
