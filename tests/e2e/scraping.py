"""Metrics as Prometheus reads them."""

import re
import urllib.request


def value(port: int, name: str, **labels: str) -> float:
    """The sum of all samples of the name that have the labels; -1 without any."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        page = answer.read().decode()
    found = -1.0
    for line in page.splitlines():
        sample = re.fullmatch(r"(\w+)(?:\{(.*)\})? (\S+)", line)
        if sample and sample[1] == name:
            has = dict(re.findall(r'(\w+)="([^"]*)"', sample[2] or ""))
            if labels.items() <= has.items():
                found = max(found, 0.0) + float(sample[3])
    return found
