"""Writes what docs/ tells from the code itself: docs/api.md from the protos, docs/metrics.md.

usage: scripts/docs.py [OUT]
"""

import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from google.protobuf import descriptor_pb2 as pb

from mesh import metrics
from mesh.bounds import described
from whimbrel.access.v1 import access_pb2
from whimbrel.bounds.v1 import bounds_pb2
from whimbrel.error.v1 import reason_pb2, status_pb2

ROOT = Path(__file__).parents[1]
_API_HEAD = """# API

Every rpc, message and field, as `proto/` says it. Made by `make gen`; do not edit.

**Callers**: *anyone* and a *device* call at a gateway, a device with its access token in the
metadata `authorization`; an internal *team*, and a service of the mesh (named), call the answering
service at its internal listener, by a certificate.

Statuses carry a `google.rpc.ErrorInfo` of the domain `whimbrel`; its reasons are those of
[`whimbrel.error.v1.ErrorReason`](#whimbrelerrorv1).
"""
_METRICS_HEAD = """# Metrics

Every metric of every service, as `mesh/metrics.py` says it. Made by `make gen`; do not edit.

OTLP sends them to `WHIMBREL_<SERVICE>_TELEMETRY__OTLP_ENDPOINT`; the Prometheus endpoint replaces
the dots by `_`. Labels are small closed sets, never a person.

| metric | unit | meaning |
|---|---|---|
"""
_TYPES = {
    getattr(pb.FieldDescriptorProto, name): name.removeprefix("TYPE_").lower()
    for name in pb.FieldDescriptorProto.Type.keys()  # noqa: SIM118  an enum wrapper, no dict
}
# The numbers of fields in descriptor.proto, of which a location's path is made.
_MESSAGE, _ENUM, _SERVICE, _NESTED, _FIELD, _VALUE, _METHOD, _PACKAGE = 4, 5, 6, 3, 2, 2, 2, 2


def main() -> None:
    """Write both files."""
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs"
    out.mkdir(parents=True, exist_ok=True)
    (out / "api.md").write_text("\n".join(_api()) + "\n")
    (out / "metrics.md").write_text(_METRICS_HEAD + "".join(_metrics()))


def _metrics() -> Iterator[str]:
    for metric in vars(metrics).values():
        if isinstance(metric, metrics.Metric):
            yield f"| `{metric.name}` | {metric.unit} | {metric.meaning} |\n"


def _api() -> Iterator[str]:
    yield _API_HEAD
    for package, files in _by_package(_files()).items():
        yield f"## {package}\n"
        documented = [_Documented(file) for file in files]
        for one in documented:
            yield from one.introduction()
        for one in documented:
            yield from one.services()
        for one in documented:
            yield from one.types()


def _files() -> list[pb.FileDescriptorProto]:
    """The descriptors of all protos, with their comments."""
    with tempfile.NamedTemporaryFile(suffix=".binpb") as built:
        command = [str(Path(sys.executable).parent / "buf"), "build", "-o", built.name]
        subprocess.run(command, check=True, cwd=ROOT)
        files = pb.FileDescriptorSet.FromString(Path(built.name).read_bytes())
    return [file for file in files.file if file.package.startswith("whimbrel.")]


def _by_package(
    files: Iterable[pb.FileDescriptorProto],
) -> dict[str, list[pb.FileDescriptorProto]]:
    packages: dict[str, list[pb.FileDescriptorProto]] = {}
    for file in sorted(files, key=lambda file: (file.package, file.name)):
        packages.setdefault(file.package, []).append(file)
    return packages


