package pages

import (
	"bytes"
	"encoding/json"
	"fmt"
	"html/template"
	"slices"
	"strings"

	"lockstep/handlers/openapi"
)

// The page's own shapes: what the template shows of the document, in its order.

type docsPage struct {
	Title, Version, Summary string
	Intro                   template.HTML
	Topics                  []*topic
	Objects                 []shape
	Codes                   []failure
}

type topic struct {
	Name, Anchor string
	Text         template.HTML
	Operations   []operation
}

type operation struct {
	ID, Method, Path, Summary string
	Text                      template.HTML
	Scopes                    []string
	Open                      bool // needs no key
	Parameters                []field
	Body                      *body
	Answers                   []outcome
	Failures                  []failure
	Request, Response         string // examples
	Status                    string // of the example of an answer
}

type body struct {
	Text     template.HTML
	Optional bool
	Fields   []field
}

// field is a parameter, or a field of an object; those of an object within come after it, one level deeper.
type field struct {
	Name, In, Type, Link string
	Mark                 string // required, or not always there
	Depth                int
	Text                 template.HTML
	Default              string
}

// outcome is an answer that is no error.
type outcome struct {
	Status, Type, Link string
	Text               template.HTML
}

type failure struct {
	Status, Code string
	Text         template.HTML
}

// shape is an object with a name of its own.
type shape struct {
	Name, Anchor string
	Text         template.HTML
	Fields       []field
	Example      string
}

// view reads a document for the page.
type view struct{ root *openapi.Object }

func (v view) page() (docsPage, error) {
	info := v.root.In("info")
	p := docsPage{Title: info.Text("title"), Version: info.Text("version"), Summary: info.Text("summary"), Intro: prose(info.Text("description"))}
	byName, inputs := map[string]*topic{}, map[string]bool{}
	for _, t := range v.root.List("tags") {
		tag, _ := t.(*openapi.Object)
		one := &topic{Name: tag.Text("name"), Anchor: anchor(tag.Text("name")), Text: prose(tag.Text("description"))}
		byName[one.Name], p.Topics = one, append(p.Topics, one)
	}
	for op := range v.root.Operations() {
		tags := op.List("tags")
		if len(tags) != 1 || byName[fmt.Sprint(tags[0])] == nil {
			return p, fmt.Errorf("%s %s needs one tag of those in openapi.yaml", op.Method, op.Path)
		}
		of := byName[fmt.Sprint(tags[0])]
		one, err := v.operation(op)
		if err != nil {
			return p, fmt.Errorf("%s %s: %w", op.Method, op.Path, err)
		}
		of.Operations = append(of.Operations, one)
		input := op.In("requestBody", "content", "application/json", "schema").Text("$ref")
		inputs[strings.TrimPrefix(input, "#/components/schemas/")] = true
	}
	for _, m := range v.root.In("components", "schemas").Members() {
		s, _ := m.Value.(*openapi.Object)
		if !v.named(s) {
			continue
		}
		example, err := v.example(s)
		if err != nil {
			return p, fmt.Errorf("%s: %w", m.Name, err)
		}
		way := answered
		if inputs[m.Name] {
			way = sent
		}
		p.Objects = append(p.Objects, shape{s.Text("title"), objectAnchor(m.Name), prose(s.Text("description")), v.fields(s, 0, way), example})
	}
	slices.SortStableFunc(p.Objects, func(a, b shape) int { return strings.Compare(a.Name, b.Name) })
	for _, m := range v.root.In("x-codes").Members() {
		code, _ := m.Value.(*openapi.Object)
		p.Codes = append(p.Codes, failure{fmt.Sprint(code.Get("status")), m.Name, prose(code.Text("text"))})
	}
	return p, nil
}

// named reports whether a schema is an object that the page shows under its own name.
func (v view) named(s *openapi.Object) bool { return s.In("properties") != nil }

func (v view) operation(op openapi.Operation) (operation, error) {
	o := operation{ID: op.Text("operationId"), Method: op.Method, Path: op.Path, Summary: op.Text("summary"), Text: prose(op.Text("description"))}
	security := op.List("security")
	o.Open = len(security) == 0
	for _, s := range security {
		alternative, _ := s.(*openapi.Object)
		for _, scope := range alternative.List("key") {
			o.Scopes = append(o.Scopes, fmt.Sprint(scope))
		}
	}
	for _, p := range op.List("parameters") {
		given, _ := p.(*openapi.Object)
		param := v.root.Resolve(given)
		f := v.field(param.Text("name"), param.In("schema"), 0)
		f.In = param.Text("in")
		if param.Get("required") == true {
			f.Mark = "required"
		}
		if text := param.Text("description"); text != "" {
			f.Text = prose(text)
		}
		o.Parameters = append(o.Parameters, f)
	}
	request := v.root.Resolve(op.In("requestBody"))
	if request != nil {
		schema := v.root.Resolve(request.In("content", "application/json", "schema"))
		o.Body = &body{prose(request.Text("description")), request.Get("required") != true, v.fields(schema, 0, sent)}
		for i := range o.Body.Fields { // null means left out, which is said once for all
			o.Body.Fields[i].Type = strings.TrimSuffix(o.Body.Fields[i].Type, " or null")
		}
	}
	for _, m := range op.In("responses").Members() {
		answer, _ := m.Value.(*openapi.Object)
		if m.Name[0] == '2' || answer.In("content", "application/json") == nil {
			outcome, example, err := v.outcome(m.Name, answer)
			if err != nil {
				return o, err
			}
			o.Answers = append(o.Answers, outcome)
			if o.Response == "" && example != "" {
				o.Response, o.Status = example, m.Name
			}
		}
	}
	codes := v.root.In("x-codes")
	for _, m := range op.In("x-errors").Members() {
		o.Failures = append(o.Failures, failure{fmt.Sprint(codes.In(m.Name).Get("status")), m.Name, prose(fmt.Sprint(m.Value))})
	}
	slices.SortStableFunc(o.Failures, func(a, b failure) int { return strings.Compare(a.Status, b.Status) })
	var err error
	o.Request, err = v.curl(op, request)
	return o, err
}

