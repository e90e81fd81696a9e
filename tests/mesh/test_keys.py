import json
import stat

import pytest

from mesh.keys import KeySet


def test_a_saved_set_is_its_owners_alone_and_loads_again(tmp_path):
    keys = KeySet.generate()

    keys.save(tmp_path / "keys.json")
    loaded = KeySet.load(tmp_path / "keys.json")

    assert stat.S_IMODE((tmp_path / "keys.json").stat().st_mode) == 0o600
    assert loaded.key_id == keys.key_id
    assert loaded.private_key is not None
    signature = loaded.private_key.sign(b"text")
    keys.public_keys[keys.key_id].verify(signature, b"text")


def test_a_public_set_verifies_but_cannot_sign(tmp_path):
    keys = KeySet.generate()

    keys.save_public(tmp_path / "public.json")
    loaded = KeySet.load(tmp_path / "public.json")

    assert loaded.private_key is None
    assert list(loaded.public_keys) == [keys.key_id]
    assert '"d"' not in (tmp_path / "public.json").read_text()


def test_a_key_is_never_shown(tmp_path):
    keys = KeySet.generate()
    keys.save(tmp_path / "keys.json")
    secret = json.loads((tmp_path / "keys.json").read_text())["keys"][0]["d"]

    assert secret not in repr(keys)
    assert "private" not in repr(keys)


def test_a_set_that_is_there_is_not_written_over(tmp_path):
    KeySet.generate().save(tmp_path / "keys.json")

    with pytest.raises(FileExistsError):
        KeySet.generate().save(tmp_path / "keys.json")


def test_an_older_key_still_verifies_while_the_newer_signs(tmp_path):
    sets = [KeySet.generate(), KeySet.generate()]
    for number, keys in enumerate(sets):
        keys.save(tmp_path / f"{number}.json")
    newer, older = (json.loads((tmp_path / f"{n}.json").read_text())["keys"][0] for n in (0, 1))
    (tmp_path / "both.json").write_text(json.dumps({"keys": [newer, older]}))

    loaded = KeySet.load(tmp_path / "both.json")

    assert loaded.key_id == newer["kid"]
    assert set(loaded.public_keys) == {newer["kid"], older["kid"]}


def _entry(**changes):
    entry = {"kty": "OKP", "crv": "Ed25519", "kid": "a", "x": "A" * 43}
    return {**entry, **changes}


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"keys": []}',
        '{"keys": [{}]}',
        json.dumps({"keys": [_entry(kty="RSA")]}),
        json.dumps({"keys": [_entry(x="AAAA")]}),
        json.dumps({"keys": [_entry(), _entry()]}),
        json.dumps({"keys": [_entry(d="B" * 43)]}),
    ],
)
def test_a_file_that_is_no_key_set_is_named_but_not_quoted(tmp_path, content):
    (tmp_path / "keys.json").write_text(content)

    with pytest.raises(ValueError, match=r"keys\.json is not a set of Ed25519 keys") as caught:
        KeySet.load(tmp_path / "keys.json")

    assert caught.value.__cause__ is None
