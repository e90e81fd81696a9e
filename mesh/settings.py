"""The knobs of a service: read once, from the environment, checked all at once.

Nothing else reads the environment. A value that is not understood stops the start.
"""

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, SettingsConfigDict

_DELIMITER = "__"
_BAD_SETTINGS = 2


class Section(BaseModel):
    """A group of knobs inside a service's settings."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, hide_input_in_errors=True
    )


class Settings(BaseSettings):
    """The base of each service's settings: set `env_prefix`, describe knobs by docstrings."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_nested_delimiter=_DELIMITER,
        use_attribute_docstrings=True,
        hide_input_in_errors=True,
        validate_default=True,
    )


S = TypeVar("S", bound=Settings)


@dataclass(frozen=True, slots=True)
class Holds:
    """Beside a knob that names a file: `load` raises if it is bad, without quoting it."""

    load: Callable[[Path], object]


def load(settings: type[S], *, part_of: type[Settings] | None = None) -> S:
    """Read the settings, or name everything that is wrong with them and exit with 2.

    A command that needs a few of a service's settings runs in the service's environment: what the
    service knows, `part_of`, is no mistake there.
    """
    complaints = [f"{name}: no such setting" for name in _unknown(part_of or settings, os.environ)]
    complaints += _misfilled(settings, os.environ)
    try:
        loaded = settings()
    except ValidationError as error:
        complaints += _complaints(settings, error)
    if not complaints:
        return loaded
    for complaint in complaints:
        sys.stderr.write(f"{complaint}\n")
    raise SystemExit(_BAD_SETTINGS)


def describe(settings: type[Settings]) -> str:
    """Every knob with its default and what it does, a line or two each; never a value in use."""
    lines = []
    for name, field in _knobs(settings):
        default = "required" if field.is_required() else f"default {_shown(field)}"
        lines.append(f"{name}  ({default})")
        if field.description:
            lines.append(f"    {' '.join(field.description.split())}")
    return "\n".join(lines)


def _prefix(settings: type[Settings]) -> str:
    return str(settings.model_config.get("env_prefix", "")).upper()


def _unknown(settings: type[Settings], environment: Mapping[str, str]) -> list[str]:
    prefix = _prefix(settings)
    known = {name for name, _ in _knobs(settings)} | _sections(settings)
    present = (name for name in environment if name.upper().startswith(prefix))
    return sorted(name for name in present if name.upper() not in known)


def _misfilled(settings: type[Settings], environment: Mapping[str, str]) -> Iterator[str]:
    """What is wrong with what files hold; that one is not there is told by its setting."""
    given = {name.upper(): Path(value) for name, value in environment.items() if value}
    for name, field in _knobs(settings):
        path = given.get(name)
        if path is None or not path.is_file():
            continue
        for holds in field.metadata:
            if isinstance(holds, Holds):
                try:
                    holds.load(path)
                except (OSError, ValueError) as error:
                    yield f"{name}: {error}"


def _complaints(settings: type[Settings], error: ValidationError) -> Iterator[str]:
    # Neither the input nor the context is shown: either may hold a secret.
    for detail in error.errors(include_input=False, include_context=False, include_url=False):
        path = _DELIMITER.join(str(part) for part in detail["loc"]).upper()
        yield f"{_prefix(settings)}{path}: {detail['msg']}"


def _knobs(settings: type[Settings]) -> Iterator[tuple[str, FieldInfo]]:
    yield from _fields(settings, _prefix(settings))


def _fields(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, FieldInfo]]:
    for name, field in model.model_fields.items():
        section = _section_of(field)
        if section is None:
            yield prefix + name.upper(), field
        else:
            yield from _fields(section, f"{prefix}{name.upper()}{_DELIMITER}")


def _sections(settings: type[Settings]) -> set[str]:
    prefix = _prefix(settings)
    fields = settings.model_fields.items()
    return {prefix + name.upper() for name, field in fields if _section_of(field)}


def _section_of(field: FieldInfo) -> type[BaseModel] | None:
    annotation = field.annotation
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return None


def _shown(field: FieldInfo) -> Any:
    default = field.get_default(call_default_factory=False)
    return "(secret)" if isinstance(default, SecretStr) else default
