"""What each piece means is told by https://pkg.go.dev/text/template and pkg.go.dev/fmt."""

from __future__ import annotations

import pytest

from machine.compat.gotemplate import Struct, Template
from machine.errors import UsageError

DATA = {
    "Name": "web",
    "Driver": {"IPAddress": "10.0.0.2", "SSHPort": 22, "Swarm": False, "Ratio": 0.5, "Size": 2.0},
    "Labels": ["a=b", "c=d"],
    "Empty": [],
    "Nothing": None,
    "Html": "<a&b>",
    "Mixed": {"b": None, "a": [True, 1]},
}


@pytest.mark.parametrize(
    ("template", "text"),
    [
        # literal text, fields
        ("", ""),
        ("no action", "no action"),
        ("{{.Name}}", "web"),
        ("{{ .Name }}:{{.Driver.IPAddress}}", "web:10.0.0.2"),
        ("{{$.Driver.SSHPort}}", "22"),
        # how values print
        ("{{.Driver.Swarm}} {{.Driver.Ratio}} {{.Driver.Size}}", "false 0.5 2"),
        ("{{.Labels}} {{.Empty}} {{.Mixed}}", "[a=b c=d] [] map[a:[true 1] b:<nil>]"),
        ("{{.Nothing}} {{.Nosuch}} {{.Nosuch.Deeper}}", "<no value> <no value> <no value>"),
        # literals
        ('{{"a\\tb"}} {{`raw\\t`}} {{7}} {{-1.5}} {{true}}', "a\tb raw\\t 7 -1.5 true"),
        ('{{"}}"}}', "}}"),
        # functions and pipelines
        ("{{json .Labels}}", '["a=b","c=d"]'),
        ("{{.Mixed | json}}", '{"a":[true,1],"b":null}'),
        ("{{json .Html}}", '"\\u003ca\\u0026b\\u003e"'),
        ("{{prettyjson .Labels}}", '[\n    "a=b",\n    "c=d"\n]'),
        ("{{prettyjson .Empty}}", "[]"),
        ("{{json .}}", None),
        (
            "{{index .Labels 1}} {{index .Driver `SSHPort`}} {{index .Driver `no`}}",
            "c=d 22 <no value>",
        ),
        ("{{(index .Mixed `a`)}} {{(index . `Driver`).SSHPort}}", "[true 1] 22"),
        ("{{len .Labels}} {{len .Name}}", "2 3"),
        (
            "{{.Driver.SSHPort | eq 22}} {{eq .Name `db` `web`}} {{ne .Name `web`}}",
            "true true false",
        ),
        ("{{lt 1 2}} {{ge 1 2}} {{eq 1 true}}", "true false false"),
        ("{{not .Empty}} {{and .Name .Labels}} {{or .Empty .Name}}", "true [a=b c=d] web"),
        # if, with
        ("{{if .Driver.Swarm}}yes{{else}}no{{end}}", "no"),
        ("{{if .Nosuch}}yes{{end}}", ""),
        ('{{if eq .Name "db"}}1{{else if eq .Name "web"}}2{{else}}3{{end}}', "2"),
        ("{{if .Empty}}1{{else if .Nothing}}2{{else}}3{{end}}!", "3!"),
        ("{{with .Driver}}{{.SSHPort}} of {{$.Name}}{{end}}", "22 of web"),
        ("{{with $x := .Nothing}}{{$x}}{{else}}none at {{.Name}}{{end}}", "none at web"),
        # range
        ("{{range .Labels}}<{{.}}>{{end}}", "<a=b><c=d>"),
        ("{{range $i, $label := .Labels}}{{$i}}={{$label}} {{end}}", "0=a=b 1=c=d "),
        ("{{range $key, $value := .Mixed}}{{$key}},{{end}}", "a,b,"),
        ("{{range .Empty}}x{{else}}none{{end}}{{range .Nothing}}x{{end}}", "none"),
        ("{{range .Labels}}{{if eq . `c=d`}}{{.}} on {{$.Name}}{{end}}{{end}}", "c=d on web"),
        # variables, comments, trimming
        ("{{$x := .Name}}{{if true}}{{$x := `inner`}}{{$x}} {{end}}{{$x}}", "inner web"),
        ("a {{- .Name -}} b", "awebb"),
        ("a {{/* a }} comment */}} b{{- /* another */ -}} c", "a  bc"),
    ],
)
def test_templates(template: str, text: str | None) -> None:
    filled = Template(template).render(DATA)
    assert filled == text if text is not None else filled.startswith('{"Driver":{')


@pytest.mark.parametrize(
    ("template", "position", "message"),
    [
        ("ab{{.Name", 10, "the action is not closed"),
        ("{{.Name!}}", 8, "not understood"),
        ('{{"open}}', 3, "not understood"),
        ("{{}}", 1, "nothing is no value"),
        ("{{.Name | }}", 13, "a value is missing"),
        ("{{if}}x{{end}}", 15, "a value is missing"),
        ("{{nosuch .Name}}", 3, "there is no function nosuch"),
        ("{{.Name .Driver}}", 3, ".Name is no function"),
        ("{{json .Name | .Driver}}", 16, ".Driver is no function"),
        ("{{(.Name}}", 3, "the parenthesis is not closed"),
        ("{{if .Name}}x", 3, "if has no end"),
        ("{{range .Labels}}x{{else}}y", 3, "range has no end"),
        ("x{{end}}", 4, "end belongs to no if, with or range"),
        ("{{if .Name}}{{end .}}", 19, ". is not expected here"),
        ("{{if .Name}}{{else range .Labels}}{{end}}", 20, "range cannot follow else"),
        ("{{$nosuch}}", 3, "there is no variable $nosuch"),
        ("{{.Name := 1}}", 3, ".Name is no variable"),
        ("{{$a, $b := .Name}}", 20, "only range declares two variables"),
        ("{{.Name.Deeper}}", 3, "web has no field Deeper"),
        ("{{index .Labels 7}}", 3, "index is not possible"),
        ("{{index .Name 1}}", 3, "web has no element 1"),
        ("{{len .Driver.SSHPort}}", 3, "len is not possible"),
        ("{{lt .Name 1}}", 3, "lt is not possible"),
        ("{{json}}", 3, "json is given 0 values"),
        ("{{json .Name 1 2}}", 3, "json is given 3 values"),
        ("{{json len}}", 8, "len is no value"),
        ("{{range .Name}}{{end}}", 3, "range is not possible over web"),
        ("{{template `x`}}", 3, "there is no function template"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(template: str, position: int, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        Template(template).render(DATA)
    assert f"at character {position}: " in caught.value.brief
    assert message in caught.value.brief


def test_a_struct_has_the_fields_that_it_has() -> None:
    data = Struct(Name="web", Options=None)
    assert Template("{{.Name}} {{.Options.Deeper}}").render(data) == "web <no value>"
    with pytest.raises(UsageError, match="no field URL; there are Name, Options"):
        Template("{{.URL}}").render(data)
