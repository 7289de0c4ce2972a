package config

import (
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// defaulter is a struct that has values before its keys are read.
type defaulter interface{ setDefaults() }

// hinter is a struct that knows of keys that people may expect in it but that belong elsewhere.
type hinter interface {
	// hint says what to do instead, or nothing.
	hint(key string) string
}

// place is where in the file a value is.
type place struct{ line, column int }

// decoder fills structs from a syntax tree. It collects what is wrong and goes on, so that a person sees everything at once.
type decoder struct {
	file    string
	lines   []string
	errs    Errors
	places  map[string]place // of every value, by its key as Error.Key has it
	bad     map[string]bool  // keys that an error is about already
	anchors map[string]ast.Node
	depth   int
	values  int
	// optional says that the file may be empty.
	optional bool
	// placeless says that the text was made from values: it is their keys that a person knows, not its lines.
	placeless bool
}

// maxDepth bounds nesting, aliases of aliases included; the schema needs a tenth of it.
const maxDepth = 64

// maxValues bounds what aliases of lists of aliases multiply to; a file with 10,000 exports has less.
const maxValues = 1 << 18

func newDecoder(file string, text []byte) *decoder {
	return &decoder{
		file:    file,
		lines:   strings.Split(string(text), "\n"),
		places:  make(map[string]place),
		bad:     make(map[string]bool),
		anchors: make(map[string]ast.Node),
	}
}

// fail records an error at a place of the file.
func (d *decoder) fail(at place, key, format string, args ...any) {
	e := &Error{File: d.file, Line: at.line, Column: max(at.column, 1), Key: key, Message: fmt.Sprintf(format, args...)}
	if at.line > 0 && at.line <= len(d.lines) {
		e.Source = strings.TrimRight(d.lines[at.line-1], "\r")
	}
	d.errs = append(d.errs, e)
	d.bad[key] = true
}

// failAt records an error about the value of a key; if the file has no such value, about what should contain it.
func (d *decoder) failAt(key, format string, args ...any) {
	for k := key; ; {
		if at, ok := d.places[k]; ok {
			d.fail(at, key, format, args...)
			return
		}
		cut := strings.LastIndexAny(k, ".[")
		if cut < 0 {
			d.fail(place{}, key, format, args...)
			return
		}
		k = k[:cut]
	}
}

// result returns what was wrong as Errors in the order of the lines, or nil.
func (d *decoder) result() error {
	if len(d.errs) == 0 {
		return nil
	}
	d.errs.sort()
	if d.placeless {
		for _, e := range d.errs {
			e.Line, e.Column, e.Source = 0, 0, ""
		}
	}
	return d.errs
}

// has reports whether the file gives a value for key, be it a wrong one.
func (d *decoder) has(key string) bool {
	_, ok := d.places[key]
	return ok
}

// usable reports whether the file gives a value for key with which nothing was wrong so far.
func (d *decoder) usable(key string) bool { return d.has(key) && !d.bad[key] }

// parse reads the text and decodes its only document into v, a pointer to a struct.
func (d *decoder) parse(text []byte, v any) {
	f, err := parser.ParseBytes(text, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		var syntax yaml.Error
		if errors.As(err, &syntax) && syntax.GetToken() != nil {
			at, message := placeOf(syntax.GetToken()), syntax.GetMessage()
			if at.line > 0 && at.line <= len(d.lines) && strings.HasPrefix(d.lines[at.line-1], "\t") {
				message += "; YAML is indented with spaces only"
			}
			if strings.Contains(message, "not allowed in this context") {
				message += "; is the line indented as those above it are?"
			}
			d.fail(at, "", "%s", message)
			return
		}
		d.fail(place{}, "", "%s", err)
		return
	}
	var body ast.Node
	for _, doc := range f.Docs {
		switch {
		case doc.Body == nil || doc.Body.Type() == ast.CommentType:
		case body == nil:
			body = doc.Body
		default:
			d.fail(placeOfNode(doc.Body), "", "a second document begins here; the file has one")
		}
	}
	if body == nil {
		if s, ok := v.(defaulter); ok {
			s.setDefaults()
		}
		if !d.optional {
			d.fail(place{}, "", "the file is empty")
		}
		return
	}
	d.value(body, reflect.ValueOf(v).Elem(), "")
}

func placeOf(t *token.Token) place {
	if t == nil || t.Position == nil {
		return place{}
	}
	return place{line: t.Position.Line, column: t.Position.Column}
}

// placeOfNode returns where a node begins. The token of a block mapping is its first colon.
func placeOfNode(n ast.Node) place {
	switch n := n.(type) {
	case *ast.MappingNode:
		if !n.IsFlowStyle && len(n.Values) > 0 {
			return placeOf(n.Values[0].Key.GetToken())
		}
	case *ast.MappingValueNode:
		return placeOf(n.Key.GetToken())
	}
	return placeOf(n.GetToken())
}

// value decodes a node into v; key names it in messages.
func (d *decoder) value(n ast.Node, v reflect.Value, key string) {
	if d.depth++; d.depth > maxDepth {
		d.fail(placeOfNode(n), key, "nested too deeply")
		d.depth--
		return
	}
	defer func() { d.depth-- }()
	if d.values++; d.values > maxValues {
		if d.values == maxValues+1 {
			d.fail(placeOfNode(n), key, "these are more than %d values, aliases included", maxValues)
		}
		return
	}
	switch t := n.(type) {
	case *ast.AnchorNode:
		d.anchors[t.Name.GetToken().Value] = t.Value
		d.value(t.Value, v, key)
		return
	case *ast.AliasNode:
		name := t.Value.GetToken().Value
		target, ok := d.anchors[name]
		if !ok {
			d.places[key] = placeOfNode(n)
			d.fail(placeOfNode(n), key, "no anchor &%s comes before this alias", name)
			return
		}
		d.value(target, v, key)
		return
	case *ast.TagNode:
		d.value(t.Value, v, key)
		return
	}
	d.places[key] = placeOfNode(n)
	if v.CanAddr() {
		if s, ok := v.Addr().Interface().(scalar); ok {
			d.scalar(n, key, s.parse)
			return
		}
	}
	switch v.Kind() {
	case reflect.Struct:
		d.structure(n, v, key)
	case reflect.Slice:
		d.list(n, v, key)
	default:
		d.scalar(n, key, func(text string) error { return setBasic(v, text) })
	}
}

// scalar decodes a plain value with set.
func (d *decoder) scalar(n ast.Node, key string, set func(text string) error) {
	text, ok := textOf(n)
	if !ok {
		d.fail(placeOfNode(n), key, "want a plain value, not %s", describe(n))
		return
	}
	if err := set(text); err != nil {
		d.fail(placeOfNode(n), key, "%s", err)
	}
}

// textOf returns a scalar as it is written: 0755 stays 0755, and 1.10 stays 1.10.
func textOf(n ast.Node) (string, bool) {
	switch n := n.(type) {
	case *ast.StringNode:
		return n.Value, true
	case *ast.LiteralNode:
		return n.Value.Value, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
		return n.GetToken().Value, true
	}
	return "", false
}

func describe(n ast.Node) string {
	switch n.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
		return "keys with values"
	case *ast.SequenceNode:
		return "a list"
	case *ast.NullNode:
		return "nothing"
	}
	if text, ok := textOf(n); ok {
		return strconv.Quote(text)
	}
	return "this"
}

