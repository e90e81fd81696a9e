"""What docs/deploy.md tells to do is what the chart needs."""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator

import pytest
from helm_python import Chart

from mesh.keys import KeySet
from svc_push.sealing import Seal
from tests.deploy.chart import CHART, ROOT, environment, pods, service_pods
from tests.deploy.keys import make_keys

_TEXT = (ROOT / "docs" / "deploy.md").read_text()
_BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", _TEXT, re.MULTILINE | re.DOTALL)
# In the directory scripts/keys.py makes, by what the key of a setting must be able to do.
_SIGNING = {"token_key"}


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    """What `scripts/keys.py keys` makes."""
    return make_keys(tmp_path_factory.mktemp("deploy"))


def _commands() -> Iterator[list[str]]:
    for language, text in _BLOCKS:
        if language == "sh":
            for line in text.replace("\\\n", " ").splitlines():
                if line.startswith("kubectl "):
                    yield shlex.split(line.partition(" | ")[0])


def _made(keys) -> set[tuple[str, str]]:
    """The keys of Secrets that the commands of the page make."""
    made = set()
    for command in _commands():
        if "create" in command and "secret" in command:
            name = command[command.index("generic") + 1]
            for argument in command:
                option, _, value = argument.partition("=")
                if option == "--from-literal":
                    made.add((name, value.partition("=")[0]))
                elif argument == "--from-file=keys/":
                    made |= {(name, file.name) for file in keys.iterdir()}
                elif option == "--from-file":
                    made.add((name, value))
    return made


def test_the_commands_make_every_secret_that_the_chart_names(keys) -> None:
    named = {
        (volume["secret"]["secretName"], item["key"])
        for _, pod in pods({"stores": {"valkey": {"enabled": True}}})
        for volume in pod["spec"].get("volumes", ())
        for item in volume["secret"]["items"]
    } | {
        (reference["name"], reference["key"])
        for spec in service_pods().values()
        for one in environment(spec).values()
        if (reference := one.get("valueFrom", {}).get("secretKeyRef"))
    }

    assert named <= _made(keys)


def test_helm_names_the_secrets_that_must_be_there(keys) -> None:
    with Chart.load(CHART) as chart:
        notes = chart.render(name="whimbrel", namespace="chat")["whimbrel/templates/NOTES.txt"]

    told = dict(re.findall(r"^  (whimbrel-[a-z]+): (.*)$", notes, re.MULTILINE))

    assert set(told) == {name for name, _ in _made(keys)}
    assert {(name, key) for name, all_of in told.items() for key in all_of.split(", ")} <= _made(
        keys
    )


def test_each_service_can_read_the_keys_that_are_made_for_it(keys) -> None:
    for spec in service_pods().values():
        for volume in spec["volumes"]:
            if volume["secret"]["secretName"] != "whimbrel-keys":
                continue
            path = keys / volume["secret"]["items"][0]["key"]
            if path.name == "push-token-keys.json":
                Seal.load(path)
            elif path.suffix == ".pem":
                assert path.stat().st_mode & 0o077 == 0 or "key" not in path.name
            else:
                signs = volume["name"].replace("-", "_") in _SIGNING
                assert (KeySet.load(path).private_key is not None) == signs, path.name


def test_what_certifies_stays_out_of_the_secret(keys) -> None:
    secret = {file.name for file in keys.iterdir() if file.is_file()}

    assert not secret & {file.name for file in (keys / "authority").glob("*key*")}
    assert (keys / "authority" / "ca-key.pem").stat().st_mode & 0o077 == 0


def test_keys_are_never_made_over_others(keys) -> None:
    command = [sys.executable, ROOT / "scripts" / "keys.py", keys]

    again = subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT)

    assert again.returncode == 1
    assert "never made over others" in again.stderr
