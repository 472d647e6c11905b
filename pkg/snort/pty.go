package snort

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// terminal is what an engine prints to that would keep its words back in a pipe
// until there are 4 KiB of them: to a terminal the C library writes line by line.
type terminal struct {
	master, slave *os.File
}

// newTerminal opens a pseudo-terminal: three system calls, see pty(7).
func newTerminal() (t terminal, err error) {
	defer func() {
		if err != nil {
			t.close()
			err = fmt.Errorf("cannot open a terminal for the engine's words: %w", err)
		}
	}()
	if t.master, err = os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		return t, err
	}
	fd := int(t.master.Fd())
	if err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		return t, err
	}
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		return t, err
	}
	t.slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	return t, err
}

func (t terminal) close() {
	for _, f := range []*os.File{t.master, t.slave} {
		if f != nil {
			f.Close()
		}
	}
}

// copyTo hands over what is printed until the last who may print has gone, and
// closes the terminal.
func (t terminal) copyTo(w io.Writer) error {
	defer t.master.Close()
	_, err := io.Copy(w, t.master)
	if errors.Is(err, unix.EIO) { // what a terminal says when nobody is at its other end
		return nil
	}
	return err
}
