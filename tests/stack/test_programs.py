import asyncio
import os
import signal
import sys
from pathlib import Path

import psutil
import pytest

from whimbrel_cli.stack.errors import DidNotStart
from whimbrel_cli.stack.programs import Command, Program, State

_SLEEPER = [sys.executable, "-c", "import time; time.sleep(60)"]
_DEAF = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("deaf", flush=True)
time.sleep(60)
"""


async def _always() -> bool:
    return True


async def _never() -> bool:
    return False


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "logs" / "program.log"


async def test_a_program_goes_from_waiting_to_ready_to_stopped(log) -> None:
    program = Program(Command("sleeper", _SLEEPER, log))
    states = [program.state]

    program.start()
    states.append(program.state)
    await program.until_ready(_always)
    states.append(program.state)
    await program.stop()
    states.append(program.state)

    assert states == [State.WAITING, State.STARTING, State.READY, State.STOPPED]
    assert program.exit_code == -signal.SIGTERM


async def test_a_program_that_ends_early_is_reported_with_its_last_words(log) -> None:
    program = Program(Command("brief", [sys.executable, "-c", "exit('out of luck')"], log))

    program.start()
    with pytest.raises(DidNotStart) as refused:
        await program.until_ready(_never)

    assert "exit code 1" in str(refused.value)
    assert "out of luck" in str(refused.value)


async def test_a_program_that_never_answers_is_reported(log) -> None:
    program = Program(Command("mute", _SLEEPER, log))

    program.start()
    with pytest.raises(DidNotStart, match="mute did not start: not ready"):
        await program.until_ready(_never, seconds=0.1)

    await program.stop()


async def test_a_program_that_does_not_want_to_stop_is_killed(log) -> None:
    command = Command("deaf", [sys.executable, "-c", _DEAF], log, stop_seconds=0.2)
    program = Program(command)

    async def is_deaf() -> bool:
        return "deaf" in log.read_text()

    program.start()
    await program.until_ready(is_deaf)
    await program.stop()

    assert program.exit_code == -signal.SIGKILL


async def test_a_program_dies_with_the_process_that_started_it(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    starter = f"""
import time
from pathlib import Path
from whimbrel_cli.stack.programs import Command, Program
program = Program(Command("child", {_SLEEPER!r}, Path({str(tmp_path / "log")!r})))
program.start()
Path({str(pid_file)!r}).write_text(str(program.pid))
time.sleep(60)
"""
    parent = Program(Command("parent", [sys.executable, "-c", starter], tmp_path / "parent.log"))

    async def has_child() -> bool:
        return pid_file.exists() and bool(pid_file.read_text())

    parent.start()
    await parent.until_ready(has_child)
    child = psutil.Process(int(pid_file.read_text()))
    parent.kill(signal.SIGKILL)
    await parent.ended()

    async with asyncio.timeout(10):
        while child.is_running() and child.status() != psutil.STATUS_ZOMBIE:
            await asyncio.sleep(0.01)


async def test_secrets_of_a_command_are_not_shown() -> None:
    command = Command("x", ["x"], Path("log"), env={"PASSWORD": "hidden"})

    assert "hidden" not in repr(command)


async def test_a_kill_after_the_end_harms_nobody(log) -> None:
    program = Program(Command("brief", [sys.executable, "-c", ""], log))

    program.start()
    await program.ended()
    program.kill()

    assert program.exit_code == 0
    assert program.pid != os.getpid()
