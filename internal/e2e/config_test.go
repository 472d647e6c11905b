package e2e_test

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"text/template"

	"github.com/vmgate/vmgate/internal/lab"
)

// setup is what differs between the configurations of the tests.
type setup struct {
	Enforcement string            // default enforce
	VLANs       string            // of all VMs, a YAML list; default untagged only
	Rules       []rule            // of the policy; default: standardRules
	Default     string            // of the policy; default deny
	IDS         string            // rules of the engine; "" for no engine
	External    string            // the whole section ids, of an engine that the test runs
	Engine      string            // default suricata
	Binary      string            // of the engine; default: found on PATH
	Instances   int               // of the engine; default 1
	IDSMore     string            // YAML keys of ids, besides
	VMRules     string            // YAML
	Failure     string            // YAML
	Decision    string            // YAML
	Memory      map[string]string // memory file by VM
	Place       map[string]string // YAML of the memory by VM, where it is in no file
	Suspect     string            // name of a process on the suspect list
	Metrics     string            // address to listen on; default none
	More        []*lab.Host       // in segment apps, besides those of the topology
}

// rule is a policy rule on a port. It is written out twice: for TCP under its
// name, for UDP with "-udp" behind it.
type rule struct{ Name, Match, Port, Action string }

// standardRules give each verdict a port.
var standardRules = []rule{
	{"web", "to: {vm: web1}", "80", "allow"},
	{"no-ssh", "to: {vm: web1}", "22", "deny"},
	{"inspect", "to: {vm: web1}", "443", "check"},
	{"app-to-app", "from: {segment: apps}, to: {segment: apps}", "7000", "allow"},
}

// harmlessRule has the engine run and find nothing.
const harmlessRule = `alert tcp any any -> any any (msg:"never"; content:"e2e-never-sent"; sid:1; rev:1;)` + "\n"

var configuration = template.Must(template.New("gateway.yaml").Parse(`enforcement: {{.Enforcement}}
gateway:
  pins: {{.Pins}}
  state: {{.Dir}}/state
  run: {{.Dir}}/run
segments:
  - {name: apps, vnic: gw-apps, subnets: [10.77.0.0/24, "fd77::/64"], reflect: true}
  - {name: web, vnic: gw-web, subnets: [10.77.0.0/24, "fd77::/64"]}
vms:
{{- range .Hosts}}
  - id: {{.Name}}
    segment: {{.Segment}}
    macs: ["{{.MAC}}"]
    addresses: {static: [{{.V4.Addr}}, "{{.V6.Addr}}"]}
{{- with $.VLANs}}
    vlans: {{.}}
{{- end}}
{{- with index $.Memory .Name}}
    memory: {file: {{.}}}
{{- end}}
{{- with index $.Place .Name}}
    memory: {{.}}
{{- end}}
{{- end}}
policy:
  default: {{.Default}}
  rules:
{{- range .Rules}}
    - {name: {{.Name}}, {{.Match}}, protocol: tcp, ports: [{{.Port}}], action: {{.Action}}}
    - {name: {{.Name}}-udp, {{.Match}}, protocol: udp, ports: [{{.Port}}], action: {{.Action}}}
{{- end}}
    - {name: ping, protocol: icmp, action: allow}
{{- with .Suspect}}
lists: {suspect: [{name: {{.}}}]}
{{- end}}
{{- with .External}}
ids: {{.}}
{{- end}}
{{- with .IDS}}
ids:
  engine: {{or $.Engine "suricata"}}
  rules: [{{$.Dir}}/local.rules]
{{- with $.Binary}}
  binary: {{.}}
{{- end}}
{{- with $.Instances}}
  instances: {{.}}
{{- end}}
{{- with $.IDSMore}}
  {{.}}
{{- end}}
{{- end}}
{{- with .VMRules}}
vm-rules: {{.}}
{{- end}}
{{- with .Failure}}
failure: {{.}}
{{- end}}
{{- with .Decision}}
decision: {{.}}
{{- end}}
events: {file: {{.Dir}}/events.json}
{{- with .Metrics}}
metrics: {listen: "{{.}}"}
{{- end}}
`))

type namedHost struct {
	*lab.Host
	Segment string
}

// render writes a setup out as a configuration.
func (g *gateway) render(s setup) string {
	if s.Enforcement == "" {
		s.Enforcement = "enforce"
	}
	if s.Default == "" {
		s.Default = "deny"
	}
	if s.Rules == nil {
		s.Rules = standardRules
	}
	hosts := []namedHost{{g.App1, "apps"}, {g.App2, "apps"}, {g.Web1, "web"}}
	for _, h := range s.More {
		hosts = append(hosts, namedHost{h, "apps"})
	}
	var text strings.Builder
	err := configuration.Execute(&text, struct {
		setup
		Dir, Pins string
		Hosts     []namedHost
	}{s, g.Dir, g.Pins, hosts})
	must(g.t, err)
	return text.String()
}

// write makes a setup the configuration file and its rules the engine's.
func (g *gateway) write(s setup) {
	g.t.Helper()
	g.writeText(g.render(s))
	if s.IDS != "" {
		must(g.t, os.WriteFile(g.File("local.rules"), []byte(s.IDS), 0o644))
	}
}

func (g *gateway) writeText(text string) {
	g.t.Helper()
	must(g.t, os.WriteFile(g.Config, []byte(text), 0o644))
}

// eachEngine runs a test with Suricata, and with Snort 3 where that is: it is found
// on PATH or named in VMGATE_SNORT.
func eachEngine(t *testing.T, test func(t *testing.T, s setup)) {
	t.Run("suricata", func(t *testing.T) { test(t, setup{Engine: "suricata"}) })
	t.Run("snort", func(t *testing.T) {
		name := os.Getenv("VMGATE_SNORT")
		if name == "" {
			name = "snort"
		}
		path, err := exec.LookPath(name)
		if err != nil {
			t.Skip("no Snort 3 here: put it on PATH, or name it in VMGATE_SNORT")
		}
		test(t, setup{Engine: "snort", Binary: path})
	})
}

func needSuricata(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("suricata"); err != nil {
		t.Skip("no suricata here: ", err)
	}
}

// rulesWith are the standard rules with another action for one of them.
func rulesWith(name, action string) []rule {
	rules := slices.Clone(standardRules)
	for i := range rules {
		if rules[i].Name == name {
			rules[i].Action = action
		}
	}
	return rules
}
