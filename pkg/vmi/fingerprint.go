package vmi

// Fingerprint identifies a program by what is in memory of it: the executable's
// own text, as the process runs it. Libraries, and code that a program makes or
// maps itself, are not part of it.
type Fingerprint struct {
	PID     uint32 `json:"pid"`
	Start   uint64 `json:"start_ns"`
	Path    string `json:"path,omitempty"`
	BuildID string `json:"build_id,omitempty"` // as Process.BuildID
	// SHA256 is over the resident pages of the text in order, each behind its
	// number in the file (8 bytes, little endian). Two fingerprints of one program
	// are equal if the same pages were resident; in hex, empty if none was.
	SHA256   string    `json:"sha256,omitempty"`
	Pages    uint64    `json:"pages"`             // of the text
	Resident []PageRun `json:"resident"`          // those that were hashed
	Altered  []PageRun `json:"altered,omitempty"` // those that differ from the file's in the guest's page cache
}

// PageRun is some pages of a file of 4096 bytes, one after the other.
type PageRun struct {
	First uint64 `json:"first"`
	Count uint64 `json:"count"`
}

// Complete says whether all of the text was hashed.
func (f Fingerprint) Complete() bool {
	var n uint64
	for _, r := range f.Resident {
		n += r.Count
	}
	return f.Pages > 0 && n == f.Pages
}

func appendPage(runs []PageRun, page uint64) []PageRun {
	if n := len(runs); n > 0 && runs[n-1].First+runs[n-1].Count == page {
		runs[n-1].Count++
		return runs
	}
	return append(runs, PageRun{page, 1})
}
