package config

import (
	"fmt"
	"net"
	"reflect"
	"regexp"
	"strconv"
	"strings"
)

func (v *checker) checkIDS() {
	ids := &v.IDS
	switch ids.Engine {
	case "":
		if len(ids.Rules) > 0 || len(ids.Variables) > 0 || ids.Binary != "" || ids.Ports != (IDSPorts{}) || !reflect.ValueOf(ids.Alerts).IsZero() {
			v.report("ids", "ids: no engine is named: write engine: suricata, snort or external, or leave ids out")
		}
	case EngineExternal:
		v.checkExternal()
	default:
		v.oneOf("ids.engine", ids.Engine, "suricata", "snort", EngineExternal)
		const hint = "is for an engine that others run: leave it out, or write engine: external"
		v.absent("ids.ports", ids.Ports != (IDSPorts{}), hint)
		v.absent("ids.alerts", !reflect.ValueOf(ids.Alerts).IsZero(), hint)
	}
	if ids.MTU != 0 {
		v.between("ids.mtu", ids.MTU, 1280, 65535)
	}
	v.between("ids.instances", ids.Instances, 1, maxEngines)
	v.between("ids.threads", ids.Threads, 1, 64)
	v.checkVariables()
	v.checkAlertRules()
}

// checkExternal checks what is said of an engine that others run.
func (v *checker) checkExternal() {
	ids := &v.IDS
	const hint = "is not the gateway's to say: an external engine has its own"
	v.absent("ids.binary", ids.Binary != "", hint)
	v.absent("ids.user", ids.User != "", hint)
	v.absent("ids.rules", len(ids.Rules) > 0, hint)
	v.absent("ids.variables", len(ids.Variables) > 0, hint)
	v.absent("ids.mtu", ids.MTU != 0, hint)
	v.absent("ids.instances", ids.Instances != 1, hint)
	v.absent("ids.threads", ids.Threads != 1, hint)
	v.checkIDSPort("ids.ports.in", ids.Ports.In)
	v.checkIDSPort("ids.ports.out", ids.Ports.Out)
	if ids.Ports.In != "" && ids.Ports.In == ids.Ports.Out {
		v.report("ids.ports", "ids.ports: in and out are the same vNIC: the engine needs two")
	}
	v.checkAlerts()
}

var variableName = regexp.MustCompile(`^[A-Z][A-Z0-9_]{0,62}$`)

// checkVariables checks those of the rules; what they may mean pkg/snort knows.
func (v *checker) checkVariables() {
	seen := map[string]bool{}
	for i := range v.IDS.Variables {
		r, path := &v.IDS.Variables[i], fmt.Sprintf("ids.variables[%d]", i)
		if !variableName.MatchString(r.Name) {
			v.report(path+".name", "%s.name: %q is no name of a rule variable: a capital letter, then capitals, digits and _, 63 at most", path, r.Name)
		} else if seen[r.Name] {
			v.report(path+".name", "%s.name: there are two variables %s", path, r.Name)
		}
		seen[r.Name] = true
		if (len(r.Addresses) > 0) == (len(r.Ports) > 0) {
			v.report(path, "%s: give addresses or ports, one of the two", path)
		}
	}
}

// absent reports what is given and means nothing there.
func (v *checker) absent(path string, given bool, why string) {
	if given {
		v.report(path, "%s %s", path, why)
	}
}

func (v *checker) checkIDSPort(path, name string) {
	if name == "" {
		v.report(path, "%s is missing: name the gateway's vNIC towards the engine", path)
		return
	}
	v.checkDevice(path, name)
	for _, s := range v.Segments {
		if s.VNIC == name {
			v.report(path, "%s: %s is the vNIC of segment %s: the engine needs two of its own", path, name, s.Name)
		}
	}
}

func (v *checker) checkAlerts() {
	a := &v.IDS.Alerts
	v.oneOf("ids.alerts.format", a.Format, "eve", "alert_json")
	v.oneOf("ids.alerts.unstated", a.Unstated, "alert", "drop")
	if a.Listen == "" && a.Socket == "" && a.File == "" && a.Datagrams == "" && a.Spool == "" {
		v.report("ids.alerts", "ids.alerts: say where the engine's alerts come from: listen, socket, file, datagrams or spool")
	}
	if a.Listen != "" {
		_, port, err := net.SplitHostPort(a.Listen)
		if n, perr := strconv.ParseUint(port, 10, 16); err != nil || perr != nil || n == 0 {
			v.report("ids.alerts.listen", "ids.alerts.listen: %q is no address to listen on: write 10.9.0.1:6514", a.Listen)
		}
	}
	for _, f := range []struct{ path, value string }{
		{"ids.alerts.certificate", a.Certificate}, {"ids.alerts.key", a.Key}, {"ids.alerts.authority", a.Authority},
	} {
		if f.value == "" && a.Listen != "" {
			v.report("ids.alerts.listen", "ids.alerts.listen needs %s: both ends show certificates", f.path)
		}
		v.absent(f.path, f.value != "" && a.Listen == "", "is for ids.alerts.listen, which is missing")
	}
	v.absent("ids.alerts.names", len(a.Names) > 0 && a.Listen == "", "is for ids.alerts.listen, which is missing")
	for _, f := range []struct{ path, value string }{{"ids.alerts.socket", a.Socket}, {"ids.alerts.datagrams", a.Datagrams}} {
		if len(f.value) > maxSockPath {
			v.report(f.path, "%s: the path has %d bytes, and a unix socket's can have %d: choose a shorter one", f.path, len(f.value), maxSockPath)
		}
	}
	if strings.ContainsAny(a.File, `*?[\`) {
		v.report("ids.alerts.file", "ids.alerts.file: %q has a wildcard: name one file", a.File)
	}
}