// outcome is an answer as the page lists it, and an example of it.
func (v view) outcome(status string, answer *openapi.Object) (outcome, string, error) {
	o := outcome{Status: status, Text: prose(answer.Text("description"))}
	content := answer.In("content").Members()
	if len(content) == 0 {
		return o, "", nil
	}
	media, _ := content[0].Value.(*openapi.Object)
	schema := media.In("schema")
	o.Type = content[0].Name
	if o.Type == "application/json" {
		o.Type, o.Link = v.typeOf(schema)
	}
	if example := media.Text("example"); example != "" {
		return o, strings.TrimSuffix(example, "\n"), nil
	}
	example, err := v.example(v.root.Resolve(schema))
	return o, example, err
}

// example is a schema's first example; a list's is made of its objects'.
func (v view) example(s *openapi.Object) (string, error) {
	if list := s.List("examples"); len(list) > 0 {
		return pretty(list[0])
	}
	items := v.root.Resolve(s.In("properties", "data", "items"))
	if list := items.List("examples"); len(list) > 0 {
		page := &openapi.Object{}
		page.Set("object", "list")
		page.Set("data", []any{list[0]})
		page.Set("has_more", false)
		return pretty(page)
	}
	return "", nil
}

// curl is an operation's request as a command.
func (v view) curl(op openapi.Operation, request *openapi.Object) (string, error) {
	path := op.Path
	query := ""
	for _, p := range op.List("parameters") {
		given, _ := p.(*openapi.Object)
		param := v.root.Resolve(given)
		sample := param.Get("example")
		if list := v.root.Resolve(param.In("schema")).List("examples"); sample == nil && len(list) > 0 {
			sample = list[0]
		}
		switch {
		case param.Text("in") == "path":
			path = strings.ReplaceAll(path, "{"+param.Text("name")+"}", fmt.Sprint(sample))
		case param.Text("in") == "query" && sample != nil:
			query += "&" + param.Text("name") + "=" + fmt.Sprint(sample)
		}
	}
	if query != "" {
		path = "'" + path + "?" + query[1:] + "'"
	}
	command := "curl "
	if op.Method != "GET" && (op.Method != "POST" || request == nil) {
		command += "-X " + op.Method + " "
	}
	if strings.HasPrefix(path, "'") {
		command += "'http://127.0.0.1:8080" + path[1:]
	} else {
		command += "http://127.0.0.1:8080" + path
	}
	if len(op.List("security")) > 0 {
		command += " \\\n  -H \"Authorization: Bearer $LOCKSTEP_API_KEY\""
	}
	if sample := request.In("content", "application/json").Get("example"); sample != nil {
		text, err := pretty(sample)
		if err != nil {
			return "", err
		}
		command += " \\\n  -d '" + text + "'"
	}
	return command, nil
}

// pretty is a value as JSON for people: what is short stays on one line.
func pretty(value any) (string, error) {
	var b bytes.Buffer
	err := write(&b, value, "")
	return b.String(), err
}

// shortLine is how long a line may be that holds a whole object.
const shortLine = 44

func write(b *bytes.Buffer, value any, indent string) error {
	var flat bytes.Buffer
	e := json.NewEncoder(&flat)
	e.SetEscapeHTML(false)
	if err := e.Encode(value); err != nil {
		return err
	}
	line := strings.TrimSuffix(flat.String(), "\n")
	short := len(indent)+len(line) <= shortLine
	switch v := value.(type) {
	case *openapi.Object:
		if len(v.Members()) == 0 || indent != "" && short {
			break
		}
		b.WriteString("{\n")
		for i, m := range v.Members() {
			fmt.Fprintf(b, "%s  %q: ", indent, m.Name)
			if err := write(b, m.Value, indent+"  "); err != nil {
				return err
			}
			comma(b, i, len(v.Members()))
		}
		b.WriteString(indent + "}")
		return nil
	case []any:
		if short {
			break
		}
		b.WriteString("[\n")
		for i, one := range v {
			b.WriteString(indent + "  ")
			if err := write(b, one, indent+"  "); err != nil {
				return err
			}
			comma(b, i, len(v))
		}
		b.WriteString(indent + "]")
		return nil
	}
	b.WriteString(line)
	return nil
}

func comma(b *bytes.Buffer, i, n int) {
	if i < n-1 {
		b.WriteByte(',')
	}
	b.WriteByte('\n')
}
