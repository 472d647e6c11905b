package config

import (
	"embed"
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"net/netip"
	"reflect"
	"strings"
	"time"
)

//go:generate go run ./genschema ../../docs/schema.json

// typesSource is where the descriptions of the schema come from: the comments of
// the types themselves.
//
//go:embed config.go config_memory.go config_inspector.go
var typesSource embed.FS

// Schema returns the JSON Schema (draft 2020-12) of the configuration file,
// generated from the types. What a schema cannot say (references, uniqueness) is
// left to Parse, which is never laxer.
//
// The reflection is our own, small as it is, so that the schema says what our
// decoder accepts: single values that may be written as numbers or as text,
// "memory: none", empty sections.
func Schema() []byte {
	s := schemaOf(reflect.TypeFor[Config](), descriptions())
	s["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	s["title"] = "vmgate configuration"
	s["type"] = []string{"object", "null"}
	text, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		panic("config: schema: " + err.Error()) // only maps, slices and strings
	}
	return append(text, '\n')
}

type object = map[string]any

// scalarSchemas are the types that are written as a single value.
var scalarSchemas = map[reflect.Type]object{
	reflect.TypeFor[MAC]():           {"type": "string", "pattern": "^[0-9A-Fa-f]{2}([:-][0-9A-Fa-f]{2}){5}$|^([0-9A-Fa-f]{4}\\.){2}[0-9A-Fa-f]{4}$"},
	reflect.TypeFor[VLAN]():          {"type": []string{"integer", "number", "string"}, "pattern": "^[0-9]+(\\.[0-9]+)?$", "minimum": 0, "maximum": 4095},
	reflect.TypeFor[PortRange]():     {"type": []string{"integer", "string"}, "pattern": "^[0-9]+ *(- *[0-9]+)?$", "minimum": 0, "maximum": 65535},
	reflect.TypeFor[RuleAddress]():   {"type": "string", "pattern": "^!?([0-9A-Fa-f:.]+(/[0-9]+)?|\\$HOME_NET|any)$"},
	reflect.TypeFor[RulePorts]():     {"type": []string{"integer", "string"}, "pattern": "^!?([0-9]+ *(- *[0-9]+)?|any)$", "minimum": 0, "maximum": 65535},
	reflect.TypeFor[Size]():          {"type": "string", "pattern": "^[0-9]+[KMGT]$"},
	reflect.TypeFor[Address]():       {"type": []string{"integer", "string"}, "pattern": "^0x[0-9A-Fa-f]+$", "minimum": 0},
	reflect.TypeFor[netip.Addr]():    {"type": "string", "pattern": "^[0-9A-Fa-f:.]+$"},
	reflect.TypeFor[netip.Prefix]():  {"type": "string", "pattern": "^[0-9A-Fa-f:.]+/[0-9]+$"},
	reflect.TypeFor[time.Duration](): {"type": []string{"string", "integer"}, "pattern": "^([0-9.]+(ns|us|µs|ms|s|m|h))+$|^0$", "maximum": 0},
}

func schemaOf(t reflect.Type, docs map[string]string) object {
	if s, ok := scalarSchemas[t]; ok {
		return s
	}
	switch t.Kind() {
	case reflect.Pointer:
		return object{"oneOf": []object{{"const": "none"}, schemaOf(t.Elem(), docs)}}
	case reflect.Slice:
		return object{"type": "array", "items": schemaOf(t.Elem(), docs)}
	case reflect.Bool:
		return object{"type": "boolean"}
	case reflect.Int, reflect.Int64:
		return object{"type": "integer"}
	case reflect.String:
		return object{"type": []string{"string", "number", "boolean"}, "minLength": 1}
	}
	properties, required := object{}, []string{}
	for i := range t.NumField() {
		field := t.Field(i)
		key := field.Tag.Get("yaml")
		if key == "" || key == "-" {
			continue
		}
		properties[key] = property(field, docs[t.Name()+"."+field.Name], docs)
		if field.Tag.Get("schema") == "required" {
			required = append(required, key)
		}
	}
	s := object{"type": "object", "properties": properties, "additionalProperties": false}
	if doc := docs[t.Name()]; doc != "" {
		s["description"] = doc
	}
	if len(required) > 0 {
		s["required"] = required
	}
	return s
}

// property is the schema of one key. The tag enum lists the values it may have.
func property(field reflect.StructField, doc string, docs map[string]string) object {
	s := object{}
	for k, v := range schemaOf(field.Type, docs) {
		s[k] = v
	}
	if enum := field.Tag.Get("enum"); enum != "" {
		values := object{"enum": strings.Split(enum, ",")}
		if field.Type.Kind() == reflect.Slice {
			s["items"] = values
		} else {
			s = values
		}
	}
	if mayBeNull(field.Type) {
		s["type"] = []any{s["type"], "null"}
	}
	if doc != "" {
		s["description"] = doc
	}
	return s
}

// mayBeNull mirrors decoder.null: an empty section, or an empty list of entries.
func mayBeNull(t reflect.Type) bool {
	if t.Kind() == reflect.Slice {
		_, scalar := scalarSchemas[t.Elem()]
		return !scalar && t.Elem().Kind() == reflect.Struct
	}
	config := reflect.TypeFor[Config]()
	for i := range config.NumField() {
		if config.Field(i).Type == t && t.Kind() == reflect.Struct {
			return true
		}
	}
	return false
}

// descriptions returns the comments of the types ("VM") and fields ("VM.Host").
func descriptions() map[string]string {
	files, err := typesSource.ReadDir(".")
	if err != nil {
		panic("config: schema: " + err.Error()) // they are built in
	}
	docs := map[string]string{}
	for _, f := range files {
		text, err := typesSource.ReadFile(f.Name())
		if err == nil {
			err = describeTypes(f.Name(), text, docs)
		}
		if err != nil {
			panic("config: schema: " + err.Error()) // it has just been compiled
		}
	}
	return docs
}

func describeTypes(name string, text []byte, docs map[string]string) error {
	file, err := parser.ParseFile(token.NewFileSet(), name, text, parser.ParseComments)
	if err != nil {
		return err
	}
	ast.Inspect(file, func(n ast.Node) bool {
		decl, ok := n.(*ast.GenDecl)
		if !ok || decl.Tok != token.TYPE {
			return true
		}
		for _, spec := range decl.Specs {
			spec := spec.(*ast.TypeSpec)
			docs[spec.Name.Name] = oneLine(decl.Doc)
			fields, ok := spec.Type.(*ast.StructType)
			if !ok {
				continue
			}
			for _, field := range fields.Fields.List {
				for _, name := range field.Names {
					docs[spec.Name.Name+"."+name.Name] = oneLine(field.Doc) + oneLine(field.Comment)
				}
			}
		}
		return false
	})
	return nil
}

func oneLine(comment *ast.CommentGroup) string {
	return strings.Join(strings.Fields(comment.Text()), " ")
}
