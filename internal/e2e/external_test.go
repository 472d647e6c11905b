package e2e_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/vmgate/vmgate/bpf"
	"github.com/vmgate/vmgate/internal/event"
	"github.com/vmgate/vmgate/internal/lab"
)

// machine is a namespace that stands for the virtual machine of an engine: two
// devices of the data path, one of the management network, Suricata with its own
// configuration between the former, and openssl, which sends what Suricata writes.
type machine struct {
	*lab.Namespace
	t    *testing.T
	dir  string
	stop func()
}

const machineConfig = `%YAML 1.1
---
vars:
  address-groups: {HOME_NET: any, EXTERNAL_NET: any}
default-log-dir: "."
outputs:
  - eve-log: {enabled: yes, filetype: regular, filename: eve.json, ethernet: yes, types: [alert]}
runmode: workers
livedev: {use-for-tracking: false}
af-packet:
  - {interface: ids4, threads: 1, cluster-id: 98, cluster-type: cluster_flow, copy-mode: ips, copy-iface: ids5, use-mmap: yes, tpacket-v3: no, defrag: no, checksum-checks: no}
  - {interface: ids5, threads: 1, cluster-id: 99, cluster-type: cluster_flow, copy-mode: ips, copy-iface: ids4, use-mmap: yes, tpacket-v3: no, defrag: no, checksum-checks: no}
stream: {inline: auto, midstream: true, checksum-validation: no}
exception-policy: drop-packet
`

// newMachine wires a machine to the gateway, which gets eth4 and eth5 towards it and
// the management address 10.99.0.1.
func newMachine(t *testing.T, g *gateway) *machine {
	t.Helper()
	ns, err := g.NewNamespace("ids")
	must(t, err)
	m := &machine{Namespace: ns, t: t, dir: t.TempDir()}
	for _, pair := range [][2]string{{"eth4", "ids4"}, {"eth5", "ids5"}, {"mgmt", "mgmt"}} {
		must(t, g.Gateway.AddVeth(pair[0], ns, pair[1]))
	}
	must(t, g.Gateway.AddAddress("mgmt", netip.MustParsePrefix("10.99.0.1/30")))
	must(t, ns.AddAddress("mgmt", netip.MustParsePrefix("10.99.0.2/30")))
	// A veth takes redirected frames only if a program stands on its other end; a
	// virtual machine's device needs none.
	spec, err := bpf.LoadVmgate()
	must(t, err)
	pass, err := ebpf.NewProgram(spec.Programs["vmgate_pass"])
	must(t, err)
	defer pass.Close()
	for _, name := range []string{"ids4", "ids5"} {
		must(t, ns.SetFeatures(name, map[string]bool{"rx-gro": false, "tx-checksum-ip-generic": false}))
		must(t, ns.Do(func() error {
			dev, err := net.InterfaceByName(name)
			if err != nil {
				return err
			}
			l, err := link.AttachXDP(link.XDPOptions{Program: pass, Interface: dev.Index, Flags: link.XDPDriverMode})
			if err == nil {
				t.Cleanup(func() { l.Close() })
			}
			return err
		}))
	}
	m.certify(g.Dir)
	return m
}

