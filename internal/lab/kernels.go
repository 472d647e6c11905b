package lab

import (
	"os"
	"path/filepath"
	"strings"
)

// KernelOf finds the guest kernel of one of Debian's suites whose release begins
// as given: among the directories that VMGATE_GUEST_KERNELS names, else in
// build/kernels where scripts/fetch-kernels.sh puts them, else the default one.
// It is "" if there is none.
func KernelOf(suite, release string) string {
	dirs := filepath.SplitList(os.Getenv("VMGATE_GUEST_KERNELS"))
	if len(dirs) == 0 {
		if top, err := projectTop(); err == nil {
			dirs = append(dirs, filepath.Join(top, "build", "kernels", suite))
		}
	}
	for _, dir := range append(dirs, DefaultKernel()) {
		if got, err := os.ReadFile(filepath.Join(dir, "release")); err == nil && strings.HasPrefix(string(got), release) {
			return dir
		}
	}
	return ""
}
