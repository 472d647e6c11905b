package api

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// maxSocketPath is what sun_path of struct sockaddr_un holds, less the NUL.
const maxSocketPath = 107

// listenUnix binds a socket of mode 0660, owned by this process's user and by
// gid (-1: its own group). In the moment between bind and chmod the mode is the
// umask's, which harms nothing: each connection's peer is checked as well.
func listenUnix(path string, gid int) (*net.UnixListener, error) {
	if len(path) > maxSocketPath {
		return nil, fmt.Errorf("cannot listen on %s: the path has %d bytes and the kernel takes %d at most: choose a shorter gateway.run",
			path, len(path), maxSocketPath)
	}
	if err := removeStale(path); err != nil {
		return nil, err
	}
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("cannot listen on %s: %w", path, err)
	}
	if err := errors.Join(os.Chown(path, -1, gid), os.Chmod(path, 0o660)); err != nil {
		return nil, errors.Join(fmt.Errorf("cannot give %s its owner and mode: %w", path, err), listener.Close())
	}
	return listener, nil
}

// removeStale removes the socket that a dead daemon left, and nothing else.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot look at %s: %w", path, err)
	}
	if info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("cannot listen on %s: it is there and no socket: move it away", path)
	}
	conn, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		defer conn.Close()
		return fmt.Errorf("cannot listen on %s: another daemon%s serves it: stop that one first", path, peerPID(conn))
	}
	if !errors.Is(err, unix.ECONNREFUSED) {
		return fmt.Errorf("cannot tell whether another daemon serves %s: %w", path, err)
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("cannot remove the socket of a dead daemon: %w", err)
	}
	return nil
}

// peerPID names the process at the other end, where the kernel tells.
func peerPID(conn net.Conn) string {
	cred, err := credentials(conn)
	if err != nil {
		return ""
	}
	return fmt.Sprintf(" (pid %d)", cred.Pid)
}