class _Documented:
    """One proto and its comments, by path."""

    def __init__(self, file: pb.FileDescriptorProto) -> None:
        self._file = file
        self._comments = {
            tuple(location.path): location.leading_comments.strip()
            for location in file.source_code_info.location
        }

    def introduction(self) -> Iterator[str]:
        comment = self._comment(_PACKAGE)
        if comment:
            yield f"{comment}\n"

    def services(self) -> Iterator[str]:
        for place, service in enumerate(self._file.service):
            yield f"### service {service.name}\n"
            yield f"{self._comment(_SERVICE, place, paragraphs=True)}\n"
            yield "| rpc | callers | |\n|---|---|---|"
            for number, method in enumerate(service.method):
                comment = self._comment(_SERVICE, place, _METHOD, number)
                callers = ", ".join(_callers(method))
                yield f"| **{method.name}**({_sides(method)} | {callers} | {comment} |"
            yield ""

    def types(self) -> Iterator[str]:
        for place, message in enumerate(self._file.message_type):
            yield from self._message(message, message.name, (_MESSAGE, place))
        for place, enum in enumerate(self._file.enum_type):
            yield from self._enum(enum, enum.name, (_ENUM, place))

    def _message(
        self, message: pb.DescriptorProto, name: str, path: tuple[int, ...]
    ) -> Iterator[str]:
        if message.options.map_entry:
            return
        yield f"#### {name}\n\n{self._comment(*path, paragraphs=True)}\n"
        if message.field:
            yield "| field | type | bounds | |\n|---|---|---|---|"
        for number, field in enumerate(message.field):
            comment = self._comment(*path, _FIELD, number)
            oneof = ""
            if field.HasField("oneof_index") and not field.proto3_optional:
                oneof = f" *({message.oneof_decl[field.oneof_index].name})*"
            named = f"`{field.name}` = {field.number}{oneof}"
            yield f"| {named} | {_type(field)} | {_bounds(field)} | {comment} |"
        if message.field:
            yield ""
        for place, nested in enumerate(message.nested_type):
            yield from self._message(nested, f"{name}.{nested.name}", (*path, _NESTED, place))

    def _enum(
        self, enum: pb.EnumDescriptorProto, name: str, path: tuple[int, ...]
    ) -> Iterator[str]:
        yield f"#### {name}\n\n{self._comment(*path)}\n"
        yield "| value | |\n|---|---|"
        for number, value in enumerate(enum.value):
            comment = self._comment(*path, _VALUE, number) + _statuses(value)
            yield f"| `{value.name}` = {value.number} | {comment} |"
        yield ""

    def _comment(self, *path: int, paragraphs: bool = False) -> str:
        lines = [line.strip() for line in self._comments.get(path, "").splitlines()]
        if not paragraphs:
            return " ".join(filter(None, lines)).replace("|", "\\|")
        return "\n".join(lines)


def _callers(method: pb.MethodDescriptorProto) -> Sequence[str]:
    said = method.options.Extensions[access_pb2.access]
    kinds = [
        access_pb2.Caller.Name(caller).removeprefix("CALLER_").lower() for caller in said.callers
    ]
    return [*(kind for kind in kinds if kind != "service"), *said.services]


def _bounds(field: pb.FieldDescriptorProto) -> str:
    said = field.options.Extensions[bounds_pb2.bounds]
    is_repeated = field.label == pb.FieldDescriptorProto.LABEL_REPEATED
    name = field.type_name.removeprefix(".")
    allowed = described(said, type_=field.type, type_name=name, is_repeated=is_repeated)
    if said.pattern:
        allowed = f"`{allowed.replace('|', chr(92) + '|')}`"
    if said.reason:
        reason = reason_pb2.ErrorReason.Name(said.reason).removeprefix("ERROR_REASON_")
        allowed = f"{allowed}; else {reason}"
    return allowed


def _statuses(value: pb.EnumValueDescriptorProto) -> str:
    said = value.options.Extensions[status_pb2.statuses]
    names = [status_pb2.Status.Name(one).removeprefix("STATUS_") for one in said]
    return f" *{', '.join(names)}*" if names else ""


def _sides(method: pb.MethodDescriptorProto) -> str:
    asked = ("stream " if method.client_streaming else "") + _short(method.input_type)
    answered = ("stream " if method.server_streaming else "") + _short(method.output_type)
    return f"{asked}) → {answered}"


def _type(field: pb.FieldDescriptorProto) -> str:
    name = _short(field.type_name) if field.type_name else _TYPES[field.type]
    return f"repeated {name}" if field.label == pb.FieldDescriptorProto.LABEL_REPEATED else name


def _short(type_name: str) -> str:
    return type_name.removeprefix(".").rpartition(".")[2]


if __name__ == "__main__":
    main()
