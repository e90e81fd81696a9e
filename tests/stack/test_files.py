import stat
import subprocess
import sys
from pathlib import Path

import pytest

from whimbrel_cli.stack.errors import InUse
from whimbrel_cli.stack.files import owned, read_or_make_secret, write_private

_HOLD = """
import sys, time
from pathlib import Path
from whimbrel_cli.stack.files import owned
with owned(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_private_file_is_for_its_owner_only(tmp_path: Path) -> None:
    write_private(tmp_path / "secret", "s")

    assert stat.S_IMODE((tmp_path / "secret").stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["secret"]


def test_a_secret_is_made_once(tmp_path: Path) -> None:
    first = read_or_make_secret(tmp_path / "secret", make=lambda: "one")
    second = read_or_make_secret(tmp_path / "secret", make=lambda: "two")

    assert (first, second) == ("one", "one")


def test_a_data_directory_has_one_owner_until_that_owner_dies(tmp_path: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", _HOLD, tmp_path], stdout=subprocess.PIPE)
    with holder:
        assert holder.stdout.readline() == b"held\n"

        with pytest.raises(InUse, match=f"pid {holder.pid}"), owned(tmp_path):
            pass
        holder.kill()

    with owned(tmp_path):
        assert True