// setBasic sets a string, number or boolean.
func setBasic(v reflect.Value, text string) error {
	switch v.Kind() {
	case reflect.String:
		v.SetString(text)
		return nil
	case reflect.Bool:
		b, err := strconv.ParseBool(text)
		if err != nil {
			return fmt.Errorf("%q is neither true nor false", text)
		}
		v.SetBool(b)
		return nil
	case reflect.Int:
		n, err := strconv.ParseInt(text, 10, 32)
		if err != nil {
			return fmt.Errorf("%q is not a whole number, or too large a one", text)
		}
		v.SetInt(n)
		return nil
	case reflect.Uint16, reflect.Uint32, reflect.Uint64:
		n, err := strconv.ParseUint(text, 10, v.Type().Bits())
		if err != nil {
			return fmt.Errorf("%q is not a whole number, or too large a one", text)
		}
		v.SetUint(n)
		return nil
	}
	panic("config: the schema has a " + v.Kind().String())
}

// list decodes a sequence.
func (d *decoder) list(n ast.Node, v reflect.Value, key string) {
	seq, ok := n.(*ast.SequenceNode)
	if !ok {
		d.fail(placeOfNode(n), key, "want a list, not %s", describe(n))
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), len(seq.Values), len(seq.Values)))
	for i, elem := range seq.Values {
		d.value(elem, v.Index(i), fmt.Sprintf("%s[%d]", key, i))
	}
}

