package vmi

import (
	"encoding/binary"
	"fmt"
	"slices"
)

// maxFDs bounds the descriptors of one process that are looked through.
const maxFDs = 1 << 20

// fdTable gives the array of open files of a task.
func (k *linuxKernel) fdTable(files uint64) (fd uint64, n uint32, err error) {
	table, err := k.member(files, k.FilesTable)
	if err != nil {
		return 0, 0, err
	}
	r, err := k.record(table, spanOf(k.TableMax, k.TableFD))
	if err != nil {
		return 0, 0, err
	}
	n = uint32(r.uint(k.TableMax))
	if n > maxFDs {
		return 0, 0, fmt.Errorf("%w: %d descriptors", ErrUnstable, n)
	}
	return r.uint(k.TableFD), n, nil
}

// holds says whether descriptor number fd of the table is still the file.
func (k *linuxKernel) holds(files uint64, fd uint32, file uint64) bool {
	array, n, err := k.fdTable(files)
	if err != nil || fd >= n {
		return false
	}
	got, err := k.u64(array + 8*uint64(fd))
	return err == nil && got == file
}

// scanFiles looks through one table of descriptors for files and calls found with each.
func (k *linuxKernel) scanFiles(files uint64, want map[uint64]uint64, found func(file uint64, fd uint32)) error {
	array, n, err := k.fdTable(files)
	if err != nil || n == 0 {
		return err
	}
	var buf [pageSize]byte
	for first := uint32(0); first < n; first += pageSize / 8 {
		chunk := buf[:8*min(n-first, pageSize/8)]
		if err := k.read(chunk, array+8*uint64(first)); err != nil {
			return err
		}
		for i := 0; i < len(chunk); i += 8 {
			file := binary.LittleEndian.Uint64(chunk[i:])
			if file == 0 {
				continue
			}
			if _, wanted := want[file]; wanted {
				found(file, first+uint32(i/8))
			}
		}
	}
	return nil
}

// readTable reads a table of descriptors into buf, which grows where it must.
func (k *linuxKernel) readTable(files uint64, buf []byte) ([]byte, error) {
	if b, ok := k.readSmallTable(files, buf); ok {
		return b, nil
	}
	array, n, err := k.fdTable(files)
	if err != nil {
		return nil, err
	}
	buf = slices.Grow(buf[:0], int(8*n))[:8*n]
	for at := 0; at < len(buf); at += pageSize {
		if err := k.read(buf[at:min(at+pageSize, len(buf))], array+uint64(at)); err != nil {
			return nil, err
		}
	}
	return buf, nil
}

// readSmallTable is readTable where the table lies in files_struct itself, as it
// does until a process has more than 64 files open: one read gets it.
func (k *linuxKernel) readSmallTable(files uint64, buf []byte) ([]byte, bool) {
	if k.FilesTab.size == 0 || k.FilesArray.size == 0 {
		return nil, false
	}
	inner := func(f field) field { return field{off: k.FilesTab.off + f.off, size: f.size} }
	array := field{off: k.FilesArray.off, size: k.FilesArray.size}
	r, err := k.scratch.record(k, files, spanOf(k.FilesTable, inner(k.TableMax), inner(k.TableFD), array))
	if err != nil {
		return nil, false
	}
	defer k.scratch.put(r)
	n := uint32(r.uint(inner(k.TableMax)))
	if r.uint(k.FilesTable) != files+uint64(k.FilesTab.off) || r.uint(inner(k.TableFD)) != files+uint64(array.off) || n > array.size/8 {
		return nil, false
	}
	return append(buf[:0], r.bytes(array, 8*n)...), true
}
