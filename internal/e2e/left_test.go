package e2e_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
)

// wantNothingLeft checks that no trace of a daemon is in the kernel, and that
// no process of its lives.
func (g *gateway) wantNothingLeft(t *testing.T) {
	t.Helper()
	for _, path := range []string{g.Pins, filepath.Join("/run/netns", filepath.Base(g.Pins)+"-ids"), g.Socket()} {
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("left: %s (%v)", path, err)
		}
	}
	links, err := g.Gateway.Netlink().LinkList()
	must(t, err)
	for _, link := range links {
		a := link.Attrs()
		switch a.Name {
		case "lo", "sit0", "ip6tnl0", "tunl0", "gre0", "gretap0", "erspan0", "ip_vti0", "ip6_vti0", "ip6gre0":
			continue
		case "gw-apps", "gw-web":
		default:
			t.Errorf("left: device %s", a.Name)
		}
		if a.Xdp != nil && a.Xdp.Attached || a.MasterIndex != 0 {
			t.Errorf("%s has XDP %+v and master %d", a.Name, a.Xdp, a.MasterIndex)
		}
		qdiscs, err := g.Gateway.Netlink().QdiscList(link)
		must(t, err)
		for _, q := range qdiscs {
			if q.Type() == "clsact" && g.hasFilters(t, link) {
				t.Errorf("%s has TC filters", a.Name)
			}
		}
	}
	await(t, "no process of the gateway lives", func() bool { return len(g.processes(t)) == 0 })
}

func (g *gateway) hasFilters(t *testing.T, link netlink.Link) bool {
	t.Helper()
	for _, parent := range []uint32{netlink.HANDLE_MIN_INGRESS, netlink.HANDLE_MIN_EGRESS} {
		filters, err := g.Gateway.Netlink().FilterList(link, parent)
		must(t, err)
		if len(filters) > 0 {
			return true
		}
	}
	return false
}

// processes lists the processes whose command line names the gateway's directory.
func (g *gateway) processes(t *testing.T) (found []string) {
	t.Helper()
	paths, err := filepath.Glob("/proc/[0-9]*/cmdline")
	must(t, err)
	for _, path := range paths {
		line, err := os.ReadFile(path)
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err == nil && pid != os.Getpid() && bytes.Contains(line, []byte(g.Dir)) {
			found = append(found, strings.ReplaceAll(string(line), "\x00", " "))
		}
	}
	return found
}

func containsAll(text string, parts ...string) bool {
	for _, part := range parts {
		if !strings.Contains(text, part) {
			return false
		}
	}
	return true
}
