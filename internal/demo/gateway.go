package demo

import (
	"errors"
	"os"
	"strings"
	"text/template"

	"github.com/vmgate/vmgate/internal/lab"
	"github.com/vmgate/vmgate/internal/lab/daemon"
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

type demoVM struct {
	*lab.Host
	Segment string
}

// startGateway starts gatewayd in the gateway's namespace. Whatever it returns is
// to be closed.
func startGateway(st *stage) (*daemon.Daemon, error) {
	g, err := daemon.New(st.lab.Gateway, st.opt.Gatewayd)
	if err != nil {
		return nil, err
	}
	var text strings.Builder
	err = configuration.Execute(&text, map[string]any{
		"Dir": g.Dir, "Pins": g.Pins, "Engine": st.opt.Engine,
		"VMs": []demoVM{{st.lab.App1, "apps"}, {st.lab.App2, "apps"}, {st.lab.Web1, "web"}},
	})
	if err != nil {
		return g, err
	}
	if err := errors.Join(os.WriteFile(g.Config, []byte(text.String()), 0o644), os.WriteFile(g.File("local.rules"), []byte(floodRule), 0o644)); err != nil {
		return g, err
	}
	return g, g.Start()
}
