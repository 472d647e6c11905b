package vmi

import (
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
)

// linuxHelp is what an operator knows of a guest's kernel. It is used where the
// guest's memory lacks it, and refused where it does not fit what is there.
type linuxHelp struct {
	btf, systemMap string // files; "" if there is none
	registers      func(context.Context) (Registers, error)
}

// errHelp: what the operator gave is not of this kernel.
var errHelp = errors.New("does not fit the guest's kernel")

// readBTFFile reads type information from a file: as /sys/kernel/btf/vmlinux has
// it, or as the section .BTF of a vmlinux.
func readBTFFile(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("cannot read the BTF file: %w", err)
	}
	defer file.Close()
	var magic [4]byte
	if _, err := io.ReadFull(file, magic[:]); err != nil {
		return nil, fmt.Errorf("cannot read the BTF file %s: %w", path, err)
	}
	if string(magic[:]) == elf.ELFMAG {
		return btfOfELF(file, path)
	}
	raw, err := readUpTo(io.MultiReader(bytes.NewReader(magic[:]), file), maxBTF)
	if err != nil {
		return nil, fmt.Errorf("cannot read the BTF file %s: %w", path, err)
	}
	return raw, nil
}

func btfOfELF(file *os.File, path string) ([]byte, error) {
	image, err := elf.NewFile(file)
	if err != nil {
		return nil, fmt.Errorf("cannot read the BTF file %s: %w", path, err)
	}
	section := image.Section(".BTF")
	if section == nil || section.Type == elf.SHT_NOBITS || section.Size > maxBTF {
		return nil, fmt.Errorf("cannot read the BTF file %s: it has no section .BTF of at most %d MiB", path, maxBTF>>20)
	}
	raw, err := section.Data()
	if err != nil {
		return nil, fmt.Errorf("cannot read the BTF file %s: %w", path, err)
	}
	return raw, nil
}

// readUpTo reads all, but refuses more than limit bytes.
func readUpTo(r io.Reader, limit int64) ([]byte, error) {
	raw, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err == nil && int64(len(raw)) > limit {
		err = fmt.Errorf("it has more than %d MiB", limit>>20)
	}
	return raw, err
}
