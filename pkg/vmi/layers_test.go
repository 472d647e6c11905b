package vmi

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strings"
	"testing"
)

// What every operating system's implementation shares uses nothing of Linux's.
func TestGenericPartsKnowNoSystem(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	set := token.NewFileSet()
	linux, generic := make(map[string]string), []*ast.File(nil)
	for _, name := range files {
		file, err := parser.ParseFile(set, name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case strings.HasSuffix(name, "_test.go"), name == "open.go": // which chooses the system
		case strings.HasPrefix(name, "linux_"):
			declared(file, func(ident string) { linux[ident] = name })
		default:
			generic = append(generic, file)
		}
	}
	if len(linux) < 100 || len(generic) < 10 {
		t.Fatalf("%d names of Linux, %d generic files", len(linux), len(generic))
	}
	for _, file := range generic {
		ast.Inspect(file, func(n ast.Node) bool {
			if _, ok := n.(*ast.SelectorExpr); ok {
				return false // members and other packages' names; their owners are told by the types that are used
			}
			if ident, ok := n.(*ast.Ident); ok && linux[ident.Name] != "" && !isLocal(file, ident.Name) {
				t.Errorf("%v uses %s of %s", set.Position(ident.Pos()), ident.Name, linux[ident.Name])
			}
			return true
		})
	}
}

// declared calls fn with the names that a file declares at its top, but methods.
func declared(file *ast.File, fn func(string)) {
	for _, d := range file.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			if d.Recv == nil {
				fn(d.Name.Name)
			}
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				switch spec := spec.(type) {
				case *ast.TypeSpec:
					fn(spec.Name.Name)
				case *ast.ValueSpec:
					for _, name := range spec.Names {
						fn(name.Name)
					}
				}
			}
		}
	}
}

// isLocal says whether a file has a variable, parameter or member of that name.
func isLocal(file *ast.File, name string) (found bool) {
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.AssignStmt:
			for _, e := range n.Lhs {
				if i, ok := e.(*ast.Ident); ok && n.Tok == token.DEFINE && i.Name == name {
					found = true
				}
			}
		case *ast.Field:
			for _, i := range n.Names {
				found = found || i.Name == name
			}
		case *ast.FuncDecl:
			found = found || n.Recv != nil && n.Name.Name == name
		}
		return true
	})
	return found
}
