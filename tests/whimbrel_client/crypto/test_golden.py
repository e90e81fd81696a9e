"""Conversations recorded from the real libsignal: each is had again, byte for byte, without it."""

import json
from pathlib import Path

import pytest

from tests.whimbrel_client.crypto import golden
from tests.whimbrel_client.crypto.people import Person

RECORDED = sorted(golden.FOLDER.glob("*-opens.json"))
GROUPS = sorted(golden.FOLDER.glob("*-group.json"))


def test_both_versions_were_recorded_in_both_directions() -> None:
    assert [each.stem for each in RECORDED] == [
        "0.103.0-libsignal-opens",
        "0.103.0-whimbrel-opens",
        "0.88.3-libsignal-opens",
        "0.88.3-whimbrel-opens",
    ]
    assert len(GROUPS) == 2


@pytest.mark.parametrize("file", RECORDED, ids=lambda file: file.stem)
def test_a_recorded_conversation_goes_the_same_way_again(file: Path) -> None:
    assert golden.replay(json.loads(file.read_text())) > 100


@pytest.mark.parametrize("file", GROUPS, ids=lambda file: file.stem)
def test_a_group_reads_what_libsignal_wrote_to_it(file: Path) -> None:
    recorded = json.loads(file.read_text())
    reader = Person()
    reader.admit("sender", golden.raw(recorded["distribution"]))

    for plaintext, body in reversed(recorded["said"]):
        assert reader.group_decrypt("sender", golden.raw(body)) == plaintext.encode()
