"""Who may call which rpc, as its proto says; an rpc that says nothing is refused to everybody."""

import functools
from contextvars import ContextVar
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import grpc
import structlog
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import ServiceDescriptor

from mesh.errors import PermissionDenied
from mesh.interceptors import Behaviour, Continuation, Handler, wrapped
from mesh.options import option
from mesh.tls import peer_of

log = structlog.get_logger(__name__)

_HEALTH = "/grpc.health.v1.Health/"
# The two names of gRPC's reflection, on internal listeners.
REFLECTION = tuple(
    f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo"
    for version in ("v1", "v1alpha")
)

# The options of proto/whimbrel/access/v1/access.proto, which every proto with an rpc imports.
_ACCESS = "whimbrel.access.v1.access"
_ANSWERED_BY = "whimbrel.access.v1.answered_by"
_GATEWAY, _OPERATOR = "gateway", "operator"
# An operator is one as well: what one may do is named, and no team may. So is what the gateways of
# `whimbrel up` show to devices, which no proto names. Any other name in a certificate is that of an
# internal team.
_SERVICES = frozenset({_GATEWAY, "message", "presence", "push", "media", _OPERATOR, "clients"})


class Caller(IntEnum):
    """A kind of caller, numbered as in the proto."""

    ANYONE = 1
    DEVICE = 2
    SERVICE = 3
    TEAM = 4


@dataclass(frozen=True, slots=True)
class Access:
    """Who may call an rpc, and which service of the mesh answers it."""

    callers: frozenset[Caller]
    services: frozenset[str]
    answered_by: str

    @property
    def is_for_clients(self) -> bool:
        """Whether gateways offer it."""
        return not self.callers.isdisjoint((Caller.ANYONE, Caller.DEVICE))

    def admits(self, service: str) -> bool:
        """Whether a service may call at an internal listener; a gateway speaks for devices."""
        if service == _GATEWAY and self.is_for_clients:
            return True
        if service in _SERVICES:
            return Caller.SERVICE in self.callers and service in self.services
        return Caller.TEAM in self.callers


def access_of(service: ServiceDescriptor) -> dict[str, Access]:
    """What a service's proto says of its rpcs, by method: `/package.Service/Rpc`."""
    answered_by = option(service, _ANSWERED_BY) or ""
    accesses = {}
    for method in service.methods:
        said = option(method, _ACCESS)
        if said is not None:
            callers = frozenset(map(Caller, said.callers))
            access = Access(callers, frozenset(said.services), answered_by)
            accesses[f"/{service.full_name}/{method.name}"] = access
    return accesses


# Who may call what is gRPC's own, and whose protos cannot say it.
_OPERATORS = Access(frozenset({Caller.SERVICE}), frozenset({_OPERATOR}), "")
_OF_GRPC = dict.fromkeys(REFLECTION, _OPERATORS)

_caller: ContextVar[str] = ContextVar("caller")


def caller() -> str:
    """The service or team that called, inside a handler behind AccessInterceptor."""
    return _caller.get()


class AccessInterceptor(grpc.aio.ServerInterceptor):
    """Refuses callers that the proto does not name; health is open to all who can connect."""

    def __init__(self, *, is_secure: bool) -> None:
        """`is_secure`: callers are known by their certificates."""
        self._is_secure = is_secure
        self._known: dict[str, Access | None] = {**_OF_GRPC}

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler:
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or method.startswith(_HEALTH):
            return handler
        if method not in self._known:  # it has a handler: such methods are few
            self._known[method] = _access_of_method(method)
        return wrapped(handler, functools.partial(self._checked, self._known[method]))

    def _checked(self, access: Access | None, behaviour: Behaviour) -> Behaviour:
        @functools.wraps(behaviour)
        async def checked(request: Any, context: Any) -> Any:
            service = peer_of(context, is_secure=self._is_secure)
            if access is None or not service or not access.admits(service):
                raise PermissionDenied("the method is not for this caller")
            _caller.set(service)
            return await behaviour(request, context)

        return checked


def _access_of_method(method: str) -> Access | None:
    service = method.split("/")[1]
    try:
        access = access_of(descriptor_pool.Default().FindServiceByName(service)).get(method)
    except KeyError:  # made without a proto
        access = None
    if access is None:
        log.error("an rpc without the option access is refused to everybody", method=method)
    return access
