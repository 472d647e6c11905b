// Command vmgate-demo shows the gateway's main job on real virtual machines. It
// needs root, QEMU, and Suricata or Snort; see "make demo".
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/vmgate/vmgate/internal/demo"
)

func main() { os.Exit(run()) }

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	self, err := os.Executable()
	if err != nil {
		fmt.Fprintln(os.Stderr, "vmgate-demo: cannot find gatewayd:", err)
		return 1
	}
	engine := os.Getenv("IDS")
	if engine == "" {
		engine = "suricata"
	}
	err = demo.Run(ctx, demo.Options{
		Gatewayd: filepath.Join(filepath.Dir(self), "gatewayd"),
		Engine:   engine,
		Report:   filepath.Join(filepath.Dir(self), "demo.json"),
		Out:      os.Stdout,
		Log:      slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, "vmgate-demo:", err)
		return 1
	}
	return 0
}
