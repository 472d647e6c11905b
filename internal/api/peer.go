package api

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/user"
	"slices"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// access decides who may call.
type access struct {
	group string // empty: none
	gid   int    // -1: none
}

func newAccess(group string) (access, error) {
	if group == "" {
		return access{gid: -1}, nil
	}
	g, err := user.LookupGroup(group)
	if err != nil {
		return access{}, fmt.Errorf("cannot find the group %q of gateway.group: %w: make it with \"groupadd --system %s\"", group, err, group)
	}
	gid, err := strconv.Atoi(g.Gid)
	if err != nil {
		return access{}, fmt.Errorf("cannot use the group %q: its id is %q", group, g.Gid)
	}
	return access{group: group, gid: gid}, nil
}

// peer is the process at the other end of a connection.
type peer struct {
	name   string // of its user, or "uid 1234"
	pid    int32
	refuse error // why it may not call; nil: it may
}

type peerKey struct{}

// withPeer puts the connection's peer into its context. The look-up of the user
// waits for the first call: it may be slow, and this runs in the accept loop.
func (a access) withPeer(ctx context.Context, conn net.Conn) context.Context {
	cred, err := credentials(conn)
	return context.WithValue(ctx, peerKey{}, sync.OnceValue(func() peer {
		if err != nil {
			return peer{name: "unknown", refuse: fmt.Errorf("cannot tell who calls: %w", err)}
		}
		return a.judge(cred)
	}))
}

func peerOf(ctx context.Context) peer {
	return ctx.Value(peerKey{}).(func() peer)()
}

// credentials are those that the peer had when it connected (unix(7), SO_PEERCRED).
func credentials(conn net.Conn) (*unix.Ucred, error) {
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return nil, err
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return nil, err
	}
	return cred, credErr
}

func (a access) judge(cred *unix.Ucred) peer {
	p := peer{name: fmt.Sprintf("uid %d", cred.Uid), pid: cred.Pid}
	account, err := user.LookupId(strconv.Itoa(int(cred.Uid)))
	if err == nil {
		p.name = account.Username
	}
	switch {
	case cred.Uid == 0, int(cred.Uid) == os.Geteuid():
	case a.gid >= 0 && int(cred.Gid) == a.gid:
	case a.gid >= 0 && account != nil && isMember(account, a.gid):
	case a.gid < 0:
		p.refuse = fmt.Errorf("user %s may not use this daemon: only root may, as gateway.group names no group", p.name)
	default:
		p.refuse = fmt.Errorf("user %s may not use this daemon: only root and members of the group %s may", p.name, a.group)
	}
	return p
}

func isMember(account *user.User, gid int) bool {
	groups, err := account.GroupIds()
	return err == nil && slices.Contains(groups, strconv.Itoa(gid))
}
