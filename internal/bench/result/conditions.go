package result

import (
	"bufio"
	"maps"
	"os"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Conditions describes the machine as it is now, before a benchmark begins, and
// adds the benchmark's own.
func Conditions(own map[string]any) map[string]any {
	all := map[string]any{
		"date": time.Now().UTC().Format(time.RFC3339), "kernel": kernel(), "cpu": processor(), "cpus": runtime.NumCPU(),
		"load_before": load(),
	}
	maps.Copy(all, own)
	return all
}

func kernel() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}

func processor() string {
	f, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return ""
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if name, value, _ := strings.Cut(lines.Text(), ":"); strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// load is the load average of the last minute.
func load() string {
	text, _ := os.ReadFile("/proc/loadavg") // empty where there is no /proc
	one, _, _ := strings.Cut(string(text), " ")
	return one
}
