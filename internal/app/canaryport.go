package app

import (
	"encoding/binary"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"runtime"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/vmgate/vmgate/pkg/loader"
)

// drainMost bounds the frames that are read at once: an engine that an attacker
// has taken over may send any number.
const drainMost = 512

// canaryPort is a packet socket that takes canaries alone: the kernel's filter
// drops all else before it is copied. It opens itself when it is first used, and
// again after an error: the device may have been replaced.
type canaryPort struct {
	device string
	netNS  string // named namespace of the device; empty: the caller's
	fd     int    // -1 for none
	log    *slog.Logger
	said   string // the last error, which is not said again
}

func newCanaryPort(device, netNS string, log *slog.Logger) *canaryPort {
	return &canaryPort{device: device, netNS: netNS, fd: -1, log: log}
}

// canaryPorts opens nothing yet. Those at the engine's ends, which show what has
// come to it, are nil where the engine is not beside the daemon.
func canaryPorts(p loader.IDSPorts, log *slog.Logger) (own, taps [directions]*canaryPort) {
	for d, device := range [directions]string{p.In, p.Out} {
		own[d] = newCanaryPort(device, "", log)
	}
	if p.EngineIn != "" {
		for d, device := range [directions]string{p.EngineIn, p.EngineOut} {
			taps[d] = newCanaryPort(device, p.NetNS, log)
		}
	}
	return own, taps
}

// send sends frames. What cannot be sent is missed like one that is lost, since
// packets to be checked would be as well.
func (p *canaryPort) send(frames [][]byte) {
	if !p.ready() {
		return
	}
	for _, frame := range frames {
		if _, err := unix.Write(p.fd, frame); err != nil {
			p.failed(err)
			return
		}
	}
}

// drain calls f with each frame that has come. What f is given is valid in it alone.
func (p *canaryPort) drain(f func(frame []byte)) {
	if p == nil || !p.ready() {
		return
	}
	var buf [maxCanary + 1]byte
	for range drainMost {
		n, _, err := unix.Recvfrom(p.fd, buf[:], unix.MSG_DONTWAIT)
		if err == unix.EAGAIN {
			return
		}
		if err != nil {
			p.failed(err)
			return
		}
		f(buf[:n])
	}
}

func (p *canaryPort) ready() bool {
	if p.fd >= 0 {
		return true
	}
	err := inNamespace(p.netNS, func() (err error) {
		p.fd, err = openCanarySocket(p.device)
		return err
	})
	if err != nil {
		p.failed(err)
	}
	return err == nil
}

func (p *canaryPort) failed(err error) {
	p.close()
	if text := err.Error(); text != p.said {
		p.said = text
		p.log.Warn("canaries cannot go through the IDS", "device", p.device, "error", err)
	}
}

func (p *canaryPort) close() {
	if p != nil && p.fd >= 0 {
		unix.Close(p.fd)
		p.fd = -1
	}
}

// openCanarySocket is a few plain system calls: no library is needed. It is of all
// protocols, which is before TC, and sees nothing of what the device sends.
func openCanarySocket(device string) (fd int, err error) {
	dev, err := net.InterfaceByName(device)
	if err != nil {
		return -1, err
	}
	if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0); err != nil {
		return -1, err
	}
	// Source MAC, first four bytes. Before it is bound, so that nothing else comes in.
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 6},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: binary.BigEndian.Uint32(canaryOUI[:])},
		{Code: unix.BPF_RET | unix.BPF_K, K: maxCanary + 1},
		{Code: unix.BPF_RET | unix.BPF_K},
	}
	err = unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]})
	if err == nil {
		err = unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1)
	}
	all := binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, unix.ETH_P_ALL))
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: dev.Index})
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// inNamespace calls f on a thread in a named network namespace. The thread ends
// with f.
func inNamespace(name string, f func() error) error {
	if name == "" {
		return f()
	}
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked
		if unix.Gettid() == unix.Getpid() {
			// The main thread cannot end, and is what /proc/self shows. While it is held
			// here, f gets another.
			defer runtime.UnlockOSThread()
			done <- inNamespace(name, f)
			return
		}
		ns, err := netns.GetFromPath(filepath.Join("/run/netns", name))
		if err == nil {
			defer ns.Close()
			err = netns.Set(ns)
		}
		if err != nil {
			done <- fmt.Errorf("cannot enter network namespace %s: %w", name, err)
			return
		}
		done <- f()
	}()
	return <-done
}
