package config

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"unicode"

	"github.com/goccy/go-yaml/token"
)

// Problem is one thing that is wrong with a configuration, and where.
type Problem struct {
	File    string
	Line    int    // from 1; 0 if the problem is with the file as a whole
	Column  int    // in characters, from 1
	Source  string // the line itself
	Message string // what is wrong, and what to do
}

// Error writes "file:line:column: message", then the line with a caret below
// the column.
func (p *Problem) Error() string {
	if p.Line == 0 {
		return fmt.Sprintf("%s: %s", p.File, p.Message)
	}
	shown, caret := window(p.Source, p.Column)
	return fmt.Sprintf("%s:%d:%d: %s\n%5d | %s\n      | %s^",
		p.File, p.Line, p.Column, p.Message, p.Line, shown, strings.Repeat(" ", caret))
}

// window cuts a long line down to the part around the column, and returns the
// number of characters before the column in it. What a terminal would act on is
// replaced.
func window(line string, column int) (shown string, before int) {
	const width = 120
	runes := []rune(line)
	before = max(0, min(column-1, len(runes)))
	start := 0
	if before > width*3/4 {
		start = before - width/2
	}
	runes = runes[start:min(len(runes), start+width)]
	for i, r := range runes {
		if r == '\t' {
			runes[i] = ' '
		} else if !unicode.IsPrint(r) {
			runes[i] = '\uFFFD'
		}
	}
	return string(runes), before - start
}

// maxProblems bounds what one report shows: beyond, people fix and try again.
const maxProblems = 50

// source is a configuration text, with the places of what was read from it.
type source struct {
	name     string
	lines    []string
	places   map[string]place // by path: "vms[0].macs[1]"
	problems []error
	omitted  int
}

// place is where something stands: line and column from 1, in characters.
type place struct{ line, column int }

// lineBreaks are YAML's.
var lineBreaks = strings.NewReplacer("\r\n", "\n", "\r", "\n")

func newSource(name string, text []byte) *source {
	lines := strings.Split(lineBreaks.Replace(string(text)), "\n")
	return &source{name: name, lines: lines, places: map[string]place{}}
}

func placeOf(t *token.Token) place {
	if t == nil || t.Position == nil {
		return place{}
	}
	return place{t.Position.Line, t.Position.Column}
}

// find returns the place of the path, or of the closest thing around it that is
// written in the file.
func (s *source) find(path string) place {
	for {
		if at, ok := s.places[path]; ok {
			return at
		}
		cut := strings.LastIndexAny(path, ".[")
		if cut < 0 {
			return place{}
		}
		path = path[:cut]
	}
}

// problem is one problem at a place.
func (s *source) problem(at place, message string) *Problem {
	p := &Problem{File: s.name, Line: at.line, Column: at.column, Message: clip(message)}
	if 0 < at.line && at.line <= len(s.lines) {
		p.Source = s.lines[at.line-1]
	}
	return p
}

// clip takes the middle out of a message that quotes a long value.
func clip(message string) string {
	const head, tail = 240, 160
	if runes := []rune(message); len(runes) > head+tail {
		return string(runes[:head]) + " … " + string(runes[len(runes)-tail:])
	}
	return message
}

// report notes a problem at a path.
func (s *source) report(path, format string, args ...any) {
	s.reportAt(s.find(path), format, args...)
}

func (s *source) reportAt(at place, format string, args ...any) {
	if len(s.problems) >= maxProblems {
		s.omitted++
		return
	}
	s.problems = append(s.problems, s.problem(at, fmt.Sprintf(format, args...)))
}

// err joins the problems that were noted since the last call, nil for none.
func (s *source) err() error {
	problems, omitted := s.problems, s.omitted
	s.problems, s.omitted = nil, 0
	if omitted > 0 {
		problems = append(problems, fmt.Errorf("%s: and %d more problems", s.name, omitted))
	}
	return errors.Join(problems...)
}

// resolve makes a path in the configuration relative to the file that it stands in.
func (s *source) resolve(path string) string {
	if filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	return filepath.Join(filepath.Dir(s.name), path)
}
