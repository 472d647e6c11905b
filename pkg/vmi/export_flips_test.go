package vmi

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
)

// Second opinions on answers, by other ways than those that lead to them.

// bareKernel is a guest's kernel for one operation of the test.
func bareKernel(ctx context.Context, g Guest) *linuxKernel {
	return g.(*linuxGuest).k.bounded(ctx)
}

// CheckHolder says why an instance does not hold a socket with a local port: it
// goes from the process to the sockets, not from the port to the process.
func CheckHolder(ctx context.Context, g Guest, pid uint32, start uint64, port uint16) error {
	k := bareKernel(ctx, g)
	leader, err := k.find(ctx, id{pid, start})
	if err != nil {
		return err
	}
	tasks := []task{leader}
	if threads, err := k.threads(leader); err == nil {
		tasks = append(tasks, threads...)
	}
	for _, t := range tasks {
		ports, err := k.portsOf(t)
		if err == nil && slices.Contains(ports, port) {
			return nil
		}
	}
	return fmt.Errorf("process %d holds no socket with port %d", pid, port)
}

// portsOf are the local ports of a task's sockets.
func (k *linuxKernel) portsOf(t task) ([]uint16, error) {
	table, err := k.u64(t.files + uint64(k.FilesTable.off))
	if err != nil {
		return nil, err
	}
	n, err := k.u32(table + uint64(k.TableMax.off))
	if err != nil {
		return nil, err
	}
	array, err := k.u64(table + uint64(k.TableFD.off))
	if err != nil {
		return nil, err
	}
	raw := make([]byte, 8*min(n, 4096))
	if err := k.read(raw, array); err != nil {
		return nil, err
	}
	var out []uint16
	for ; len(raw) > 0; raw = raw[8:] {
		file := binary.LittleEndian.Uint64(raw)
		if ops, err := k.u64(file + uint64(k.FileOps.off)); file == 0 || err != nil || ops != k.sym["socket_file_ops"] {
			continue
		}
		socket, err := k.u64(file + uint64(k.FilePrivate.off))
		if err != nil {
			continue
		}
		sk, err := k.u64(socket + uint64(k.SocketSock.off))
		if err != nil {
			continue
		}
		if port, err := k.word(sk+uint64(k.SockPort.off), 2); err == nil {
			out = append(out, uint16(port))
		}
	}
	return out, nil
}

// CheckProcess says why a process is not as it was listed: it looks for it by
// its number, and a hidden one in the allocator's memory only.
func CheckProcess(ctx context.Context, g Guest, p Process) error {
	k := bareKernel(ctx, g)
	t, err := k.find(ctx, id{p.PID, p.Start})
	if err != nil {
		return err
	}
	if t.comm != p.Name || !t.leads() || !k.living(t) {
		return fmt.Errorf("process %d is %q, leads %v, living %v", p.PID, t.comm, t.leads(), k.living(t))
	}
	shown, err := k.pidsView(ctx)
	if err != nil {
		return err
	}
	if listed := slices.ContainsFunc(shown, func(s task) bool { return s.id() == t.id() && s.leads() }); listed == p.Hidden {
		return fmt.Errorf("process %d is hidden %v, and its number leads to it: %v", p.PID, p.Hidden, listed)
	}
	return nil
}
