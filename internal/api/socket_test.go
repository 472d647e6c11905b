package api_test

import (
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/vmgate/vmgate/internal/api"
	"github.com/vmgate/vmgate/internal/api/apitest"
)

func listen(path, group string) (*api.Server, error) {
	return api.Listen(api.ServerConfig{Path: path, Group: group, Backend: apitest.New(), Log: slog.New(slog.DiscardHandler)})
}

func TestListen_ReplacesTheSocketOfADeadDaemon(t *testing.T) {
	path := filepath.Join(shortDir(t), "s")
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	_ = dead.Close()
	if _, err := os.Lstat(path); err != nil {
		t.Fatalf("the test left no stale socket: %v", err)
	}
	r := serve(t, func(c *api.ServerConfig, _ *apitest.Fake) { c.Path = path })
	r.path, r.Client = path, api.NewClient(path)
	r.wantAlive(t)
}

func TestListen_LeavesALiveDaemonAlone(t *testing.T) {
	r := serve(t, nil)
	_, err := listen(r.path, "")
	if err == nil || !strings.Contains(err.Error(), "another daemon (pid ") {
		t.Errorf("error %v does not name the other daemon", err)
	}
	r.wantAlive(t)
}

func TestListen_LeavesAFileAlone(t *testing.T) {
	path := filepath.Join(shortDir(t), "s")
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := listen(path, ""); err == nil || !strings.Contains(err.Error(), "no socket") {
		t.Errorf("error %v does not say that the file is no socket", err)
	}
	if b, _ := os.ReadFile(path); string(b) != "precious" {
		t.Errorf("the file has become %q", b)
	}
}

func TestListen_ExplainsWhatItCannotUse(t *testing.T) {
	dir := shortDir(t)
	for name, c := range map[string]struct{ path, group, want string }{
		"long path":    {filepath.Join(dir, strings.Repeat("x", api.MaxSocketPath)), "", "gateway.run"},
		"no directory": {filepath.Join(dir, "none", "s"), "", "no such file"},
		"no group":     {filepath.Join(dir, "s"), "vmgate-no-such-group", "groupadd --system vmgate-no-such-group"},
	} {
		if _, err := listen(c.path, c.group); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v does not say %q", name, err, c.want)
		}
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("failures left %v", left)
	}
}

func TestListen_TheSocketIsForItsOwnerAndTheGroup(t *testing.T) {
	r := serve(t, func(c *api.ServerConfig, _ *apitest.Fake) {
		if os.Geteuid() == 0 {
			c.Group = "nogroup"
		}
	})
	info, err := os.Lstat(r.path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode() != fs.ModeSocket|0o660 {
		t.Errorf("mode %v, want srw-rw----", info.Mode())
	}
	if gid := info.Sys().(*syscall.Stat_t).Gid; os.Geteuid() == 0 && gid != 65534 {
		t.Errorf("group %d, want that of nogroup", gid)
	}
	if err := r.stop(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(r.path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket is still there after the end: %v", err)
	}
}
