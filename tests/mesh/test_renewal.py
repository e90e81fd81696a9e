"""Files that change under what is made of them."""

from mesh.metrics import Metric
from mesh.renewal import Renewing
from mesh.telemetry import OFF


class Counting(type(OFF)):
    """Telemetry whose counters count into one number."""

    def __init__(self) -> None:
        self.count = 0

    def counter(self, _metric: Metric) -> "Counting":
        return self

    def add(self, amount: int, _labels: object = None) -> None:
        self.count += amount


def test_files_that_are_not_good_are_counted_once_for_each_change(tmp_path):
    file, telemetry = tmp_path / "number", Counting()
    file.write_text("1")
    number = Renewing([file], lambda: int(file.read_text()), telemetry=telemetry)

    told = []
    for content in ("none", "nothing", "23"):
        file.write_text(content)
        told += [(number.now(), telemetry.count) for _ in range(2)]

    assert told == [(1, 1), (1, 1), (1, 2), (1, 2), (23, 2), (23, 2)]
