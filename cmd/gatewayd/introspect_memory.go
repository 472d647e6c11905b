package main

import (
	"context"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/vmgate/vmgate/internal/config"
	"github.com/vmgate/vmgate/internal/source"
	"github.com/vmgate/vmgate/pkg/vmi"
	"github.com/vmgate/vmgate/pkg/vmi/qemu"
)

// openMemory opens the memory that the command line names.
func openMemory(ctx context.Context, c *cli.Context, place config.Memory) (source.Memory, error) {
	switch {
	case place.File != "":
		format := vmi.Format(c.String("format"))
		if format == "auto" {
			format = vmi.FormatAuto
		}
		memory, err := vmi.OpenAs(place.File, format, place.Machine)
		return source.Memory{Memory: memory}, err
	case place.Process.Name != "":
		return openProcess(ctx, place.Process)
	}
	return source.OpenMemory(ctx, place)
}

// placeOf reads the flags that say where the memory is: one does, but for a
// process, of which a monitor may be told too.
func placeOf(c *cli.Context) (place config.Memory, name string, err error) {
	place.Machine, place.BTF, place.SystemMap = c.String("machine"), c.String("btf"), c.String("system-map")
	var given []string
	for _, flag := range []string{"memory", "process", "monitor", "ivshmem", "nvdimm"} {
		value := c.String(flag)
		if value == "" || flag == "monitor" && place.Process.Name != "" {
			continue
		}
		given, name = append(given, "--"+flag), value
		size, device, _ := strings.Cut(value, "@")
		switch flag {
		case "memory":
			place.File = value
		case "process":
			place.Process = config.Process{Name: value, Monitor: c.String("monitor")}
			name = "QEMU " + value
		case "monitor":
			place.Monitor.Socket = value
		case "ivshmem":
			place.Ivshmem.Device, err = device, place.Ivshmem.Size.UnmarshalText([]byte(size))
		case "nvdimm":
			if err = place.NVDIMM.Size.UnmarshalText([]byte(size)); err == nil && device != "" {
				err = place.NVDIMM.Address.UnmarshalText([]byte(device))
			}
		}
		if err != nil {
			return place, "", usageErrorf("--%s: %w", flag, err)
		}
	}
	switch len(given) {
	case 0:
		return place, "", usageErrorf("no memory is named: add --memory FILE, or --process, --monitor, --ivshmem or --nvdimm")
	case 1:
		return place, name, nil
	}
	return place, "", usageErrorf("%s are several places for one memory: leave one", strings.Join(given, " and "))
}

// openProcess takes a pid too, unlike the configuration: pids come and go.
func openProcess(ctx context.Context, place config.Process) (source.Memory, error) {
	var machine qemu.Machine
	pid, err := strconv.Atoi(place.Name)
	if err == nil {
		machine, err = qemu.Inspect(pid)
	} else {
		machine, err = qemu.ByName(place.Name)
	}
	if err != nil {
		return source.Memory{}, err
	}
	return source.OpenMachine(ctx, machine, place.Monitor, qemu.ByDescriptor, qemu.ByProcess)
}
