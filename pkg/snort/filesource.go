package snort

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// followFile reads the lines that are appended to a file of someone else's: from its
// end on, never changing it. It may be rotated by renaming or truncating, and need
// not be there yet; its directory must.
func followFile(path string, to *splitter) (*fileWatch, error) {
	w, err := watchFiles(filepath.Dir(path), filepath.Base(path), nil, to)
	if err != nil {
		return nil, err
	}
	file, err := os.Open(path)
	if os.IsNotExist(err) {
		return w, nil
	}
	if err == nil {
		f := w.follow(file)
		f.at, err = file.Seek(0, io.SeekEnd)
		w.files[path] = f
	}
	if err != nil {
		w.close()
		return nil, fmt.Errorf("cannot follow the alert file: %w", err)
	}
	return w, nil
}