// certify makes an authority and certificates for the gateway (in dir) and the machine.
func (m *machine) certify(dir string) {
	m.t.Helper()
	template := func(name string) *x509.Certificate {
		return &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	}
	key := func() *ecdsa.PrivateKey {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		must(m.t, err)
		return k
	}
	write := func(path, kind string, der []byte) {
		must(m.t, os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
	}
	authority, signer := template("authority"), key()
	authority.IsCA, authority.BasicConstraintsValid, authority.KeyUsage = true, true, x509.KeyUsageCertSign
	der, err := x509.CreateCertificate(rand.Reader, authority, authority, &signer.PublicKey, signer)
	must(m.t, err)
	for name, at := range map[string]string{"gateway": dir, "ids1": m.dir} {
		write(filepath.Join(at, "ca.pem"), "CERTIFICATE", der)
		k := key()
		cert, err := x509.CreateCertificate(rand.Reader, template(name), authority, &k.PublicKey, signer)
		must(m.t, err)
		secret, err := x509.MarshalPKCS8PrivateKey(k)
		must(m.t, err)
		write(filepath.Join(at, name+".pem"), "CERTIFICATE", cert)
		write(filepath.Join(at, name+".key"), "PRIVATE KEY", secret)
	}
}

// start runs the engine and the sender, until stop or the end of the test.
func (m *machine) start(rules string) {
	m.t.Helper()
	at := func(name string) string { return filepath.Join(m.dir, name) }
	must(m.t, os.WriteFile(at("suricata.yaml"), []byte(machineConfig), 0o600))
	must(m.t, os.WriteFile(at("local.rules"), []byte(rules), 0o600))
	must(m.t, os.WriteFile(at("eve.json"), nil, 0o600))
	ctx, cancel := context.WithCancel(context.Background())
	log, err := os.Create(at("log"))
	must(m.t, err)
	sender := "tail -n 0 -F eve.json | openssl s_client -quiet -tls1_3 -verify_return_error -connect 10.99.0.1:6514 -cert ids1.pem -key ids1.key -CAfile ca.pem"
	var commands []*exec.Cmd
	for _, args := range [][]string{
		{"suricata", "-c", at("suricata.yaml"), "-S", at("local.rules"), "-l", m.dir, "--af-packet"},
		{"sh", "-c", "while :; do " + sender + "; sleep 0.2; done"},
	} {
		command := m.Command(ctx, args[0], args[1:]...)
		command.Dir, command.Stdout, command.Stderr = m.dir, log, log
		// The shell's children go with it.
		command.Cancel = func() error { return syscall.Kill(-command.Process.Pid, syscall.SIGKILL) }
		must(m.t, command.Start())
		commands = append(commands, command)
	}
	m.stop = func() {
		cancel()
		for _, command := range commands {
			_ = command.Wait() // killed
		}
		log.Close()
		m.stop = func() {}
	}
	m.t.Cleanup(func() {
		m.stop()
		if text, _ := os.ReadFile(at("log")); m.t.Failed() {
			alerts, _ := os.ReadFile(at("eve.json"))
			m.t.Logf("the engine's machine said:\n%s\nand wrote:\n%s", text, alerts)
		}
	})
}

// TestIDS_InAMachineOfItsOwn: between two vNICs of the gateway, its alerts over TLS by
// stock tools. It goes away and comes back without the gateway being touched.
func TestIDS_InAMachineOfItsOwn(t *testing.T) {
	needSuricata(t)
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("no openssl here, which sends the alerts: ", err)
	}
	const rules = `drop udp any any -> any any (msg:"e2e evil"; content:"e2e-evil"; sid:7000001; rev:1;)` + "\n"
	g := newGateway(t)
	m := newMachine(t, g)
	m.start(rules)
	g.write(setup{External: `
  engine: external
  ports: {in: eth4, out: eth5}
  alerts: {listen: "10.99.0.1:6514", certificate: gateway.pem, key: gateway.key, authority: ca.pem, names: [ids1]}
`})
	g.start()
	absorb(t, g.Web1, 443)
	evil := func() {
		t.Helper()
		await(t, "the sender is connected", func() bool { // what is written before is not sent
			status, err := g.Client.Status(t.Context())
			return err == nil && status.IDS.State == "up" && status.IDS.Detail == ""
		})
		guilty, innocent := newProbe(g.App1, g.Web1, 443), newProbe(g.App1, g.Web1, 443)
		absorb(t, g.App1, innocent.source)
		before := g.counts()
		g.passes(t, g.webWire, guilty)
		g.passes(t, g.webWire, innocent)
		g.passes(t, g.appsWire, innocent.answer())
		for _, kind := range []string{"ids-out/ids-return", "ids-in/ids-return"} {
			g.awaitCount(t, before, kind, 1)
		}
		mark := g.events.mark()
		p := guilty.again()
		p.payload += "e2e-evil"
		p.send(t)
		e := g.events.wait(t, mark, "the alert", func(e event.Event) bool { return e.Type == "alert" })
		if e.Alert.SID != 7000001 || e.SrcVM != "app1" || int(e.SrcPort) != guilty.source {
			t.Errorf("alert %+v of %s:%d", e.Alert, e.SrcVM, e.SrcPort)
		}
		await(t, "the flow is ended", func() bool { return g.flowOf("app1", guilty.source).Verdict == "drop" })
		g.passes(t, g.webWire, innocent.again())
	}
	evil()
	g.checkForgedAlerts(t, m)

	pid := g.PID()
	mark, before := g.events.mark(), g.counts()
	m.stop()
	g.events.wait(t, mark, "that it is gone", func(e event.Event) bool { return e.Type == "ids" })
	lost := newProbe(g.App1, g.Web1, 443)
	lost.send(t)
	g.awaitCount(t, before, "web/drop-ids-down", 1)
	if len(g.webWire.seen(carries(lost.payload))) > 0 {
		t.Error("it passed without the engine")
	}
	m.start(rules)
	evil()
	if g.PID() != pid {
		t.Error("the gateway was started anew")
	}
}
