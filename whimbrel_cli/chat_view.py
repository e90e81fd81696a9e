"""What a chat looks like: in place on a terminal, a line a change anywhere else."""

import shutil
import sys
from datetime import datetime
from typing import Protocol
from unicodedata import east_asian_width

from whimbrel_cli.wording import words_of
from whimbrel_client import Message, Tick

_PLAIN = {Tick.WAITING: "…", Tick.SENT: "✓", Tick.DELIVERED: "✓✓", Tick.READ: "✓✓ read"}
# Two columns each, at the start of the line.
_COLOURED = {
    Tick.WAITING: "\x1b[2m… \x1b[0m",
    Tick.SENT: "\x1b[2m✓ \x1b[0m",
    Tick.DELIVERED: "\x1b[2m✓✓\x1b[0m",
    Tick.READ: "\x1b[94m✓✓\x1b[0m",
}
_PROMPT = "> "


class View(Protocol):
    """Shows one conversation."""

    def show(self, message: Message) -> None:
        """A message came."""

    def typed(self, line: str) -> int:
        """A line was typed; returns its number, for its ticks."""

    def tick(self, number: int, tick: Tick) -> None:
        """A typed line has got further."""

    def say(self, words: str) -> None:
        """Something about the chat itself."""

    def close(self) -> None:
        """The chat is over."""


def choose_view(*, own: str, other: str) -> View:
    """Fit for what the command is connected to."""
    is_terminal = sys.stdin.isatty() and sys.stdout.isatty()
    return TerminalView(own, other) if is_terminal else PlainView(other)


class PlainView:
    """For pipes and files."""

    def __init__(self, other: str) -> None:
        self._other = other
        self._ticks: list[Tick] = []

    def show(self, message: Message) -> None:
        self.say(f"{self._other}: {words_of(message)}")

    def typed(self, line: str) -> int:  # noqa: ARG002  # who types into a pipe knows it
        self._ticks.append(Tick.WAITING)
        return len(self._ticks)

    def tick(self, number: int, tick: Tick) -> None:
        if tick > self._ticks[number - 1]:
            self._ticks[number - 1] = tick
            self.say(f"{_PLAIN[tick]} line {number}")

    def say(self, words: str) -> None:
        print(words, flush=True)

    def close(self) -> None:
        pass


class TerminalView:
    """For a person at a terminal: the ticks stand before the lines and change in place."""

    def __init__(self, own: str, other: str) -> None:
        width = max(len(own), len(other))
        self._own = own.rjust(width)
        self._other = other.rjust(width)
        # Rows printed so far, and on which of them a typed line begins.
        self._rows = 0
        self._row_of: list[int] = []
        self._ticks: list[Tick] = []
        self._write(_PROMPT)

    def show(self, message: Message) -> None:
        time = message.accepted_at.astimezone()
        self._print(f"   {time:%H:%M} \x1b[1m{self._other}\x1b[0m  ", words_of(message))

    def typed(self, line: str) -> int:
        # The terminal has echoed it below the prompt: put it where the conversation is.
        rows = _rows_of(len(_PROMPT) + _width(line))
        self._write(f"\x1b[{rows}A\r\x1b[J")
        self._row_of.append(self._rows)
        self._ticks.append(Tick.WAITING)
        tick, now = _COLOURED[Tick.WAITING], datetime.now().astimezone()
        self._print(f"{tick} {now:%H:%M} {self._own}  ", line)
        return len(self._ticks)

    def tick(self, number: int, tick: Tick) -> None:
        if tick <= self._ticks[number - 1]:
            return
        self._ticks[number - 1] = tick
        up = self._rows - self._row_of[number - 1]
        if up < shutil.get_terminal_size().lines:
            # Save the cursor, go there, write two columns, come back.
            self._write(f"\x1b7\x1b[{up}A\r{_COLOURED[tick]}\x1b8")

    def say(self, words: str) -> None:
        self._print("\x1b[2m", f"{words}\x1b[0m")

    def close(self) -> None:
        self._write("\r\x1b[K")

    def _print(self, head: str, words: str) -> None:
        """Put a line above the prompt. What is half typed stays in the terminal's own buffer."""
        shown = f"{head}{words}"
        self._rows += _rows_of(_width(_without_codes(shown)))
        self._write(f"\r\x1b[K{shown}\n{_PROMPT}")

    def _write(self, shown: str) -> None:
        sys.stdout.write(shown)
        sys.stdout.flush()


def _without_codes(shown: str) -> str:
    text, _, rest = shown.partition("\x1b[")
    while rest:
        _, _, rest = rest.partition("m")
        more, _, rest = rest.partition("\x1b[")
        text += more
    return text


def _width(text: str) -> int:
    return sum(2 if east_asian_width(character) in "WF" else 1 for character in text)


def _rows_of(width: int) -> int:
    columns = shutil.get_terminal_size().columns
    return max(1, -(-width // columns))
