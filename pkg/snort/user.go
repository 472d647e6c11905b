package snort

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// outDir is the part of Config.Dir that the engine may write to. All else there is
// root's, and the engine reads it by its group: an engine that was taken over can
// neither change the rules of the next one nor lead the daemon elsewhere.
const outDir = "out"

func outOf(dir string) string { return filepath.Join(dir, outDir) }

// Who runs an engine where Config.User does not say: the first of these that there is.
var defaultUsers = []string{"vmgate-ids", "nobody"}

// account is the user that an engine runs as.
type account struct {
	name     string
	uid, gid uint32
}

func findAccount(name string) (account, error) {
	names := []string{name}
	if name == "" {
		names = defaultUsers
	}
	var errs []error
	for _, name := range names {
		u, err := user.Lookup(name)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		uid, errUID := strconv.ParseUint(u.Uid, 10, 32)
		gid, errGID := strconv.ParseUint(u.Gid, 10, 32)
		if err := errors.Join(errUID, errGID); err != nil {
			return account{}, fmt.Errorf("cannot use user %s: %w", name, err)
		}
		return account{name, uint32(uid), uint32(gid)}, nil
	}
	return account{}, fmt.Errorf("cannot find a user to run the IDS engine as: %w; make one (useradd --system vmgate-ids)", errors.Join(errs...))
}

// credential is for exec.Cmd; nil keeps the daemon's, for root.
func (a account) credential() *syscall.Credential {
	if a.uid == 0 {
		return nil
	}
	return &syscall.Credential{Uid: a.uid, Gid: a.gid}
}

// makeDir makes dir, which the account may read, with the part of it that it may
// write to, empty.
func (a account) makeDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if err := a.reaches(dir); err != nil {
		return err
	}
	out := outOf(dir)
	return errors.Join(
		os.Lchown(dir, 0, int(a.gid)), os.Chmod(dir, 0o750),
		os.RemoveAll(out), os.Mkdir(out, 0o700), os.Lchown(out, int(a.uid), int(a.gid)),
	)
}

// reaches says whether the account may go to dir through its parents.
func (a account) reaches(dir string) error {
	for parent := filepath.Dir(dir); a.uid != 0; parent = filepath.Dir(parent) {
		var st unix.Stat_t
		if err := unix.Stat(parent, &st); err != nil {
			return err
		}
		search := uint32(1)
		switch {
		case st.Uid == a.uid:
			search = 0o100
		case st.Gid == a.gid:
			search = 0o010
		}
		if st.Mode&search == 0 {
			return fmt.Errorf("user %s, as whom the engine runs, cannot search %s: chmod o+x %s, or choose another directory", a.name, parent, parent)
		}
		if parent == "/" {
			break
		}
	}
	return nil
}

// share lets the account read everything in dir, and connect to the sockets there.
// Nobody but root has put anything there.
func (a account) share(dir string) error {
	return filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if path == outOf(dir) {
			return fs.SkipDir
		}
		mode := fs.FileMode(0o640)
		switch entry.Type() {
		case fs.ModeDir:
			mode = 0o750
		case fs.ModeSocket:
			mode = 0o660
		}
		return errors.Join(os.Lchown(path, 0, int(a.gid)), os.Chmod(path, mode))
	})
}
