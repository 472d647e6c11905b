package vmi_test

import (
	"bytes"
	"crypto/sha256"
	"debug/elf"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"testing"

	"github.com/vmgate/vmgate/pkg/vmi"
)

// text is the first page and the number of pages of the agent's text, in its file.
func (f *fixture) text(t *testing.T) (first, pages uint64) {
	t.Helper()
	file, err := elf.NewFile(bytes.NewReader(f.program))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range file.Progs {
		if p.Type == elf.PT_LOAD && p.Flags&elf.PF_X != 0 {
			return p.Off / 4096, (p.Off%4096 + p.Filesz + 4095) / 4096
		}
	}
	t.Fatal("the agent has no text")
	return 0, 0
}

func (f *fixture) fingerprint(t *testing.T, pid uint32) vmi.Fingerprint {
	t.Helper()
	got, err := f.os.Fingerprint(t.Context(), pid, f.process(t, pid).Start)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestGuest_FingerprintIsThatOfTheFile(t *testing.T) {
	f := guest(t)
	got := f.fingerprint(t, f.agent["web"])
	first, pages := f.text(t)
	if got.Pages != pages || got.BuildID != "build/of/the/agent" || got.Path != "/bin/agent" || len(got.Altered) != 0 {
		t.Errorf("%+v; want %d pages", got, pages)
	}
	// A guest's first file system is its page cache: all of the program is there.
	if !got.Complete() || got.Resident[0].First != first {
		t.Errorf("resident %v of %d from %d", got.Resident, pages, first)
	}
	hash := sha256.New()
	for _, run := range got.Resident {
		for page := run.First; page < run.First+run.Count; page++ {
			content := make([]byte, 4096)
			copy(content, f.program[page*4096:])
			hash.Write(binary.LittleEndian.AppendUint64(nil, page))
			hash.Write(content)
		}
	}
	if want := hex.EncodeToString(hash.Sum(nil)); got.SHA256 != want {
		t.Errorf("fingerprint %s, want %s", got.SHA256, want)
	}
	if other := f.fingerprint(t, f.agent["cli"]); other.SHA256 != got.SHA256 || other.PID == got.PID {
		t.Errorf("another process of the same program: %+v", other)
	}
}

func TestGuest_FingerprintOfAlteredText(t *testing.T) {
	f := guest(t)
	pid, err := f.start(t.Context(), "patched", "patch:")
	if err != nil {
		t.Fatal(err)
	}
	defer f.run(t, "kill -9 "+itoa(pid))
	got := f.fingerprint(t, pid)
	if len(got.Altered) != 1 || got.Altered[0].Count != 1 {
		t.Errorf("altered %v, want one page", got.Altered)
	}
	if got.SHA256 == f.fingerprint(t, f.agent["web"]).SHA256 || !got.Complete() {
		t.Errorf("fingerprint %+v is that of the file", got)
	}
}

func TestGuest_FingerprintOfNobody(t *testing.T) {
	f := guest(t)
	if got, err := f.os.Fingerprint(t.Context(), 2, f.process(t, 2).Start); err != nil || got.Pages != 0 || got.SHA256 != "" {
		t.Errorf("a kernel thread: %+v, %v", got, err)
	}
	if got, err := f.os.Fingerprint(t.Context(), f.agent["web"], 1); !errors.Is(err, vmi.ErrNoProcess) {
		t.Errorf("a process of another time: %+v, %v", got, err)
	}
}
