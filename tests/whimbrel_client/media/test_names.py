"""Names that others chose: nothing gets out of the folder, or over another file."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whimbrel_client.media.names import put_under_free_name, safe_name


@pytest.mark.parametrize(
    ("told", "kept"),
    [
        ("report.pdf", "report.pdf"),
        ("../../etc/passwd", "passwd"),
        ("..\\..\\boot.ini", "boot.ini"),
        ("/home/ann/.ssh/authorized_keys", "authorized_keys"),
        (".bashrc", "bashrc"),
        ("..", "file"),
        ("", "file"),
        ("a\x00b\x1b[2Jc\n.txt", "a_b_[2Jc_.txt"),
        ("photo\u202egpj.exe", "photo_gpj.exe"),
        ("C:\\x:y?.txt", "x_y_.txt"),
        ("x" * 5000 + ".jpeg", "x" * 196 + ".jpeg"),
        ("trailing. ", "trailing"),
    ],
)
def test_a_name_is_made_harmless(told: str, kept: str) -> None:
    assert safe_name(told) == kept


@given(st.text(max_size=400))
def test_whatever_the_name_the_file_is_in_the_folder(told: str) -> None:
    name = safe_name(told)

    assert Path("/folder", name).parent == Path("/folder")
    assert name not in ("", ".", "..")
    assert not name.startswith(".")
    assert len(name.encode()) <= 220
    assert name.isprintable()


def test_no_file_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("there")
    (tmp_path / "a (1).txt").symlink_to("/nowhere")
    draft = tmp_path / "draft"
    draft.write_text("new")

    path = put_under_free_name(draft, tmp_path, "../a.txt")

    assert path == tmp_path / "a (2).txt"
    assert path.read_text() == "new"
    assert (tmp_path / "a.txt").read_text() == "there"
    assert not draft.exists()
