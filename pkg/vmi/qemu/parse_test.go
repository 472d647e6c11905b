package qemu

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestParseCommandLine(t *testing.T) {
	for _, c := range []struct {
		name, line string
		want       Machine
	}{
		{"nothing said", "/usr/bin/qemu-system-x86_64", Machine{Type: "pc", RAM: 128 << 20, Backing: Private}},
		{
			"by hand", "qemu-system-x86_64 -name app1 -machine q35,memory-backend=ram -m 1G -object memory-backend-file,id=ram,size=1G,mem-path=/dev/shm/a,,b,share=on -qmp unix:/run/app1.qmp,server=on,wait=off",
			Machine{Name: "app1", Type: "q35", RAM: 1 << 30, Backing: SharedFile, File: "/dev/shm/a,b", Monitors: []string{"/run/app1.qmp"}},
		},
		{
			"as libvirt does", `/usr/bin/qemu-system-x86_64 -name guest=web1,debug-threads=on -S -object {"qom-type":"secret","id":"masterKey0","format":"raw","file":"/var/lib/libvirt/qemu/domain-1-web1/master-key.aes"} -machine pc-q35-7.2,usb=off,dump-guest-core=off,memory-backend=pc.ram -accel kvm -m size=2097152k -object {"qom-type":"memory-backend-memfd","id":"pc.ram","share":true,"x-use-canonical-path-for-ramblock-id":false,"size":2147483648} -uuid 2f0b2b8e -chardev socket,id=charmonitor,fd=22,server=on,wait=off -mon chardev=charmonitor,id=monitor,mode=control -append -name`,
			Machine{Name: "web1", UUID: "2f0b2b8e", Type: "pc-q35-7.2", RAM: 2 << 30, Backing: MemFD},
		},
		{
			"a monitor by parts", "kvm -chardev socket,id=c,path=/run/m,server=on -mon chardev=c,mode=control -chardev socket,id=h,path=/run/h -mon chardev=h -M type=pc -m 512",
			Machine{Type: "pc", RAM: 512 << 20, Backing: Private, Monitors: []string{"/run/m"}},
		},
		{
			"a file that is not shared", "qemu-kvm --machine q35 --object memory-backend-file,id=ram,mem-path=/x --machine memory-backend=ram",
			Machine{Type: "q35", RAM: 128 << 20, Backing: Private},
		},
		{
			"one NUMA node", "qemu-kvm -object memory-backend-memfd,id=a,size=1G -numa node,memdev=a -m 1G",
			Machine{Type: "pc", RAM: 1 << 30, Backing: MemFD},
		},
		{
			"two NUMA nodes", "qemu-kvm -object memory-backend-memfd,id=a,size=1G -object memory-backend-memfd,id=b,size=1G -numa node,memdev=a -numa node,memdev=b -m 2G",
			Machine{Type: "pc", RAM: 2 << 30, Backing: Several},
		},
		{"nonsense", "kvm -m -5 -name -machine , -object {", Machine{Name: "-machine", Type: "pc", Backing: Private}},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, ok := parseCommandLine(strings.Fields(c.line))
			if diff := cmp.Diff(c.want, m); !ok || diff != "" {
				t.Errorf("%v (-want +got):\n%s", ok, diff)
			}
		})
	}
	for _, line := range []string{"", "/usr/bin/qemu-img info", "sh -c qemu-system-x86_64"} {
		if m, ok := parseCommandLine(strings.Fields(line)); ok {
			t.Errorf("%q is taken for %+v", line, m)
		}
	}
}

func TestParseSize(t *testing.T) {
	for s, want := range map[string]uint64{
		"512": 512 << 20, "512M": 512 << 20, "4g": 4 << 30, "1T": 1 << 40, "2097152k": 2 << 30, "64MB": 64 << 20,
		"": 0, "-1": 0, "1.5G": 0, "99999999999999999999": 0, "1000000T": 0, "M": 0,
	} {
		if got := parseSize(s, 1<<20); got != want {
			t.Errorf("%q: %d, want %d", s, got, want)
		}
	}
}

func FuzzParseCommandLine(f *testing.F) {
	f.Add("qemu-kvm\x00-m\x001G\x00-object\x00{\"id\":\"a\"}\x00-name\x00a,,b,guest=c")
	f.Fuzz(func(t *testing.T, line string) {
		m, ok := parseCommandLine(strings.Split(line, "\x00"))
		if ok && m.RAM > 1<<46 {
			t.Errorf("%d bytes", m.RAM)
		}
	})
}

func FuzzParseMaps(f *testing.F) {
	f.Add("7efb37e00000-7efbf7e00000 rw-s 00001000 00:01 4711   /memfd:ram (deleted)\n")
	f.Fuzz(func(t *testing.T, text string) {
		all, err := parseMaps(strings.NewReader(text))
		if err != nil {
			return
		}
		for _, m := range all {
			if m.to <= m.from {
				t.Errorf("%+v", m)
			}
		}
	})
}

// The monitor may be kept busy for half of the time, and no longer.
func TestPace_LeavesHalfOfTheTime(t *testing.T) {
	p, now, busy := pace{credit: maxCredit}, time.Unix(0, 0), time.Duration(0)
	for range 10_000 {
		now = now.Add(p.wait(now))
		p.took(time.Millisecond)
		now, busy = now.Add(time.Millisecond), busy+time.Millisecond
	}
	if all := now.Sub(time.Unix(0, 0)); busy > all/2+maxCredit || busy < all/2-maxCredit {
		t.Errorf("busy for %v of %v", busy, all)
	}
	now = now.Add(time.Hour)
	for range 200 { // what was not used is not saved for ever
		if pause := p.wait(now); pause != 0 {
			t.Fatalf("a pause of %v", pause)
		}
		p.took(time.Millisecond)
		now = now.Add(time.Millisecond)
	}
	if p.credit > maxCredit {
		t.Errorf("a credit of %v", p.credit)
	}
}
