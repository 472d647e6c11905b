package punt

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

const (
	markPunt     = 0xa1000000
	markPuntMask = 0xff000000
	markForward  = 0xa3000000
)

// lab is a gateway namespace with a bridge, and two hosts behind it. None of the
// namespaces has a name: they go with the test's last file descriptor.
type lab struct {
	t       *testing.T
	gateway netns.NsHandle
	a, b    host
	nft     *nftables.Conn // of the gateway
}

type host struct {
	ns     netns.NsHandle
	mac    net.HardwareAddr
	v4, v6 netip.Addr
}

func newLab(t *testing.T) *lab {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: network namespaces")
	}
	if _, err := os.Stat("/proc/sys/net/bridge"); err != nil {
		t.Skip("needs br_netfilter")
	}
	l := &lab{t: t, gateway: newNS(t)}
	l.a = l.newHost(1)
	l.b = l.newHost(2)
	l.build()
	var err error
	l.nft, err = nftables.New(nftables.WithNetNSFd(int(l.gateway)))
	check(t, err)
	return l
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newNS(t *testing.T) netns.NsHandle {
	t.Helper()
	var ns netns.NsHandle
	err := onThread(func() (err error) {
		if err = unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		ns, err = netns.Get()
		return err
	})
	check(t, err)
	t.Cleanup(func() { _ = ns.Close() })
	return ns
}

// onThread calls fn on a thread that is thrown away afterwards.
func onThread(fn func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		done <- fn()
	}()
	return <-done
}

func (h host) do(fn func() error) error {
	return inNetNS(int(h.ns), fn)
}

func (l *lab) newHost(n byte) host {
	return host{
		ns:  newNS(l.t),
		mac: net.HardwareAddr{2, 0, 0, 0, 9, n},
		v4:  netip.AddrFrom4([4]byte{10, 9, 0, n}),
		v6:  netip.AddrFrom16([16]byte{0: 0xfd, 1: 9, 15: n}),
	}
}

func (l *lab) build() {
	l.t.Helper()
	gw, err := netlink.NewHandleAt(l.gateway)
	check(l.t, err)
	defer gw.Close()
	bridge := &netlink.Bridge{LinkAttrs: netlink.NewLinkAttrs()}
	bridge.Name = "br0"
	check(l.t, gw.LinkAdd(bridge))
	check(l.t, gw.LinkSetUp(bridge))
	for name, hosts := range map[string][2]host{"va": {l.a, l.b}, "vb": {l.b, l.a}} {
		here, peer := hosts[0], hosts[1]
		veth := &netlink.Veth{
			LinkAttrs: netlink.NewLinkAttrs(), PeerName: "eth0",
			PeerHardwareAddr: here.mac, PeerNamespace: netlink.NsFd(here.ns),
		}
		veth.Name = name
		check(l.t, gw.LinkAdd(veth))
		check(l.t, gw.LinkSetMaster(veth, bridge))
		check(l.t, gw.LinkSetUp(veth))
		here.configure(l.t, peer)
	}
}

// configure gives the host its addresses and knows its peer, so that no neighbour
// discovery is among the traffic.
func (h host) configure(t *testing.T, peer host) {
	t.Helper()
	nl, err := netlink.NewHandleAt(h.ns)
	check(t, err)
	defer nl.Close()
	eth, err := nl.LinkByName("eth0")
	check(t, err)
	for _, ip := range []netip.Addr{h.v4, h.v6} {
		bits := 24
		if ip.Is6() {
			bits = 64
		}
		addr := &netlink.Addr{IPNet: &net.IPNet{IP: ip.AsSlice(), Mask: net.CIDRMask(bits, ip.BitLen())}, Flags: unix.IFA_F_NODAD}
		check(t, nl.AddrAdd(eth, addr))
	}
	check(t, nl.LinkSetUp(eth))
	for _, ip := range []netip.Addr{peer.v4, peer.v6} {
		check(t, nl.NeighSet(&netlink.Neigh{
			LinkIndex: eth.Attrs().Index, State: netlink.NUD_PERMANENT,
			IP: ip.AsSlice(), HardwareAddr: peer.mac,
		}))
	}
}

// markAtIngress does what the TC program does: every frame from the hosts bears the
// mark. It replaces what an earlier call set.
func (l *lab) markAtIngress(mark uint32) {
	l.t.Helper()
	table := &nftables.Table{Name: "ingress", Family: nftables.TableFamilyNetdev}
	l.nft.AddTable(table)
	l.nft.DelTable(table)
	l.nft.AddTable(table)
	for _, dev := range []string{"va", "vb"} {
		chain := l.nft.AddChain(&nftables.Chain{
			Name: dev, Table: table, Type: nftables.ChainTypeFilter,
			Hooknum: nftables.ChainHookIngress, Priority: nftables.ChainPriorityFilter, Device: dev,
		})
		l.nft.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{
			&expr.Counter{},
			&expr.Immediate{Register: 1, Data: binaryutil.NativeEndian.PutUint32(mark)},
			&expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: 1},
		}})
	}
	if err := l.nft.Flush(); err != nil {
		l.t.Skipf("needs nftables' netdev family to mark packets: %v", err)
	}
}

