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
	var keys keyCounter
	for i, t := range tokens {
		if t.Position.Line != line {
			line, onLine = t.Position.Line, 0
			keys.column = 0
		}
		onLine++
		n := keys.count(t)
		switch {
		case t.Type == token.MappingKeyType:
			return src.problem(placeOf(t), "keys with ? are not supported: write key: value")
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
	column int        // where the line's text begins, beyond the dashes; 0 before it
	blocks []keyCount // by indentation, the innermost last
	flows  []int      // one for each open bracket
}

type keyCount struct{ column, keys int }

// count takes in a token, and returns the number of keys that its mapping has so
// far, 0 if it ends no key.
func (k *keyCounter) count(t *token.Token) int {
	switch t.Type {
	case token.CommentType:
		return 0
	case token.SequenceStartType, token.MappingStartType:
		k.flows = append(k.flows, 0)
		return 0
	case token.SequenceEndType, token.MappingEndType:
		k.flows = k.flows[:max(0, len(k.flows)-1)]
		return 0
	}
	if n := len(k.flows); n > 0 {
		if t.Type != token.MappingValueType {
			return 0
		}
		k.flows[n-1]++
		return k.flows[n-1]
	}
	if k.column == 0 { // whatever is indented deeper has ended
		k.blocks = slices.DeleteFunc(k.blocks, func(b keyCount) bool { return b.column > t.Position.Column })
	}
	if t.Type == token.SequenceEntryType {
		return 0
	}
	if k.column == 0 {
		k.column = t.Position.Column
	}
	if t.Type != token.MappingValueType {
		return 0
	}
	last := len(k.blocks) - 1
	if last < 0 || k.blocks[last].column < k.column {
		k.blocks = append(k.blocks, keyCount{column: k.column})
		last++
	}
	k.blocks[last].keys++
	return k.blocks[last].keys
}
