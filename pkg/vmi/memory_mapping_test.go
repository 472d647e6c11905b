package vmi

import (
	"bytes"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"
)

func TestMapping_SmallReadsLeaveHolesAlone(t *testing.T) {
	f, m := ramFile(t)
	if _, err := f.WriteAt([]byte("some"), 5*pageSize-2); err != nil { // across two pages
		t.Fatal(err)
	}
	buf := make([]byte, 8)
	for range 3 {
		for page := range uint64(100) {
			for _, at := range []uint64{page * pageSize, page*pageSize + 4092} { // within, and across two pages
				clear(buf)
				if err := m.ReadPhys(buf, at); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	if err := m.ReadPhys(buf, 5*pageSize-3); err != nil || !bytes.Equal(buf, []byte("\x00some\x00\x00\x00")) {
		t.Errorf("%q, %v", buf, err)
	}
	var st syscall.Stat_t
	if err := syscall.Fstat(int(f.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	if st.Blocks != 2*pageSize/512 {
		t.Errorf("the file has %d blocks: reading has filled holes", st.Blocks)
	}
}

func TestMapping_IsUsedAndSeesWrites(t *testing.T) {
	f, m := ramFile(t)
	w := m.(*fileMemory).mapping
	if w == nil {
		t.Fatal("the file was not mapped")
	}
	buf := make([]byte, 3)
	for _, text := range []string{"one", "two", "six"} {
		if _, err := f.WriteAt([]byte(text), 7*pageSize); err != nil {
			t.Fatal(err)
		}
		if err := m.ReadPhys(buf, 7*pageSize); err != nil || string(buf) != text {
			t.Errorf("%q, %v; want %q", buf, err, text)
		}
		if !w.read(buf, 7*pageSize) || string(buf) != text {
			t.Errorf("not by the mapping: %q", buf)
		}
	}
	w.forgot.Store(time.Now().Add(-2 * freshFor).UnixNano())
	if _, err := m.Ranges(); err != nil || w.read(buf, 7*pageSize) {
		t.Error("a page that may have been given back is still read by the mapping")
	}
}

// A file that shrinks and grows under many readers gives errors, or what is
// there, and never ends the process.
func TestMapping_TruncationUnderReaders(t *testing.T) {
	f, m := ramFile(t)
	content := bytes.Repeat([]byte("x"), 1<<20)
	stop := make(chan struct{})
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			buf := make([]byte, 64)
			for at := uint64(0); ; at = (at + 4088) % (1 << 20) {
				select {
				case <-stop:
					return
				default:
				}
				if err := m.ReadPhys(buf, at); err == nil && bytes.Trim(buf, "x\x00") != nil && len(bytes.Trim(buf, "x\x00")) > 0 {
					t.Errorf("read %q", buf)
					return
				}
			}
		})
	}
	faults := 0
	for end := time.Now().Add(time.Second); time.Now().Before(end); {
		if _, err := f.WriteAt(content, 0); err != nil {
			t.Fatal(err)
		}
		if err := m.ReadPhys(make([]byte, 8), 1<<19); err != nil {
			t.Fatal(err)
		}
		if err := f.Truncate(0); err != nil {
			t.Fatal(err)
		}
		if m.(*fileMemory).mapping.isUsed(1<<19/pageSize) && !m.(*fileMemory).mapping.read(make([]byte, 8), 1<<19) {
			faults++
		}
		if err := m.ReadPhys(make([]byte, 8), 1<<19); err == nil {
			t.Error("read beyond the end")
		}
		if err := f.Truncate(64 << 20); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	readers.Wait()
	if faults == 0 {
		t.Error("no read of the mapping met the truncation")
	}
	t.Logf("%d faults survived", faults)
}

func TestMapping_CloseUnderReaders(t *testing.T) {
	f, m := ramFile(t)
	if _, err := f.WriteAt([]byte("x"), 0); err != nil {
		t.Fatal(err)
	}
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for buf := make([]byte, 1); m.ReadPhys(buf, 0) == nil; {
			}
		})
	}
	time.Sleep(time.Millisecond) // any moment will do
	if err := m.Close(); err != nil {
		t.Error(err)
	}
	readers.Wait()
	if err := m.ReadPhys(make([]byte, 1), 0); err == nil {
		t.Error("read after close")
	}
	if _, err := os.Stat(f.Name()); err != nil {
		t.Error(err)
	}
}