// marked returns how many frames from host a have been marked.
func (l *lab) marked() uint64 {
	l.t.Helper()
	table := &nftables.Table{Name: "ingress", Family: nftables.TableFamilyNetdev}
	rules, err := l.nft.GetRules(table, &nftables.Chain{Name: "va", Table: table})
	check(l.t, err)
	for _, e := range rules[0].Exprs {
		if counter, ok := e.(*expr.Counter); ok {
			return counter.Packets
		}
	}
	l.t.Fatal("the marking rule has no counter")
	return 0
}

// guardEgress does what the TC egress program does: out of the bridge goes only
// what bears the mark, as far as it is not ARP.
func (l *lab) guardEgress(mark uint32) {
	l.t.Helper()
	table := l.nft.AddTable(&nftables.Table{Name: "egress", Family: nftables.TableFamilyBridge})
	chain := l.nft.AddChain(&nftables.Chain{
		Name: "out", Table: table, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityFilter,
	})
	l.nft.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{
		&expr.Meta{Key: expr.MetaKeyMARK, Register: 1},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: binaryutil.NativeEndian.PutUint32(mark)},
		&expr.Verdict{Kind: expr.VerdictDrop},
	}})
	if err := l.nft.Flush(); err != nil {
		l.t.Skipf("needs nftables' bridge family: %v", err)
	}
}

// trackConnections has the gateway track connections, as a rule of the machine's
// own firewall would.
func (l *lab) trackConnections() {
	l.t.Helper()
	table := l.nft.AddTable(&nftables.Table{Name: "others", Family: nftables.TableFamilyIPv4})
	chain := l.nft.AddChain(&nftables.Chain{
		Name: "forward", Table: table, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter,
	})
	l.nft.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATE, Register: 1},
	}})
	if err := l.nft.Flush(); err != nil {
		l.t.Skipf("needs connection tracking: %v", err)
	}
}

// tracked says whether the gateway tracks a connection of host a.
func (l *lab) tracked() (yes bool) {
	l.t.Helper()
	err := inNetNS(int(l.gateway), func() error {
		text, err := os.ReadFile("/proc/thread-self/net/nf_conntrack")
		yes = strings.Contains(string(text), "src="+l.a.v4.String()+" ")
		return err
	})
	if errors.Is(err, os.ErrNotExist) {
		l.t.Skip("needs CONFIG_NF_CONNTRACK_PROCFS")
	}
	check(l.t, err)
	return yes
}

func (l *lab) config() Config {
	return Config{
		Base: 5820, Queues: 2, Log: slog.New(slog.DiscardHandler),
		Mark: markPunt, MarkMask: markPuntMask, Table: "vmgate-test", NetNS: int(l.gateway),
	}
}

// tables names the tables of the gateway that the package made.
func (l *lab) tables() (names []string) {
	l.t.Helper()
	tables, err := l.nft.ListTables()
	check(l.t, err)
	for _, table := range tables {
		if table.Name == "vmgate-test" {
			names = append(names, fmt.Sprintf("%d/%s", table.Family, table.Name))
		}
	}
	return names
}

// raw is an AF_PACKET socket on a host's interface.
type raw struct {
	t  *testing.T
	fd int
}

func (l *lab) raw(h host) *raw {
	l.t.Helper()
	r := &raw{t: l.t}
	check(l.t, h.do(func() (err error) {
		all := int(htons(unix.ETH_P_ALL))
		r.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, all)
		if err != nil {
			return err
		}
		eth, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		return errors.Join(
			unix.SetsockoptInt(r.fd, unix.SOL_PACKET, unix.PACKET_AUXDATA, 1),
			unix.SetsockoptInt(r.fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1),
			unix.SetsockoptInt(r.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20),
			unix.Bind(r.fd, &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_ALL), Ifindex: eth.Index}),
		)
	}))
	l.t.Cleanup(func() { _ = unix.Close(r.fd) })
	return r
}

func htons(v uint16) uint16 { return v<<8 | v>>8 }

func (r *raw) send(frame []byte) {
	r.t.Helper()
	for {
		_, err := unix.Write(r.fd, frame)
		if errors.Is(err, unix.ENOBUFS) {
			continue
		}
		check(r.t, err)
		return
	}
}

// recv returns the next frame that matches, and its VLAN id, or nil if none comes
// in time.
func (r *raw) recv(wait time.Duration, match func(frame []byte) bool) (frame []byte, vlan uint16) {
	r.t.Helper()
	deadline := time.Now().Add(wait)
	buf, oob := make([]byte, 4096), make([]byte, 128)
	for {
		left := time.Until(deadline)
		if left <= 0 {
			return nil, 0
		}
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(r.fd), Events: unix.POLLIN}}, int(left.Milliseconds())+1)
		if n == 0 || errors.Is(err, unix.EINTR) {
			continue
		}
		n, oobn, _, _, err := unix.Recvmsg(r.fd, buf, oob, unix.MSG_DONTWAIT)
		if errors.Is(err, unix.EAGAIN) {
			continue
		}
		check(r.t, err)
		if match(buf[:n]) {
			return append([]byte(nil), buf[:n]...), vlanOf(oob[:oobn])
		}
	}
}

// vlanOf reads struct tpacket_auxdata: the kernel takes the tag off the frame.
func vlanOf(oob []byte) uint16 {
	const header = unix.SizeofCmsghdr
	if len(oob) < header+20 || binary.NativeEndian.Uint32(oob[header:])&unix.TP_STATUS_VLAN_VALID == 0 {
		return 0
	}
	return binary.NativeEndian.Uint16(oob[header+16:]) & 0xfff
}
