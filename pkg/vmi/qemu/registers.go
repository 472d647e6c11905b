package qemu

import (
	"context"
	"errors"
	"fmt"

	"github.com/vmgate/vmgate/pkg/vmi"
	"github.com/vmgate/vmgate/pkg/vmi/qmp"
)

// Registers reads the control registers of a machine's first processor by its
// monitor, as vmi.Options.Registers wants them. The monitor serves others again
// afterwards.
func Registers(ctx context.Context, socket string) (r vmi.Registers, err error) {
	monitor, err := qmp.Dial(ctx, socket)
	if err != nil {
		return r, fmt.Errorf("cannot read registers: %w", err)
	}
	defer func() { err = errors.Join(err, monitor.Close()) }()
	return registersOf(ctx, monitor)
}

// Registers implements vmi.RegisterReader, by the connection that reads memory: a
// monitor serves no other meanwhile.
func (m *monitorMemory) Registers(ctx context.Context) (vmi.Registers, error) {
	return registersOf(ctx, m.monitor)
}

func registersOf(ctx context.Context, monitor *qmp.Monitor) (r vmi.Registers, err error) {
	text, err := monitor.Human(ctx, "info registers")
	if err != nil {
		return r, fmt.Errorf("cannot read registers: %w", err)
	}
	return vmi.ParseRegisters(text)
}
