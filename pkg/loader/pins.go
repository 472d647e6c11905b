package loader

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"
)

// pinDir is a directory under bpffs: maps by their name, links under links/.
type pinDir string

func (p pinDir) mapPath(name string) string { return filepath.Join(string(p), name) }
func (p pinDir) links() string              { return filepath.Join(string(p), "links") }

// linkPath is where the link of a device's hook is pinned. bpffs allows no dots
// in names, and device names no colons.
func (p pinDir) linkPath(device, hook string) string {
	return filepath.Join(p.links(), strings.ReplaceAll(device, ".", ":")+"-"+hook)
}

// splitLink is the inverse of linkPath for the last element of a path.
func splitLink(base string) (device, hook string) {
	i := strings.LastIndexByte(base, '-')
	if i < 0 {
		return "", ""
	}
	return strings.ReplaceAll(base[:i], ":", "."), base[i+1:]
}

// create makes the directory, if it is on a BPF file system.
func (p pinDir) create() error {
	if !filepath.IsAbs(string(p)) {
		return fmt.Errorf("cannot pin under %q: give an absolute path, such as /sys/fs/bpf/vmgate", string(p))
	}
	existing := string(p)
	for {
		if _, err := os.Stat(existing); !errors.Is(err, fs.ErrNotExist) {
			break
		}
		existing = filepath.Dir(existing)
	}
	if !onBPFFS(existing) {
		return fmt.Errorf("cannot pin under %s: %s is not on a BPF file system; "+
			"mount one (mount -t bpf bpf /sys/fs/bpf) and choose a directory below it", p, existing)
	}
	if err := os.MkdirAll(p.links(), 0o700); err != nil {
		return fmt.Errorf("cannot pin under %s: %w", p, err)
	}
	return nil
}

// remove deletes all pins and the directory. It descends into nothing but links,
// so that a wrong path costs no other program its pins.
func (p pinDir) remove() error {
	if _, err := os.Stat(string(p)); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if !onBPFFS(string(p)) {
		return fmt.Errorf("cannot remove the pins under %s: it is not on a BPF file system", p)
	}
	var errs []error
	for _, dir := range []string{p.links(), string(p)} {
		pins, err := os.ReadDir(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		errs = append(errs, err)
		for _, pin := range pins {
			if !pin.IsDir() {
				errs = append(errs, os.Remove(filepath.Join(dir, pin.Name())))
			}
		}
		errs = append(errs, os.Remove(dir))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("cannot remove the pins: %w", err)
	}
	return nil
}

func onBPFFS(path string) bool {
	var st unix.Statfs_t
	return unix.Statfs(path, &st) == nil && st.Type == unix.BPF_FS_MAGIC
}

// openMaps opens the pinned maps and makes those that are missing. Maps that
// belong to one program copy alone (read-only data) are left out.
func (p pinDir) openMaps(spec *ebpf.CollectionSpec) (_ map[string]*ebpf.Map, err error) {
	if err := rlimit.RemoveMemlock(); err != nil {
		return nil, fmt.Errorf("cannot lift the limit on locked memory (run as root, or with CAP_SYS_RESOURCE): %w", err)
	}
	maps := map[string]*ebpf.Map{}
	defer func() {
		if err != nil {
			for _, m := range maps {
				err = errors.Join(err, m.Close())
			}
		}
	}()
	for name, ms := range spec.Maps {
		if isPrivate(name) {
			continue
		}
		ms := ms.Copy()
		ms.Pinning = ebpf.PinByName
		m, err := ebpf.NewMapWithOptions(ms, ebpf.MapOptions{PinPath: string(p)})
		if err != nil {
			return nil, p.explainMap(name, err)
		}
		maps[name] = m
		if err := checkLayout(m, ms); err != nil {
			return nil, p.explainMap(name, err)
		}
	}
	return maps, nil
}

func (p pinDir) explainMap(name string, err error) error {
	switch {
	case errors.Is(err, ebpf.ErrMapIncompatible), errors.Is(err, errLayout):
		return fmt.Errorf("cannot adopt the pinned map %s: another build of vmgate made it: %w; "+
			"to start afresh, which ends enforcement and forgets all flows, run: gatewayd remove", p.mapPath(name), err)
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("cannot make the BPF map %s: not permitted: "+
			"run as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON: %w", name, err)
	}
	return fmt.Errorf("cannot open the BPF map %s: %w", p.mapPath(name), err)
}

// isPrivate reports whether a map holds the data of one program copy.
func isPrivate(name string) bool { return strings.HasPrefix(name, ".") }
