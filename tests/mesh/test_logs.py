import json
import subprocess
import sys

import pytest

PROGRAM = """
import logging, structlog
from mesh import logs
log = structlog.get_logger("a.module")
logs.configure(level="INFO", service="svc_x", instance="i1")
{body}
"""


def logged(body):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(body=body)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == ""
    return [json.loads(line) for line in done.stderr.splitlines()]


def test_a_line_is_json_with_the_module_the_level_and_who_says_it():
    [line] = logged('log.info("registered", seq=7); log.debug("not shown")')

    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "registered",
        "level": "info",
        "logger": "a.module",
        "service": "svc_x",
        "instance": "i1",
        "seq": 7,
    }


def test_lines_of_libraries_look_the_same():
    [line] = logged('logging.getLogger("library").warning("odd %s", 7)')

    assert (line["event"], line["logger"], line["service"]) == ("odd 7", "library", "svc_x")


def test_ids_are_readable_and_other_bytes_are_not_shown():
    [line] = logged('log.info("sent", message_id=bytes(16), body=b"what they wrote")')

    assert (line["message_id"], line["body"]) == ("0" * 26, "(15 bytes)")


TOKEN = "eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJ4In0.c2lnbmF0dXJl"


@pytest.mark.parametrize(
    "body",
    [
        f'log.info("x", access_token="{TOKEN}")',
        f'log.info("x", header="Bearer {TOKEN}")',
        f'log.info("got {TOKEN}")',
        'log.info("x", url="postgres://user:{}@host/db")'.format("c2lnbmF0dXJl"),
        'log.info("x", dsn="c2lnbmF0dXJl")',
        'log.info("x", ciphertext="c2lnbmF0dXJl")',
        f'logging.getLogger("library").warning("got %s", "{TOKEN}")',
        f'try:\n    raise ValueError("{TOKEN}")\nexcept ValueError:\n    log.exception("x")',
        'secret = "c2lnbmF0dXJl"\ntry:\n    1 / 0\nexcept ArithmeticError:\n    log.exception("x")',
    ],
)
def test_secrets_are_hidden_wherever_they_turn_up(body):
    lines = logged(body)

    assert len(lines) == 1
    assert "c2lnbmF0dXJl" not in json.dumps(lines)


def test_an_error_is_one_line_with_its_traceback():
    [line] = logged('try:\n    1 / 0\nexcept ZeroDivisionError:\n    log.exception("failed")')

    assert "ZeroDivisionError" in line["exception"]
    assert "Traceback" in line["exception"]


def test_fields_bound_to_a_request_stand_in_its_lines_only():
    first, second = logged('with logs.bound(request="r1"): log.info("a")\nlog.info("b")')

    assert first["request"] == "r1"
    assert "request" not in second
