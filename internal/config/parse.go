package config

import (
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
)

// Load reads and checks the configuration file, and the files that it names
// (CheckFiles). All problems are reported together.
func Load(path string) (*Config, error) {
	text, err := readBounded(path)
	if err != nil {
		return nil, fmt.Errorf("cannot read configuration: %w", err)
	}
	c, err := Parse(path, text)
	if err != nil {
		return nil, err
	}
	return c, c.CheckFiles()
}

func readBounded(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxSize+1)) // one more byte, for Parse to refuse
}

// Parse reads a configuration text, applies the defaults and checks it as a
// whole, without looking at the machine. name is the file that the text is or
// will be in: errors name it, and relative paths in the text are relative to
// it. The error joins a *Problem for each thing that is wrong.
func Parse(name string, text []byte) (*Config, error) {
	src, c := newSource(name, text), defaults()
	if err := read(src, text, c); err != nil {
		return nil, err
	}
	c.src = src
	c.fill()
	validate(c)
	if err := src.err(); err != nil {
		return nil, err
	}
	return c, nil
}

// read decodes a text into a struct. What was read half is an error: what
// validation would say of it misleads.
func read(src *source, text []byte, into any) error {
	root, err := parseYAML(src, text)
	if err != nil {
		return err
	}
	d := decoder{src: src, anchors: map[string]ast.Node{}, budget: maxNodes}
	d.decode("", root, reflect.ValueOf(into).Elem())
	return src.err()
}

// parseYAML returns the one document's root, nil if it is empty.
func parseYAML(src *source, text []byte) (ast.Node, error) {
	if len(text) > maxSize {
		return nil, src.problem(place{}, fmt.Sprintf("larger than %d KiB", maxSize>>10))
	}
	tokens := lexer.Tokenize(string(text))
	if err := bound(src, tokens); err != nil {
		return nil, err
	}
	// The decoder reports duplicate keys itself: all of them, with both places.
	file, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		var yamlErr yaml.Error
		if errors.As(err, &yamlErr) {
			return nil, src.problem(placeOf(yamlErr.GetToken()), "not valid YAML: "+yamlErr.GetMessage())
		}
		return nil, src.problem(place{}, "not valid YAML: "+err.Error())
	}
	var root ast.Node
	for _, doc := range file.Docs {
		if doc.Body == nil || doc.Body.Type() == ast.NullType {
			continue
		}
		if root != nil {
			return nil, src.problem(placeOfNode(doc.Body), "a second document: the whole configuration is one, remove the --- line")
		}
		root = doc.Body
	}
	return root, nil
}
