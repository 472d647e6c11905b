package bench_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/vmgate/vmgate/internal/bench/result"
	"github.com/vmgate/vmgate/internal/lab"
	"github.com/vmgate/vmgate/pkg/loader"
	"github.com/vmgate/vmgate/pkg/verdict"
)

const (
	bulkTime = time.Second
	bulkPort = 5201
)

// BenchmarkBulk compares one TCP stream through vmgate's TCX program with the same
// through the kernel's bridge, offloads on.
func BenchmarkBulk(b *testing.B) {
	want(b, "tcx_bulk_vs_bridge")
	conditions := result.Conditions(map[string]any{
		"stream": "one, for " + bulkTime.String() + ", of 256 KiB writes", "runs": pairs, "mtu": 1500, "offloads": "as the kernel gives them to veths",
	})
	w := &bulk{wire: plainWire(b)}
	w.addHost(w.sender, senderMAC, netip.PrefixFrom(senderAddr, 24), receiver.Addr(), receiverMAC)
	w.addHost(w.sink, receiverMAC, netip.PrefixFrom(receiver.Addr(), 24), senderAddr, senderMAC)
	rates := alternate(b, pairs, []peer{{"tcx", w.tcx}, {"bridge", w.bridge}})
	found := map[string]result.Figure{"tcx_bulk_vs_bridge": result.Ratios(rates["tcx"], rates["bridge"])}
	for name, runs := range rates {
		found["bulk_gbit_"+name] = result.Of("Gbit/s", runs)
	}
	record(b, found, conditions, nil)
}

type bulk struct{ *wire }

// addHost makes an end of the wire a host that knows the other one.
func (w *bulk) addHost(ns *lab.Namespace, mac net.HardwareAddr, own netip.Prefix, other netip.Addr, otherMAC net.HardwareAddr) {
	w.b.Helper()
	links := ns.Netlink()
	link, err := links.LinkByName("eth0")
	must(w.b, err)
	must(w.b, errors.Join(
		links.LinkSetHardwareAddr(link, mac),
		ns.AddAddress("eth0", own),
		links.NeighSet(&netlink.Neigh{LinkIndex: link.Attrs().Index, IP: other.AsSlice(), HardwareAddr: otherMAC, State: unix.NUD_PERMANENT}),
	))
}

func (w *bulk) bridge() float64 {
	w.b.Helper()
	must(w.b, w.gateway.AddBridge("br0", []string{inDevice, outDevice}))
	defer func() { must(w.b, w.gateway.Delete("br0")) }()
	return w.stream()
}

func (w *bulk) tcx() (rate float64) {
	w.b.Helper()
	w.attachedBy(loader.DatapathTCX, func(dp *loader.Dataplane) {
		fill(w.b, dp, verdict.Forward, 0)
		key, from := loader.NewFlowKey(6, netip.AddrPortFrom(senderAddr, firstPort), netip.AddrPortFrom(receiver.Addr(), bulkPort), 0, 0, 0)
		w.introduce(dp)
		decided := make(chan error, 1)
		go func() { decided <- decideWhenPending(dp, key, from) }()
		rate = w.stream()
		must(w.b, <-decided)
		f, ok, err := dp.Flow(key)
		if err != nil || !ok || f.Dir[from].Packets < 1000 {
			w.b.Fatalf("the stream did not pass the program: %d packets (%v)", f.Dir[from].Packets, err)
		}
	})
	return rate
}

// introduce makes both hosts known, so that what they begin can be decided.
func (w *bulk) introduce(dp *loader.Dataplane) {
	w.b.Helper()
	must(w.b, dp.Heartbeat())
	for vm, at := range map[uint32]struct {
		mac  net.HardwareAddr
		addr netip.Addr
	}{1: {senderMAC, senderAddr}, 2: {receiverMAC, receiver.Addr()}} {
		entry := loader.AddrEntry{VM: vm, Port: vm, MAC: loader.MAC(at.mac)}
		must(w.b, dp.PutMAC(loader.MACKey{MAC: loader.MAC(at.mac)}, loader.MACEntry{VM: vm, Segment: vm, Port: vm}))
		for _, of := range []uint32{0, vm} {
			must(w.b, dp.PutAddr(loader.AddrKey{VM: of, Prefix: netip.PrefixFrom(at.addr, 32)}, entry))
		}
	}
}

// decideWhenPending lets a connection pass once its SYN has come; the sender's retry
// finds it decided.
func decideWhenPending(dp *loader.Dataplane, key loader.FlowKey, from int) error {
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		p, found, err := dp.Pending(key)
		if err != nil {
			return err
		}
		if found {
			f := wireFlow(from)
			f.SynSeq = p.SynSeq
			return dp.PutFlow(key, f)
		}
	}
	return errors.New("the stream's first packet never came")
}

// stream sends for a while and returns what arrived, in Gbit/s.
func (w *bulk) stream() float64 {
	w.b.Helper()
	var listener net.Listener
	must(w.b, w.sink.Do(func() (err error) {
		listener, err = net.Listen("tcp", fmt.Sprintf(":%d", bulkPort))
		return err
	}))
	defer listener.Close()
	type received struct {
		bytes int64
		took  time.Duration
		err   error
	}
	done := make(chan received, 1)
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			done <- received{err: err}
			return
		}
		defer conn.Close()
		begin := time.Now()
		n, err := io.Copy(io.Discard, struct{ io.Reader }{conn})
		done <- received{n, time.Since(begin), err}
	}()
	must(w.b, w.sender.Do(func() error {
		dialer := net.Dialer{Timeout: 5 * time.Second, LocalAddr: &net.TCPAddr{Port: firstPort}}
		conn, err := dialer.Dial("tcp", netip.AddrPortFrom(receiver.Addr(), bulkPort).String())
		if err != nil {
			return err
		}
		defer conn.Close()
		must(w.b, conn.(*net.TCPConn).SetLinger(0)) // the port is used again at once
		block := make([]byte, 256<<10)
		for begin := time.Now(); time.Since(begin) < bulkTime; {
			if _, err := conn.Write(block); err != nil {
				return err
			}
		}
		return nil
	}))
	got := <-done
	if got.bytes == 0 {
		w.b.Fatalf("nothing arrived: %v", got.err)
	}
	return float64(got.bytes) * 8 / got.took.Seconds() / 1e9
}
