package snort

import (
	"bytes"
	"encoding/binary"
	"time"
)

// maxLimited bounds the rules and sources that a limiter counts in a second.
const maxLimited = 4096

// limiter tells lines of which there were enough in a second: alertsPerSecond about
// one rule, source address and action. The engines' own filters leave out rules
// with a filter of their own, as just those against floods have. It costs a tenth
// of reading the line. It is not safe for concurrent use.
type limiter struct {
	second int64
	seen   map[string]*int
	key    []byte
}

// enough says whether a line is to be skipped. marks are the texts before the
// values that make the key.
func (l *limiter) enough(line []byte, marks [3]string, now time.Time) bool {
	l.key = l.key[:0]
	for _, mark := range marks {
		value := after(line, mark)
		if value == nil {
			return false // whatever it is, the parser shall look at it
		}
		l.key = append(append(l.key, value...), 0)
	}
	return l.count(now)
}

// enoughAlerts is the same for an alert that has been read.
func (l *limiter) enoughAlerts(a Alert, now time.Time) bool {
	l.key = binary.BigEndian.AppendUint32(l.key[:0], a.GID)
	l.key = binary.BigEndian.AppendUint32(l.key, a.SID)
	l.key = a.Src.Addr().AppendTo(append(l.key, a.Action...))
	return l.count(now)
}

// count counts another line under the key.
func (l *limiter) count(now time.Time) bool {
	if second := now.Unix(); second != l.second || l.seen == nil {
		l.second, l.seen = second, map[string]*int{}
	}
	n := l.seen[string(l.key)]
	if n == nil {
		if len(l.seen) == maxLimited {
			return false
		}
		n = new(int)
		l.seen[string(l.key)] = n
	}
	*n++
	return *n > alertsPerSecond
}

// after gives the value that follows the first mark in a line, up to a quote, a
// comma, a brace or a space; nil without a mark or an end.
func after(line []byte, mark string) []byte {
	const longest = 64 // an address; all else is shorter
	at := bytes.Index(line, []byte(mark))
	if at < 0 {
		return nil
	}
	value := line[at+len(mark):]
	end := bytes.IndexAny(value[:min(len(value), longest)], `",} `)
	if end < 0 {
		return nil
	}
	return value[:end]
}
