package main

import (
	"bufio"
	"context"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vmgate/vmgate/internal/api"
	"github.com/vmgate/vmgate/internal/api/apitest"
)

// An operator ends monitor with Ctrl-C, and that is success.
func TestMonitor_EndsWithSuccessWhenInterrupted(t *testing.T) {
	dir, err := os.MkdirTemp("", "vmgate-cli-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	socket := filepath.Join(dir, "s")
	server, err := api.Listen(api.ServerConfig{Path: socket, Backend: apitest.New(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	serving, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- server.Serve(serving) }()
	defer func() { stop(); <-served }()

	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	gatewayd, err := exec.LookPath("gatewayd") // testscript has put it there
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, gatewayd, "monitor", "--socket", socket)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() && !strings.Contains(lines.Text(), "operator") {
	}
	if err := cmd.Process.Signal(unix.SIGINT); err != nil {
		t.Error(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("interrupted monitor: %v", err)
	}
}
