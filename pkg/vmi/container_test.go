package vmi

import (
	"strings"
	"testing"
)

func TestContainerID(t *testing.T) {
	outer, inner := strings.Repeat("a1", 32), strings.Repeat("b2", 32)
	for path, want := range map[string]string{
		"/":                         "",
		"/system.slice/ssh.service": "",
		"/docker/" + outer:          outer,
		"/system.slice/docker-" + outer + ".scope":                               outer,
		"/kubepods.slice/kubepods-pod1.slice/cri-containerd-" + outer + ".scope": outer,
		"/docker/" + outer + "/docker/" + inner:                                  inner,
		"/docker/" + outer + "a":                                                 "",
		"/docker/" + strings.ToUpper(outer):                                      "",
	} {
		if got := containerID(path); got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
}
