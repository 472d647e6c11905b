package config_test

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/vmgate/vmgate/internal/config"
	"github.com/vmgate/vmgate/pkg/verdict"
)

const example = "../../docs/gateway.yaml"

// parseExample parses docs/gateway.yaml, changed by replacing old with new.
func parseExample(t *testing.T, replacements ...string) *config.Config {
	t.Helper()
	text, err := os.ReadFile(example)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(replacements); i += 2 {
		if !strings.Contains(string(text), replacements[i]) {
			t.Fatalf("the example does not contain %q", replacements[i])
		}
		text = []byte(strings.Replace(string(text), replacements[i], replacements[i+1], 1))
	}
	c, err := config.Parse(example, text)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestParse_EmptyFileHasTheDefaults(t *testing.T) {
	for _, text := range []string{"", "\n", "---\n", "# nothing\n", "policy:\nvms:\n"} {
		c, err := config.Parse("gateway.yaml", []byte(text))
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		want := config.Decision{
			Deadline: 200 * time.Millisecond, AttributionAge: 2 * time.Second, HiddenSamples: 3,
			Queues: 2, QueueBase: 5820, HeldPerFlow: 4, HeldPerVM: 1024, FlowsPerVM: 65536, Scan: time.Second,
		}
		if diff := cmp.Diff(want, c.Decision); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff(config.Failure{Daemon: "closed", IDS: "closed", Introspection: "check", NoOwner: "check"}, c.Failure); diff != "" {
			t.Error(diff)
		}
		if c.Enforcement != "enforce" || c.Policy.Default != "deny" || c.Gateway.Pins != "/sys/fs/bpf/vmgate" || c.Events.MaxSize != 64<<20 {
			t.Errorf("%q: %+v", text, c)
		}
	}
}

func TestParse_ReadsTheExample(t *testing.T) {
	c := parseExample(t)
	want := config.VM{
		ID: "app2", Name: "app2", Segment: "apps",
		MACs:      []config.MAC{{0x52, 0x54, 0, 0, 1, 2}},
		VLANs:     []config.VLAN{{}, {Outer: 10}, {Outer: 20, Inner: 30}}, // not 20.3
		Addresses: config.Addresses{Prefix: netip.MustParsePrefix("2001:db8:1::/64")},
		Line:      lineOf(t, "- id: app2"),
	}
	if diff := cmp.Diff(want, c.VMs[1], cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
		t.Error(diff)
	}
	if m := c.VMs[2].Memory; m == nil || *m != (config.Memory{File: "/dev/shm/web1.ram", Machine: "q35"}) {
		t.Errorf("memory of web1: %+v", m)
	}
	if s := c.Segments[0]; s.Mode != "bridged" || s.Kind != "internal" || s.Group != "default" || s.Line != lineOf(t, "- name: apps") {
		t.Errorf("segment: %+v", s)
	}
	if got, want := c.IDS.Rules[0], filepath.Join("../../docs", "rules/vmgate.rules"); got != want {
		t.Errorf("rule file %s, want %s: relative to the configuration file", got, want)
	}
	if c.Routers[0].Line != lineOf(t, "- id: uplink") || c.Lists.Suspect[0].Line != lineOf(t, "- path: /usr/bin/curl") {
		t.Error("lines of routers or list entries are wrong")
	}
}

// lineOf is the number of the example's line that begins with the text.
func lineOf(t *testing.T, text string) int {
	t.Helper()
	all, err := os.ReadFile(example)
	if err != nil {
		t.Fatal(err)
	}
	for i, line := range strings.Split(string(all), "\n") {
		if strings.HasPrefix(strings.TrimSpace(line), text) {
			return i + 1
		}
	}
	t.Fatalf("no line %q", text)
	return 0
}

func TestParse_LineBreaksOfOtherSystems(t *testing.T) {
	_, err := config.Parse("g.yaml", []byte("enforcement: enforce\r\nfailure:\r\n  ids: closed\r\n  idz: open\r\n"))
	var p *config.Problem
	if !errors.As(err, &p) || p.Line != 4 || p.Column != 3 || p.Source != "  idz: open" {
		t.Errorf("%v", err)
	}
}

func TestParse_AliasesAreValues(t *testing.T) {
	c, err := config.Parse("gateway.yaml", []byte(`
segments: [{name: a, vnic: eth1}]
vms:
  - {id: one, segment: &s a, macs: ["52:54:00:00:00:01"], addresses: &free {learn: true}}
  - {id: two, segment: *s, macs: ["52:54:00:00:00:02"], addresses: *free}
`))
	if err != nil {
		t.Fatal(err)
	}
	if c.VMs[1].Segment != "a" || !c.VMs[1].Addresses.Learn {
		t.Errorf("%+v", c.VMs[1])
	}
}

func TestVerdictPolicy_IsTheFilesPolicy(t *testing.T) {
	c := parseExample(t)
	policy := c.VerdictPolicy()
	var got []string
	for i := range policy.Rules {
		got = append(got, policy.Rules[i].String()+": "+policy.Rules[i].Action.String())
	}
	want := []string{
		"segment apps -> vm web1 tcp/80,443,8000-8010: allow",
		"segment apps -> any icmp: allow",
		"subnet 10.20.1.0/24 -> wan tcp/443: check",
		"router uplink -> any: deny",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if last := policy.Rules[3]; !last.Alert || last.Line != lineOf(t, "- name: from-outside") || policy.Default != verdict.ActionDeny {
		t.Errorf("%+v, default %s", last, policy.Default)
	}
}

func TestListEntries_AndKnobs(t *testing.T) {
	c := parseExample(t, "no-owner: check", "no-owner: drop", "introspection: check ", "introspection: forward ")
	want := []verdict.ListEntry{
		{List: verdict.Suspect, Origin: verdict.OriginConfig, Path: "/usr/bin/curl", VM: "app1", Reason: "CVE-2023-38545, not patched on app1"},
		{List: verdict.Malicious, Origin: verdict.OriginConfig, Name: "kdevtmpfsi", Reason: "known miner"},
		{List: verdict.Malicious, Origin: verdict.OriginConfig, Fingerprint: "8d3f5c1be5a2f9a1f1d0c8f5a4f0b2f6c7e9d001"},
	}
	if diff := cmp.Diff(want, c.ListEntries()); diff != "" {
		t.Error(diff)
	}
	if got := c.Knobs(); got != (verdict.Knobs{NoOwner: verdict.Drop, Introspection: verdict.Forward}) {
		t.Errorf("%+v", got)
	}
	if err := verdict.NewBook(c.Knobs(), verdict.Limits{}).ReplaceConfig(c.ListEntries()); err != nil {
		t.Errorf("what Parse accepts the Book refuses: %v", err)
	}
}

func TestDiff(t *testing.T) {
	old := parseExample(t)
	changed := parseExample(t,
		"enforcement: enforce", "enforcement: monitor",
		"file: /dev/shm/web1.ram", "file: /dev/shm/web2.ram",
		"    memory: none ", "    # ",
		"ports: [80, 443, 8000-8010]", "ports: [80]",
		"kdevtmpfsi", "kinsing",
		"    - name: ping\n      from: {segment: apps}\n      protocol: icmp\n      action: allow\n", "",
		"    - name: from-outside", "    - {name: ssh, protocol: tcp, ports: [22], action: check}\n    - name: from-outside",
		"ids: closed ", "ids: open ",
	)
	want := []string{
		"enforcement: enforce -> monitor",
		"vms web1.memory.file: /dev/shm/web1.ram -> /dev/shm/web2.ram",
		"policy.rules ping: removed",
		"policy.rules web.ports: [80, 443, 8000-8010] -> [80]",
		"policy.rules ssh: added: {name: ssh, protocol: tcp, ports: [22], action: check}",
		"lists.malicious {name: kdevtmpfsi, reason: known miner}: removed",
		"lists.malicious {name: kinsing, reason: known miner}: added",
		"failure.ids: closed -> open",
	}
	if diff := cmp.Diff(want, config.Diff(old, changed)); diff != "" {
		t.Error(diff)
	}
	if lines := config.Diff(old, parseExample(t, "# enforce, or monitor", "#\n#\n# enforce, or monitor")); lines != nil {
		t.Errorf("a comment is a change: %q", lines)
	}
}

func TestDiff_OrderOfRulesIsAChange(t *testing.T) {
	parse := func(rules string) *config.Config {
		c, err := config.Parse("g.yaml", []byte("policy: {rules: ["+rules+"]}"))
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	const a, b = "{name: a, protocol: tcp, action: allow}", "{name: b, action: deny}"
	got := config.Diff(parse(a+","+b), parse(b+","+a))
	if diff := cmp.Diff([]string{"policy.rules: the order is now b, a"}, got); diff != "" {
		t.Error(diff)
	}
}
