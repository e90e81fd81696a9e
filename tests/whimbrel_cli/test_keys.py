import json
import stat

import pytest
from typer.testing import CliRunner

from mesh.keys import KeySet
from whimbrel_cli.main import app


def run(*arguments) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["keys", *map(str, arguments)])
    return result.exit_code, result.output


def test_a_new_key_is_its_owner_s_only(tmp_path) -> None:
    file = tmp_path / "now.json"

    assert run("new", file) == (0, "")

    assert KeySet.load(file).private_key is not None
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_what_is_published_verifies_for_all_and_signs_for_none(tmp_path) -> None:
    now, after, public = (tmp_path / name for name in ("now.json", "after.json", "public.json"))
    run("new", now)
    run("new", after)

    assert run("publish", public, now, after) == (0, "")

    published = KeySet.load(public)
    assert set(published.public_keys) == {KeySet.load(now).key_id, KeySet.load(after).key_id}
    assert published.private_key is None
    assert not any("d" in key for key in json.loads(public.read_text())["keys"])
    # Published files may be published again, and one key twice.
    assert run("publish", tmp_path / "again.json", public, now) == (0, "")


def test_nothing_is_written_over(tmp_path) -> None:
    file = tmp_path / "now.json"
    run("new", file)
    before = file.read_bytes()

    assert run("new", file)[0] == 1
    assert run("publish", file, file)[0] == 1

    assert file.read_bytes() == before


def test_what_is_no_key_set_is_told_without_its_content(tmp_path) -> None:
    (tmp_path / "bad.json").write_text('{"secret": 1}')

    code, output = run("publish", tmp_path / "public.json", tmp_path / "bad.json")

    assert code == 1
    assert "secret" not in output


def test_two_keys_of_one_id_are_refused() -> None:
    one, other = KeySet.generate(), KeySet.generate()
    twin = KeySet({one.key_id: other.public_keys[other.key_id]})

    with pytest.raises(ValueError, match=one.key_id):
        KeySet.joined([one, twin])
