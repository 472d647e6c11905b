package e2e_test

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/gopacket/layers"
	"golang.org/x/sys/unix"

	"github.com/vmgate/vmgate/internal/event"
)

// TestIDS_FloodOfThePaper: as many SYNs as its tool sends in three seconds, all of them
// through the engine, since no alert convicts. The rule lets ten by, and drops for as
// long as it is asked to; what is told, kept and held of it stays small.
func TestIDS_FloodOfThePaper(t *testing.T) {
	eachEngine(t, func(t *testing.T, s setup) {
		const (
			flood  = 128_000
			within = 3 * time.Second
			flows  = 512
			room   = 64 << 20 // bytes, of files and of memory besides what is there before
		)
		s.IDS = fmt.Sprintf(`drop tcp any any -> 10.77.0.21 443 (msg:"TCP sync flood"; flow:stateless; flags:S; detection_filter: track by_src, count %d, seconds 60; sid:1000001; rev:1;)`+"\n", synThreshold)
		s.IDSMore = "convict: [{then: ignore}]"
		g := namespaced(t, s)
		absorb(t, g.Web1, 443)
		syns := make([][]byte, flows)
		for i := range syns {
			ip := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolTCP, SrcIP: g.App1.V4.Addr().AsSlice(), DstIP: g.Web1.V4.Addr().AsSlice()}
			tcp := &layers.TCP{SrcPort: layers.TCPPort(2000 + i), DstPort: 443, SYN: true, Seq: uint32(i), Window: 512}
			must(t, tcp.SetNetworkLayerForChecksum(ip))
			syns[i] = serialize(t, &layers.Ethernet{SrcMAC: g.App1.MAC, DstMAC: g.Web1.MAC, EthernetType: layers.EthernetTypeIPv4}, ip, tcp)
		}
		isSYN := func(f []byte) bool {
			return len(f) >= 54 && f[12] == 8 && f[23] == 6 && f[47] == 2 && bytes.Equal(f[26:30], g.App1.V4.Addr().AsSlice())
		}
		fd := packetSocket(t, g.App1.Namespace, g.App1.Interface, 0)
		defer unix.Close(fd)
		was, err := g.Client.IDS(t.Context())
		must(t, err)
		daemonBefore, engineBefore := memory(t, g.PID(), "VmRSS"), memory(t, was.PID, "VmRSS")

		mark, before, began, largest := g.events.mark(), g.counts(), time.Now(), int64(0)
		for sent := 0; sent < flood; {
			switch _, err := unix.Write(fd, syns[sent%flows]); err {
			case nil:
				sent++
			case unix.ENOBUFS: // the gateway has its hands full
				time.Sleep(time.Millisecond)
			default:
				t.Fatal(err)
			}
			if sent%1000 == 0 {
				largest = max(largest, sizeBelow(t, g.File("run")))
				time.Sleep(time.Until(began.Add(within * time.Duration(sent) / flood)))
			}
		}
		took := time.Since(began)
		// The engine has read all that it has when this comes out of it.
		p := newProbe(g.App1, g.Web1, 443)
		await(t, "what is sent later", func() bool {
			p.send(t)
			return len(g.webWire.seen(carries(p.payload))) > 0
		})
		g.events.wait(t, mark, "the alert", func(e event.Event) bool { return e.Type == "alert" && e.Alert.SID == 1000001 })

		through := g.since(before, "apps/check")
		if through < flood/2 {
			t.Errorf("only %d of %d SYNs went to the engine", through, flood)
		}
		if n := len(g.webWire.seen(isSYN)); n != synThreshold {
			t.Errorf("the victim saw %d SYNs, want %d", n, synThreshold)
		}
		now, err := g.Client.IDS(t.Context())
		must(t, err)
		if now.PID != was.PID || now.State != "up" {
			t.Errorf("the engine was %+v and is %+v", was.IDSStatus, now.IDSStatus)
		}
		seconds := int(time.Since(began)/time.Second) + 2
		alerts := 0
		for _, e := range g.events.since(mark) {
			if e.Type == "alert" {
				alerts++
			}
		}
		if alerts > 4*seconds {
			t.Errorf("%d alerts are told in %d s", alerts, seconds)
		}
		daemonMore, engineMore := memory(t, g.PID(), "VmHWM")-daemonBefore, memory(t, was.PID, "VmHWM")-engineBefore
		for what, n := range map[string]int64{"files": largest, "the daemon's memory": daemonMore, "the engine's memory": engineMore} {
			if n > room {
				t.Errorf("%s: %d MiB more", what, n>>20)
			}
		}
		e := now.Engines[0]
		t.Logf("%d SYNs in %v, %d to the engine; %d alerts told of %d lines, %d lost; MiB at most: files %d, daemon +%d, engine +%d",
			flood, took.Round(time.Millisecond), through, alerts, e.Lines, e.Lost, largest>>20, daemonMore>>20, engineMore>>20)
	})
}

// sizeBelow is how many bytes the files of a directory take.
func sizeBelow(t *testing.T, dir string) (used int64) {
	t.Helper()
	must(t, filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil // it has been removed meanwhile
		}
		if info, err := d.Info(); err == nil && info.Mode().IsRegular() {
			used += info.Sys().(*syscall.Stat_t).Blocks * 512 // its beginning may be cut out
		}
		return nil
	}))
	return used
}

// memory is a line of /proc/PID/status, in bytes.
func memory(t *testing.T, pid int, key string) int64 {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	must(t, err)
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, key+":"); ok {
			kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			must(t, err)
			return kib << 10
		}
	}
	t.Fatalf("no %s of process %d", key, pid)
	return 0
}
