package config

import (
	"fmt"
	"slices"

	"github.com/goccy/go-yaml/token"
)

// Bounds of a configuration text, which may also come in over the API. The
// parser recurses, and its time grows with the square of a mapping's keys.
const (
	maxSize       = 1 << 20 // bytes
	maxTokens     = 400_000
	maxLineTokens = 2048
	maxFlowDepth  = 32
	maxKeys       = 64 // of one mapping; no type of ours has that many
)

// bound refuses what would make the parser go too deep or take too long.
func bound(src *source, tokens token.Tokens) error {
	line, onLine := 0, 0
	keys := keyCounter{blocks: []keyCount{{}}}
	for i, t := range tokens {
		firstOnLine := t.Position.Line != line
		if firstOnLine {
			line, onLine = t.Position.Line, 0
		}
		onLine++
		n := keys.count(tokens, i, firstOnLine)
		switch {
		case i >= maxTokens:
			return src.problem(placeOf(t), fmt.Sprintf("more than %d words and marks", maxTokens))
		case onLine > maxLineTokens:
			return src.problem(placeOf(t), fmt.Sprintf("more than %d words and marks in one line: break it up", maxLineTokens))
		case len(keys.flows) > maxFlowDepth:
			return src.problem(placeOf(t), fmt.Sprintf("brackets nested deeper than %d", maxFlowDepth))
		case n > maxKeys:
			return src.problem(placeOf(t), fmt.Sprintf("more than %d keys in one place", maxKeys))
		}
	}
	return nil
}

// keyCounter counts the keys of the mappings that are open at a token.
type keyCounter struct {
	blocks []keyCount // by indentation, the innermost last
	flows  []int      // one for each open bracket
}

type keyCount struct{ column, keys int }

// count takes in token i, and returns the number of keys that its mapping has so
// far, 0 if it ends no key.
func (k *keyCounter) count(tokens token.Tokens, i int, firstOnLine bool) int {
	t := tokens[i]
	switch t.Type {
	case token.SequenceStartType, token.MappingStartType:
		k.flows = append(k.flows, 0)
		return 0
	case token.SequenceEndType, token.MappingEndType:
		k.flows = k.flows[:max(0, len(k.flows)-1)]
		return 0
	}
	if len(k.flows) > 0 {
		if t.Type != token.MappingValueType {
			return 0
		}
		k.flows[len(k.flows)-1]++
		return k.flows[len(k.flows)-1]
	}
	switch {
	case t.Type == token.SequenceEntryType: // a new entry: mappings inside the last have ended
		k.leave(t.Position.Column + 1)
	case firstOnLine:
		k.leave(t.Position.Column + 1)
	}
	if t.Type != token.MappingValueType || i == 0 {
		return 0
	}
	column := tokens[i-1].Position.Column
	at := slices.IndexFunc(k.blocks, func(b keyCount) bool { return b.column == column })
	if at < 0 {
		k.blocks = append(k.blocks, keyCount{column: column})
		at = len(k.blocks) - 1
	}
	k.blocks[at].keys++
	return k.blocks[at].keys
}

// leave forgets the mappings that are indented to the column or beyond.
func (k *keyCounter) leave(column int) {
	k.blocks = slices.DeleteFunc(k.blocks, func(b keyCount) bool { return b.column >= column })
}
