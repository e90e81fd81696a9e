"""What docs/operate.md tells an operator to take is a certificate that the mesh knows."""

import re
import subprocess
import sys
from pathlib import Path

from mesh.authority import Authority
from mesh.tls import Certificates
from tests.deploy.chart import ROOT, VALUES, rendered
from tests.deploy.keys import make_keys
from whimbrel_cli.stack.environment import OPERATOR, tls_settings

_PAGE = (ROOT / "docs" / "operate.md").read_text()
_SECTION = _PAGE[_PAGE.index("## Be an operator") : _PAGE.index("## Read what people report")]
_MADE, _TAKEN, _ = re.findall(r"^```sh\n(.*?)^```$", _SECTION, re.MULTILINE | re.DOTALL)
# `kubectl get secret`, as far as the page uses it.
_KUBECTL = """#!/bin/sh
secret=$5 path=${7#jsonpath=}
file=$(printf %s "$path" | sed -e 's/^{[.]data[.]//' -e 's/}$//' -e 's/[\\]//')
base64 -w 0 "secrets/$secret/$file"
"""


def _run(script: str, directory: Path, *programs: Path) -> None:
    path = ":".join([*map(str, programs), "/usr/bin:/bin"])
    subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        check=True,
        cwd=directory,
        env={"PATH": path, "PYTHONPATH": str(ROOT)},
    )


def _demand_an_operator(directory: Path) -> None:
    told = tls_settings(directory, OPERATOR)
    assert not told.insecure
    # Raises unless it is the operator's, with its key.
    assert Certificates.read(told, OPERATOR).ca == told.ca.read_bytes()
    assert told.key.stat().st_mode & 0o077 == 0


def test_a_certificate_of_the_operator_is_taken_from_the_cluster(tmp_path) -> None:
    authority = Authority.at(tmp_path / "authority")
    for one in rendered(VALUES["TLS through a Gateway"], release="whimbrel"):
        if one["kind"] == "Certificate" and "dnsNames" in one["spec"]:
            secret = tmp_path / "secrets" / one["spec"]["secretName"]
            name = one["spec"]["dnsNames"][0].removesuffix(".whimbrel")
            certificate, key = authority.issue(name, into=secret)
            certificate.rename(secret / "tls.crt")
            key.rename(secret / "tls.key")
            (secret / "ca.crt").write_bytes(authority.ca.read_bytes())
    kubectl = tmp_path / "bin" / "kubectl"
    kubectl.parent.mkdir()
    kubectl.write_text(_KUBECTL)
    kubectl.chmod(0o755)

    _run(_TAKEN, tmp_path, kubectl.parent)

    _demand_an_operator(tmp_path / "operator")


def test_a_certificate_of_the_operator_is_made_beside_the_keys(tmp_path) -> None:
    _ = make_keys(tmp_path)
    (tmp_path / ".venv").symlink_to(sys.prefix)

    _run(_MADE, tmp_path)

    _demand_an_operator(tmp_path / "operator")
