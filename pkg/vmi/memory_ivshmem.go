package vmi

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// Ivshmem names a PCI device of this machine through which a hypervisor shows
// the RAM of another guest (QEMU's ivshmem-plain over that guest's memory file).
type Ivshmem struct {
	Size    uint64 // of the RAM, in bytes: a power of two, as QEMU asks for
	Device  string // PCI address such as "0000:00:05.0"; if empty, the only ivshmem device of the size is taken
	Machine string // of the guest, as for LayoutFor
}

const pciDevices = "/sys/bus/pci/devices"

var pciAddress = regexp.MustCompile(`^[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]$`)

// OpenIvshmem opens a guest's memory behind an ivshmem device. It takes root, and
// a kernel that is not locked down (as one booted with secure boot is).
func OpenIvshmem(dev Ivshmem) (Memory, error) {
	m, err := openIvshmem(pciDevices, dev)
	if err != nil {
		return nil, fmt.Errorf("cannot use an ivshmem device as guest memory: %w", err)
	}
	return m, nil
}

func openIvshmem(devices string, dev Ivshmem) (Memory, error) {
	layout, err := LayoutFor(dev.Machine, dev.Size)
	if err != nil {
		return nil, err
	}
	dir, err := findIvshmem(devices, dev)
	if err != nil {
		return nil, err
	}
	if err := decodesMemory(dir); err != nil {
		return nil, err
	}
	f, err := os.Open(filepath.Join(dir, "resource2"))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case uint64(info.Size()) != dev.Size:
		return nil, fmt.Errorf("device %s has %d bytes of memory, and RAM of %d was expected", filepath.Base(dir), info.Size(), dev.Size)
	}
	return mapDevice(f, 0, dev.Size, layout)
}

// findIvshmem returns the device's directory in sysfs.
func findIvshmem(devices string, dev Ivshmem) (string, error) {
	if dev.Device != "" {
		dir := filepath.Join(devices, dev.Device)
		if !pciAddress.MatchString(dev.Device) {
			return "", fmt.Errorf("%q is no address of a PCI device: write 0000:00:05.0", dev.Device)
		}
		if !isIvshmem(dir) {
			return "", fmt.Errorf("device %s is not there, or no ivshmem device", dev.Device)
		}
		return dir, nil
	}
	all, err := os.ReadDir(devices)
	if err != nil {
		return "", err
	}
	var found, others []string
	for _, entry := range all {
		dir := filepath.Join(devices, entry.Name())
		if !isIvshmem(dir) {
			continue
		}
		info, err := os.Stat(filepath.Join(dir, "resource2"))
		if err == nil && uint64(info.Size()) == dev.Size {
			found = append(found, dir)
		} else {
			others = append(others, entry.Name())
		}
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(found) > 1:
		return "", fmt.Errorf("%d ivshmem devices have %d bytes: name one of them by its address", len(found), dev.Size)
	case len(others) > 0:
		return "", fmt.Errorf("no ivshmem device has %d bytes; there are others: %s", dev.Size, strings.Join(others, " "))
	}
	return "", errors.New("this machine has none")
}

// isIvshmem tells the device by its ids (docs/specs/ivshmem-spec.txt of QEMU).
func isIvshmem(dir string) bool {
	for file, want := range map[string]string{"vendor": "0x1af4", "device": "0x1110"} {
		got, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil || strings.TrimSpace(string(got)) != want {
			return false
		}
	}
	return true
}

// decodesMemory checks bit 1 of the command register: what does not answer reads
// as ones.
func decodesMemory(dir string) error {
	f, err := os.Open(filepath.Join(dir, "config"))
	if err != nil {
		return err
	}
	defer f.Close()
	var command [2]byte
	if _, err := f.ReadAt(command[:], 4); err != nil {
		return fmt.Errorf("cannot read the configuration of device %s: %w", filepath.Base(dir), err)
	}
	if binary.LittleEndian.Uint16(command[:])&2 == 0 {
		return fmt.Errorf("device %s is switched off: echo 1 >%s/enable", filepath.Base(dir), dir)
	}
	return nil
}
