"""What the pages tell to type can be typed: programs, options, targets, objects, values, sums."""

import contextlib
import importlib
import io
import re
import runpy
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import click
import pytest
import typer
import yaml

from tests.deploy.chart import ROOT, TABLE, VALUES, rendered
from whimbrel_cli.main import app

_PAGES = {
    str(path.relative_to(ROOT)): path.read_text()
    for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/*/*.md")]
}
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# Programs of others that a page may ask for: their options are theirs.
_OTHERS = frozenset(
    [
        ".",
        "base64",
        "buf",
        "cat",
        "cd",
        "cp",
        "docker",
        "grep",
        "haproxy",
        "helm",
        "kubectl",
        "mkdir",
        "mv",
        "node",
        "npm",
        "psql",
        "umask",
    ]
)
_SPOKEN_OF = frozenset({"job", "service", "deployment"})


def _blocks(language: str) -> list[tuple[str, str]]:
    return [
        (page, text)
        for page, all_of in _PAGES.items()
        for found, text in _BLOCK.findall(all_of)
        if found == language
    ]


def _commands(script: str) -> Iterator[list[str]]:
    """The simple commands of a script, without what is assigned and redirected."""
    script = re.sub(r"<<'(\w+)'\n.*?^\1$", "", script, flags=re.MULTILINE | re.DOTALL)
    script = re.sub(r"\$\([^)]*\)", "told", script.replace("\\\n", " "))
    for line in script.splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|<>")
        lexer.whitespace_split = True
        command: list[str] = []
        for token in [*lexer, ";"]:
            if set(token) <= set(";&|"):
                yield from _without_the_shell_s(command)
                command = []
            else:
                command.append(token)


def _without_the_shell_s(command: list[str]) -> Iterator[list[str]]:
    while command and (re.fullmatch(r"\w+=.*", command[0]) or command[0] == "do"):
        command = command[1:]
    if command and command[0] not in {"for", "done", "break"}:
        yield command


_COMMANDS = [(page, one) for page, text in _blocks("sh") for one in _commands(text)]


@pytest.mark.parametrize(("page", "script"), _blocks("sh"))
def test_a_shell_understands_the_page(page, script) -> None:
    ran = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True, check=False)

    assert ran.stderr == "", page


@pytest.mark.parametrize(
    ("page", "command"),
    _COMMANDS,
    ids=lambda one: one if isinstance(one, str) else " ".join(one)[:60],
)
def test_what_is_to_be_typed_is_there(page, command) -> None:
    program = Path(command[0]).name
    if program == "whimbrel":
        _demand_command(command[1:])
    elif program == "make":
        targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
        assert command[1:]
        assert set(command[1:]) <= targets
    elif program == "python" and command[1] == "-m":
        _demand_step(command[2], *command[3:4])
    elif program == "python":
        assert (ROOT / command[1]).exists()
    else:
        assert {command[0], program} & _OTHERS, page


def _demand_command(arguments: list[str]) -> None:
    command = typer.main.get_command(app)
    rest = list(arguments)
    while isinstance(command, click.Group) or hasattr(command, "commands"):
        if not rest or rest[0].startswith("-"):  # the command itself, or its help
            break
        name = rest.pop(0)
        assert name in command.commands, name
        command = command.commands[name]
    known = {name for one in command.params for name in one.opts} | {"--help"}
    asked = {one.partition("=")[0] for one in rest if one.startswith("--")}
    assert asked <= known


def _demand_step(package: str, step: str = "") -> None:
    if not package.startswith("svc_"):
        assert importlib.util.find_spec(package)
        return
    with mock.patch("mesh.command.main", return_value=0) as main, contextlib.suppress(SystemExit):
        runpy.run_module(package, run_name="__main__")
    _, _, _, *steps = main.call_args.args
    assert step in {"", "settings", *(steps[0] if steps else ())}


def test_the_commands_speak_of_objects_that_are_there() -> None:
    made = rendered(VALUES["everything"], release="whimbrel")
    names = {(one["kind"].lower(), one["metadata"]["name"]) for one in made}

    spoken = {
        (kind, name)
        for _, command in _COMMANDS
        if command[0] == "kubectl"
        for argument in command
        for kind, _, name in [argument.partition("/")]
        if kind in _SPOKEN_OF and name and name.isascii()
    }

    assert spoken
    assert spoken <= names
    assert {f"whimbrel-{name}" for name in TABLE} & {name for _, name in spoken}


@pytest.mark.parametrize(
    ("page", "text"),
    [(page, text) for page, text in _blocks("yaml") if re.match(r"# [\w-]+\.yaml\n", text)],
    ids=lambda one: one.partition("\n")[0],
)
def test_helm_takes_the_values_of_the_page(page, text) -> None:
    assert rendered(yaml.safe_load(text)), page


def test_every_runbook_is_found_from_the_page_for_operators() -> None:
    runbooks = {path.name for path in (ROOT / "docs" / "runbooks").glob("*.md")}

    assert set(re.findall(r"\(runbooks/(\w+\.md)\)", _PAGES["docs/operate.md"])) == runbooks


def test_the_table_of_scaling_is_what_its_arithmetic_gives() -> None:
    page = _PAGES["docs/scaling.md"]
    [(_, script)] = [one for one in _blocks("python") if one[0] == "docs/scaling.md"]
    printed = io.StringIO()

    with contextlib.redirect_stdout(printed):
        exec(compile(script, "docs/scaling.md", "exec"), {})

    assert printed.getvalue().count("\n") == 4
    assert printed.getvalue() in page


@pytest.mark.parametrize(
    "figure",
    ["42.8 KiB", "49.7 µs", "Postgres 325 µs", "svc_message 307", "gateways 250", "259 µs"],
)
def test_what_scaling_calls_measured_is_on_the_page_of_measurements(figure) -> None:
    number = re.search(r"[\d.]+", figure)

    assert figure in _PAGES["docs/performance.md"].replace("**", "").replace(
        "the two ", ""
    ).replace("instances of ", "")
    assert number
    assert number[0] in _PAGES["docs/scaling.md"]
