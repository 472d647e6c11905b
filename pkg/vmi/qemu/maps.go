package qemu

import (
	"bufio"
	"fmt"
	"io"
	"strings"
)

// maxMappings bounds how many mappings of a process are looked at.
const maxMappings = 1 << 17

// parseMaps reads /proc/PID/maps.
func parseMaps(r io.Reader) ([]mapping, error) {
	var out []mapping
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		var m mapping
		var mode string
		if _, err := fmt.Sscanf(lines.Text(), "%x-%x %s %x %x:%x %d", &m.from, &m.to, &mode, &m.offset, &m.major, &m.minor, &m.inode); err != nil || m.to <= m.from {
			return nil, fmt.Errorf("not a mapping: %q", lines.Text())
		}
		if !strings.HasPrefix(mode, "r") {
			continue
		}
		m.shared = strings.HasSuffix(mode, "s") && m.inode != 0
		if out = append(out, m); len(out) > maxMappings {
			return nil, fmt.Errorf("more than %d mappings", maxMappings)
		}
	}
	return out, lines.Err()
}

// covering finds the mapping that has an address.
func covering(all []mapping, address uint64) (mapping, bool) {
	for _, m := range all {
		if m.from <= address && address < m.to {
			return m, true
		}
	}
	return mapping{}, false
}

// sized finds the only mapping of that size.
func sized(all []mapping, size uint64) (mapping, error) {
	var found []mapping
	for _, m := range all {
		if m.to-m.from == size {
			found = append(found, m)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return mapping{}, fmt.Errorf("it has no mapping of %d bytes; name a monitor of it, which knows", size)
	}
	return mapping{}, fmt.Errorf("it has %d mappings of %d bytes; name a monitor of it, which knows", len(found), size)
}
