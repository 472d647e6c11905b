package lease_test

import (
	"encoding/binary"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"github.com/vmgate/vmgate/internal/lease"
)

func message(t testing.TB, kind layers.DHCPMsgType, yours string, seconds uint32, more ...layers.DHCPOption) []byte {
	t.Helper()
	m := layers.DHCPv4{
		Operation: layers.DHCPOpReply, HardwareType: layers.LinkTypeEthernet, HardwareLen: 6,
		ClientHWAddr: net.HardwareAddr{2, 0x77, 0, 0, 0, 0x12}, YourClientIP: net.ParseIP(yours),
		Options: layers.DHCPOptions{
			layers.NewDHCPOption(layers.DHCPOptMessageType, []byte{byte(kind)}),
			layers.NewDHCPOption(layers.DHCPOptLeaseTime, binary.BigEndian.AppendUint32(nil, seconds)),
		},
	}
	m.Options = append(m.Options, more...)
	b := gopacket.NewSerializeBuffer()
	if err := m.SerializeTo(b, gopacket.SerializeOptions{}); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestParseAck(t *testing.T) {
	good := message(t, layers.DHCPMsgTypeAck, "10.0.0.5", 60)
	want := lease.Ack{Client: [6]byte{2, 0x77, 0, 0, 0, 0x12}, Addr: netip.MustParseAddr("10.0.0.5"), For: time.Minute}
	if got, ok := lease.ParseAck(good); !ok || got != want {
		t.Errorf("an acknowledgement is %+v, %t", got, ok)
	}
	long := message(t, layers.DHCPMsgTypeAck, "10.0.0.5", 60, layers.NewDHCPOption(12, make([]byte, 200)))
	if got, ok := lease.ParseAck(long[:300]); !ok || got != want {
		t.Errorf("one whose end is cut off is %+v, %t", got, ok)
	}
	altered := func(at int, b byte) []byte {
		m := message(t, layers.DHCPMsgTypeAck, "10.0.0.5", 60)
		m[at] = b
		return m
	}
	for name, m := range map[string][]byte{
		"an offer":                     message(t, layers.DHCPMsgTypeOffer, "10.0.0.5", 60),
		"a refusal":                    message(t, layers.DHCPMsgTypeNak, "10.0.0.5", 60),
		"an answer to DHCPINFORM":      message(t, layers.DHCPMsgTypeAck, "0.0.0.0", 60),
		"no time":                      message(t, layers.DHCPMsgTypeAck, "10.0.0.5", 0),
		"all hosts' address":           message(t, layers.DHCPMsgTypeAck, "255.255.255.255", 60),
		"a group's address":            message(t, layers.DHCPMsgTypeAck, "224.0.0.5", 60),
		"a loopback address":           message(t, layers.DHCPMsgTypeAck, "127.0.0.1", 60),
		"a client's message":           altered(0, 1),
		"another kind of hardware":     altered(1, 6),
		"a longer MAC":                 altered(2, 16),
		"a MAC as long as a byte says": altered(2, 255),
		"no magic":                     altered(236, 0),
		"nothing":                      nil,
		"a head":                       good[:240],
		"half a time":                  good[:247],
	} {
		if got, ok := lease.ParseAck(m); ok {
			t.Errorf("%s is a lease: %+v", name, got)
		}
	}
}

func FuzzParseAck(f *testing.F) {
	f.Add(message(f, layers.DHCPMsgTypeAck, "10.0.0.5", 60))
	f.Fuzz(func(t *testing.T, m []byte) {
		if ack, ok := lease.ParseAck(m); ok && (!ack.Addr.IsGlobalUnicast() || !ack.Addr.Is4() || ack.For <= 0) {
			t.Errorf("%+v", ack)
		}
	})
}

func TestTable(t *testing.T) {
	now := time.Now()
	addr, other := netip.MustParseAddr("10.0.0.5"), netip.MustParseAddr("10.0.0.6")
	table := lease.NewTable(nil)
	grant := func(vm string, addr netip.Addr, until, at time.Time) (bool, error) {
		return table.Grant(lease.Lease{VM: vm, Addr: addr, Until: until}, at)
	}
	if renewed, err := grant("a", addr, now.Add(time.Minute), now); renewed || err != nil {
		t.Error(renewed, err)
	}
	if renewed, err := grant("a", addr, now.Add(2*time.Minute), now); !renewed || err != nil {
		t.Error(renewed, err)
	}
	if _, err := grant("b", addr, now.Add(time.Hour), now); err == nil {
		t.Error("another VM's address is leased again")
	}
	if l, ok := table.Of(addr); !ok || l.VM != "a" || !l.Until.Equal(now.Add(2*time.Minute)) {
		t.Errorf("after a renewal: %+v", l)
	}
	if renewed, err := grant("b", addr, now.Add(time.Hour), now.Add(3*time.Minute)); renewed || err != nil {
		t.Error("an address whose lease has ended: ", renewed, err)
	}
	for i := range lease.MaxPerVM {
		other = other.Next()
		if _, err := grant("c", other, now.Add(time.Hour), now); err != nil {
			t.Fatal(i, err)
		}
	}
	if _, err := grant("c", other.Next(), now.Add(time.Hour), now); err == nil {
		t.Error("there is no limit")
	}
	if renewed, err := grant("c", other, now.Add(time.Hour), now); !renewed || err != nil {
		t.Error("at the limit a renewal: ", renewed, err)
	}
	taken := table.Take(func(l lease.Lease) bool { return l.VM == "c" })
	if len(taken) != lease.MaxPerVM || len(table.All()) != 1 {
		t.Errorf("%d taken, %d left", len(taken), len(table.All()))
	}
}