// structure decodes a mapping.
func (d *decoder) structure(n ast.Node, v reflect.Value, key string) {
	if s, ok := v.Addr().Interface().(defaulter); ok {
		s.setDefaults()
	}
	var pairs []*ast.MappingValueNode
	switch n := n.(type) {
	case *ast.MappingNode:
		pairs = n.Values
	case *ast.MappingValueNode:
		pairs = []*ast.MappingValueNode{n}
	default:
		d.fail(placeOfNode(n), key, "want keys with values (%s), not %s", strings.Join(keysOf(v.Type()), ", "), describe(n))
		return
	}
	seen := make(map[string]place)
	for _, pair := range pairs {
		d.pair(pair, v, key, seen)
	}
}

// pair decodes one key of a mapping.
func (d *decoder) pair(pair *ast.MappingValueNode, v reflect.Value, parent string, seen map[string]place) {
	name, at := pair.Key.GetToken().Value, placeOf(pair.Key.GetToken())
	key := name
	if parent != "" {
		key = parent + "." + name
	}
	field := fieldOf(v, name)
	if !field.IsValid() {
		known := keysOf(v.Type())
		if h, ok := v.Addr().Interface().(hinter); ok && h.hint(name) != "" {
			d.fail(at, key, "unknown key; %s", h.hint(name))
		} else if meant := nearest(name, known); meant != "" {
			d.fail(at, key, "unknown key; did you mean %q?", meant)
			d.mistyped(parent, meant, at)
		} else {
			d.fail(at, key, "unknown key; known here are %s", strings.Join(known, ", "))
		}
		return
	}
	if first, twice := seen[name]; twice {
		d.fail(at, key, "the key was given in line %d already", first.line)
		return
	}
	seen[name] = at
	if pair.Value == nil || pair.Value.Type() == ast.NullType {
		d.fail(at, key, "the key has no value")
		d.places[key] = at
		return
	}
	d.value(pair.Value, field, key)
}

// mistyped takes note that a key is there under another name, so that nobody complains that it is missing.
func (d *decoder) mistyped(parent, meant string, at place) {
	key := meant
	if parent != "" {
		key = parent + "." + meant
	}
	if !d.has(key) {
		d.places[key] = at
		d.bad[key] = true
	}
}

// keysOf returns the keys of a struct in the order of its fields.
func keysOf(t reflect.Type) []string {
	var keys []string
	for f := range t.NumField() {
		if tag := t.Field(f).Tag.Get("yaml"); tag != "" {
			keys = append(keys, tag)
		}
	}
	return keys
}

func fieldOf(v reflect.Value, key string) reflect.Value {
	for f := range v.NumField() {
		if v.Type().Field(f).Tag.Get("yaml") == key {
			return v.Field(f)
		}
	}
	return reflect.Value{}
}
