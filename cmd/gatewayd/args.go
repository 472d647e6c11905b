package main

import (
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// level is one word of a command's path with the flags that belong to it.
type level struct {
	word     string
	known    []cli.Flag
	commands []*cli.Command
	given    []string
}

// interspersed moves each flag behind the command word that it belongs to, so
// that "ps app1 -o json" works: the library itself takes everything after the
// first argument for arguments. A flag that nobody knows stays with the
// innermost command, which then complains.
func interspersed(app *cli.App, args []string) []string {
	if len(args) == 0 || args[len(args)-1] == "--generate-bash-completion" {
		return args
	}
	path := []level{{word: args[0], known: app.Flags, commands: app.Commands}}
	var operands []string
	for i := 1; i < len(args); i++ {
		word := args[i]
		inner := &path[len(path)-1]
		switch {
		case word == "--":
			operands = append(operands, args[i:]...)
			i = len(args)
		case len(word) > 1 && word[0] == '-':
			owner, takesValue := ownerOf(path, word)
			owner.given = append(owner.given, word)
			if takesValue && i+1 < len(args) {
				i++
				owner.given = append(owner.given, args[i])
			}
		default:
			if c := commandNamed(inner.commands, word); c != nil && len(operands) == 0 {
				path = append(path, level{word: word, known: c.Flags, commands: c.Subcommands})
			} else {
				operands = append(operands, word)
			}
		}
	}
	var ordered []string
	for _, l := range path {
		ordered = append(append(ordered, l.word), l.given...)
	}
	return append(ordered, operands...)
}

// ownerOf finds the innermost level that knows the flag, and whether the next
// word is the flag's value.
func ownerOf(path []level, word string) (owner *level, takesValue bool) {
	name, _, hasValue := strings.Cut(strings.TrimLeft(word, "-"), "=")
	for i := len(path) - 1; i >= 0; i-- {
		for _, f := range path[i].known {
			if !slices.Contains(f.Names(), name) {
				continue
			}
			doc, ok := f.(cli.DocGenerationFlag)
			return &path[i], ok && doc.TakesValue() && !hasValue
		}
	}
	return &path[len(path)-1], false
}

func commandNamed(commands []*cli.Command, name string) *cli.Command {
	i := slices.IndexFunc(commands, func(c *cli.Command) bool { return c.HasName(name) })
	if i < 0 {
		return nil
	}
	return commands[i]
}
