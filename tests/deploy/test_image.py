"""The image holds what the services need, and runs as the chart runs it."""

import importlib.metadata
import re
import subprocess
import sys

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from mesh.settings import load
from tests.deploy.chart import ROOT, SETTINGS, pods
from tests.deploy.keys import held

_DOCKERFILE = (ROOT / "Dockerfile").read_text()
_COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())
_KEYS = "/run/secrets/whimbrel/"


def _locked(*names: str) -> dict[str, str]:
    ran = subprocess.run(
        [sys.executable, ROOT / "scripts" / "locked.py", *names],
        check=True,
        capture_output=True,
        text=True,
    )
    return dict(re.findall(r"^([a-z0-9-]+)==(\S+) \\$", ran.stdout, re.MULTILINE))


def test_the_image_holds_what_each_of_its_packages_needs_and_nothing_more() -> None:
    held = _locked("[server]")
    waiting = [Requirement("whimbrel[server]")]
    needed = {"whimbrel"}

    while waiting:
        one = waiting.pop()
        asked = importlib.metadata.requires(one.name) or []
        for text in asked:
            requirement = Requirement(text)
            extras = one.extras or {""}
            if any(_applies(requirement, extra) for extra in extras):
                name = canonicalize_name(requirement.name)
                if name not in needed or requirement.extras:
                    needed.add(name)
                    waiting.append(requirement)

    assert set(held) == needed - {"whimbrel"}


def _applies(requirement: Requirement, extra: str) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


def test_the_image_runs_as_the_user_of_the_chart_and_is_told_its_service() -> None:
    [user] = re.findall(r"^USER (\d+):\1$", _DOCKERFILE, re.MULTILINE)
    last_stage = _DOCKERFILE.rpartition("\nFROM ")[2]

    users = {pod["spec"]["securityContext"]["runAsUser"] for _, pod in pods()}
    started = {pod["spec"]["containers"][0]["args"][0] for _, pod in pods()}

    assert users == {int(user)}
    assert started == {f"svc_{name}" for name in SETTINGS}
    assert 'ENTRYPOINT ["/opt/whimbrel/bin/python", "-m"]' in last_stage
    assert "RUN" not in last_stage


@pytest.mark.parametrize(
    "name", [name for name, one in _COMPOSE["services"].items() if one["image"] == "whimbrel"]
)
def test_a_service_starts_with_what_the_compose_file_tells_it(name, tmp_path, monkeypatch) -> None:
    told = _COMPOSE["services"][name]
    package, *command = told["command"]
    service = package.removeprefix("svc_")
    for variable, value in told["environment"].items():
        if value.startswith("/"):
            mounted = {file["target"] for file in told.get("configs", ())}
            assert value in mounted or value.startswith(_KEYS), variable
            value = str(held(value, tmp_path))  # noqa: PLW2901
        monkeypatch.setenv(variable, value)

    if command:
        # A command needs a few of the settings; the service's own class would ask for all.
        module = sys.modules[SETTINGS[service].__module__]
        load(module.StoreSettings, part_of=SETTINGS[service])
    else:
        load(SETTINGS[service])


def test_the_compose_file_has_every_service_and_only_the_doors_it_says() -> None:
    services = _COMPOSE["services"]

    doors = {port for one in services.values() for port in one.get("ports", ())}

    assert set(SETTINGS) <= set(services)
    assert all(port.startswith("127.0.0.1:") for port in doors)
    for one in services.values():
        for config in one.get("configs", ()):
            assert config["source"] in _COMPOSE["configs"]
        assert set(one.get("depends_on", ())) <= set(services)
