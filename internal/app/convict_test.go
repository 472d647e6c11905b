package app

import (
	"net/netip"
	"testing"

	"github.com/vmgate/vmgate/internal/config"
	"github.com/vmgate/vmgate/pkg/snort"
	"github.com/vmgate/vmgate/pkg/verdict"
)

func TestSentence(t *testing.T) {
	byDefault, err := config.Parse("g.yaml", nil)
	if err != nil {
		t.Fatal(err)
	}
	rules := config.IDS{Convict: []config.AlertRule{
		{SIDs: []int64{5, 6}, Then: "ignore"},
		{Class: "Trojan", Then: "convict"},
		{Action: "alert", Priority: 1, Then: "convict"},
		{Action: "drop", Then: "suspect"},
	}}
	for name, c := range map[string]struct {
		cfg   config.IDS
		alert snort.Alert
		want  verdict.Verdict
	}{
		"default, dropped":           {byDefault.IDS, snort.Alert{Action: snort.ActionDrop}, verdict.Drop},
		"default, rejected":          {byDefault.IDS, snort.Alert{Action: snort.ActionReject}, verdict.Drop},
		"default, let by":            {byDefault.IDS, snort.Alert{Action: snort.ActionAlert, Priority: 1}, verdict.Check},
		"by number":                  {rules, snort.Alert{Action: snort.ActionDrop, SID: 6, Class: "Trojan"}, verdict.Undecided},
		"by class, in any case":      {rules, snort.Alert{Action: snort.ActionAlert, SID: 7, Class: "trojan"}, verdict.Drop},
		"by priority":                {rules, snort.Alert{Action: snort.ActionAlert, Priority: 1}, verdict.Drop},
		"less urgent":                {rules, snort.Alert{Action: snort.ActionAlert, Priority: 2}, verdict.Check},
		"without a priority":         {rules, snort.Alert{Action: snort.ActionAlert}, verdict.Check},
		"dropped, and no more":       {rules, snort.Alert{Action: snort.ActionDrop}, verdict.Check},
		"rejected, which none names": {rules, snort.Alert{Action: snort.ActionReject}, verdict.Check},
		"nothing convicts":           {config.IDS{Convict: []config.AlertRule{}}, snort.Alert{Action: snort.ActionDrop}, verdict.Check},
	} {
		if got := sentence(c.cfg, c.alert); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

func TestSpared(t *testing.T) {
	s := &state{cfg: &config.Config{IDS: config.IDS{Never: []config.Spared{
		{VM: "web1", Process: "/usr/sbin/sshd"},
		{Subnet: netip.MustParsePrefix("10.0.0.0/24")},
		{VM: "db1"},
	}}}}
	sshd := &verdict.Process{Name: "sshd", Path: "/usr/sbin/sshd"}
	other := &verdict.Process{Name: "/usr/sbin/sshd", Path: "/tmp/x"} // a name is the guest's to choose
	for name, c := range map[string]struct {
		vm   string
		addr string
		p    *verdict.Process
		want bool
	}{
		"its process":           {"web1", "10.1.0.1", sshd, true},
		"another VM's":          {"app1", "10.1.0.1", sshd, false},
		"one called like it":    {"web1", "10.1.0.1", other, false},
		"another":               {"web1", "10.1.0.1", &verdict.Process{Name: "x", Path: "/x"}, false},
		"nobody known":          {"web1", "10.1.0.1", nil, false},
		"an address, mapped":    {"app1", "::ffff:10.0.0.9", nil, true},
		"a whole VM":            {"db1", "10.1.0.1", nil, true},
		"a VM without evidence": {"app1", "", nil, false},
	} {
		at := verdict.Endpoint{}
		if c.addr != "" {
			at.Addr = netip.MustParseAddr(c.addr)
		}
		if got := s.spared(&node{name: c.vm}, at, c.p); got != c.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}
