package api_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/vmgate/vmgate/internal/api"
	"github.com/vmgate/vmgate/internal/api/apitest"
)

// TestMain turns the test binary into a peer for tests that need one of
// another user.
func TestMain(m *testing.M) {
	if socket := os.Getenv("VMGATE_TEST_PEER_OF"); socket != "" {
		os.Exit(bePeer(socket))
	}
	os.Exit(m.Run())
}

func bePeer(socket string) int {
	err := api.NewClient(socket).Measure(context.Background(), api.Measure{Action: "isolate", VM: "app1"})
	var e *api.Error
	if errors.As(err, &e) {
		fmt.Println(e.Status, e.Message)
		return 0
	}
	fmt.Println(err)
	return 0
}

// callAs isolates app1 as another user and returns what that was told.
func callAs(t *testing.T, socket string, uid, gid uint32) string {
	t.Helper()
	cmd := exec.Command(readableSelf(t))
	cmd.Env = []string{"VMGATE_TEST_PEER_OF=" + socket}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: gid}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return strings.TrimSpace(string(out))
}

// readableSelf copies the test binary to where other users can run it: go test
// builds it in a directory for its own user only.
func readableSelf(t *testing.T) string {
	t.Helper()
	in, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	path := filepath.Join(shortDir(t), "peer")
	out, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.Copy(out, in)
	if err := errors.Join(err, out.Close(), os.Chmod(path, 0o755)); err != nil {
		t.Fatal(err)
	}
	return path
}

// Users and groups of every Debian: nobody is 65534 with primary group nogroup
// (65534); daemon is 1 with group daemon (1).
func TestPeers(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to call as another user")
	}
	for name, c := range map[string]struct {
		group    string
		uid, gid uint32
		want     string // of the answer
		by       string // who the daemon takes the caller for; empty: it must not be called
	}{
		"root":                            {"", 0, 0, "<nil>", "root"},
		"root of another group":           {"", 0, 1, "<nil>", "root"},
		"nobody, no group configured":     {"", 65534, 65534, "403 user nobody may not use this daemon: only root may, as gateway.group names no group", ""},
		"nobody, of another group":        {"daemon", 65534, 65534, "403 user nobody may not use this daemon: only root and members of the group daemon", ""},
		"member by its own group":         {"daemon", 65534, 1, "<nil>", "nobody"},
		"member by the user database":     {"nogroup", 65534, 1, "<nil>", "nobody"},
		"user without an account":         {"nogroup", 54321, 54321, "403 user uid 54321", ""},
		"group id 0 is no key to the API": {"", 54321, 0, "403 user uid 54321", ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := serve(t, func(config *api.ServerConfig, _ *apitest.Fake) { config.Group = c.group })
			// Credentials decide also when the file's mode has been loosened.
			if err := os.Chmod(r.path, 0o666); err != nil {
				t.Fatal(err)
			}
			if got := callAs(t, r.path, c.uid, c.gid); !strings.HasPrefix(got, c.want) {
				t.Errorf("answer %q, want %q", got, c.want)
			}
			var want []string
			if c.by != "" {
				want = []string{"isolate app1 0 by " + c.by}
			}
			if got := r.fake.Calls(); fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("the backend saw %q, want %q", got, want)
			}
			if refused := r.refusals("peer"); (refused == 1) != (c.by == "") {
				t.Errorf("%d refusals counted", refused)
			}
		})
	}
}

func TestPeers_TheModeAloneKeepsOthersOut(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to call as another user")
	}
	r := serve(t, nil)
	if got := callAs(t, r.path, 65534, 65534); !strings.Contains(got, "no permission to use "+r.path+": use sudo") {
		t.Errorf("answer %q explains nothing", got)
	}
}
