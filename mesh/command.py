"""The command line of a service: an instance, its settings, or a step of the service's own."""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from mesh.server import run_until_signalled
from mesh.settings import Settings, describe, load

_MISUSED = 2

S = TypeVar("S", bound=Settings)


@dataclass(frozen=True, slots=True)
class Step:
    """Something that is done once, beside the instances: its exit code is the command's.

    `run` takes what the command line gives for `parameters`; None: that is misused.
    """

    meaning: str
    run: Callable[..., Coroutine[Any, Any, int] | None]
    parameters: Sequence[str] = ()


def main(
    package: str,
    settings: type[S],
    serve: Callable[[S, asyncio.Event], Awaitable[None]],
    steps: Mapping[str, Step] | None = None,
) -> int:
    """Do what the command line says and return the exit code."""
    steps = steps or {}
    match sys.argv[1:]:
        case []:
            loaded = load(settings)
            run_until_signalled(lambda stop: serve(loaded, stop))
            return 0
        case ["settings"]:
            sys.stdout.write(f"{describe(settings)}\n")
            return 0
        case [name, *values] if name in steps and len(values) == len(steps[name].parameters):
            running = steps[name].run(*values)
            if running is not None:
                return asyncio.run(running)
    sys.stderr.write(_usage(package, steps))
    return _MISUSED


def _usage(package: str, steps: Mapping[str, Step]) -> str:
    lines = [("", "run an instance"), (" settings", "print every setting")]
    lines += [
        ("".join(f" {word}" for word in (name, *step.parameters)), step.meaning)
        for name, step in steps.items()
    ]
    width = max(len(words) for words, _ in lines)
    return "usage:\n" + "".join(
        f"  python -m {package}{words:{width}}  {meaning}\n" for words, meaning in lines
    )
