package snort

import "bytes"

// maxLine bounds a line of the engine, without its newline. The longest seen
// has 1 KiB; the rest is room for long messages.
const maxLine = 64 << 10

// splitter cuts a byte stream into lines and never holds more than maxLine
// bytes. A line is given to its callback without the newline and only for the
// duration of the call; one that is too long is skipped as a whole and told
// once.
type splitter struct {
	line     func([]byte)
	overlong func()

	rest     []byte // a line begun
	skipping bool   // until the next newline
}

// Write takes the next bytes of the stream. It never fails.
func (s *splitter) Write(p []byte) (int, error) {
	n := len(p)
	for {
		i := bytes.IndexByte(p, '\n')
		if i < 0 {
			s.keep(p)
			return n, nil
		}
		s.end(p[:i])
		p = p[i+1:]
	}
}

func (s *splitter) keep(p []byte) {
	if s.skipping {
		return
	}
	if len(s.rest)+len(p) > maxLine {
		s.skip()
		return
	}
	s.rest = append(s.rest, p...)
}

func (s *splitter) end(p []byte) {
	switch {
	case s.skipping:
		s.skipping = false
	case len(s.rest)+len(p) > maxLine:
		s.skip()
		s.skipping = false
	case len(s.rest) == 0:
		s.line(p)
	default:
		s.line(append(s.rest, p...))
		s.rest = s.rest[:0]
	}
}

func (s *splitter) skip() {
	s.rest, s.skipping = s.rest[:0], true
	s.overlong()
}

// reset forgets a line begun: its stream has ended.
func (s *splitter) reset() { s.rest, s.skipping = s.rest[:0], false }
