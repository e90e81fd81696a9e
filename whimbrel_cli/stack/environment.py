"""What our services are told at their start: files in the data directory, and settings."""

import json
import secrets
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from mesh.authority import Authority
from mesh.keys import KeySet
from mesh.tls import TlsSettings
from whimbrel_cli.providers.credentials import Credentials
from whimbrel_cli.stack.files import write_private
from whimbrel_cli.stack.servers import Server
from whimbrel_cli.stack.stack import Stack

# As whom `whimbrel events` calls.
EVENTS_READER = "whimbrel-events"
# As whom `whimbrel admin` calls.
OPERATOR = "operator"

# On one machine everybody who registers comes from one address, and one may send a whole book.
_WIDE = {"burst": 1_000_000, "per_second": 1_000}
_LIMITS = {"registrations": _WIDE, "sends": _WIDE, "recipient": _WIDE}


def codes_file(data: Path) -> Path:
    """Where the mesh on a data directory leaves the codes that a real one sends to phones."""
    return data / "codes.jsonl"


def pushes_file(data: Path) -> Path:
    """Where the simulators of push providers write down what arrives."""
    return data / "pushes.jsonl"


def observed_folder(data: Path) -> Path:
    """Where the collector of a mesh that is observed writes traces and metrics."""
    return data / "observed"


def observing(service: str, collector: str) -> dict[str, str]:
    """What has a service tell everything, soon, to a collector."""
    prefix = f"WHIMBREL_{service.upper()}_TELEMETRY__"
    return {
        f"{prefix}OTLP_ENDPOINT": collector,
        f"{prefix}SAMPLED": "1",
        # Of the OpenTelemetry SDK, in milliseconds.
        "OTEL_BSP_SCHEDULE_DELAY": "500",
        "OTEL_METRIC_EXPORT_INTERVAL": "5000",
    }


# No service: nobody lets it call anything.
_SHOWN_TO_CLIENTS = "clients"
_LOOPBACKS = ("127.0.0.1", "::1")
SERVICES = ("gateway", "message", "presence", "push", "media")


def tls_settings(data: Path, name: str) -> TlsSettings:
    """Who a service, or a team, is in the mesh on a data directory."""
    directory = data / "tls"
    if not (directory / f"{name}.pem").exists():
        return TlsSettings(insecure=True)
    return TlsSettings(
        certificate=directory / f"{name}.pem",
        key=directory / f"{name}-key.pem",
        ca=directory / "ca.pem",
    )


class Environment:
    """The files and settings that the instances of one mesh share."""

    def __init__(
        self, data: Path, stack: Stack, *, insecure: bool = False, client_tls: bool = False
    ) -> None:
        self._stack = stack
        self._shards = data / "shards.json"
        self._codes = codes_file(data)
        self._push_keys = data / "keys" / "push-tokens.json"
        self._token_keys = _KeyPair(data / "keys", "token")
        self._tls = data / "tls"
        self._data = data
        self._is_insecure = insecure
        self.client_ca = self._tls / "ca.pem" if client_tls else None

    def write(self, shards: Mapping[str, str]) -> None:
        """Write what the services read; keys are made the first time and kept."""
        write_private(self._shards, json.dumps(shards, indent=2) + "\n")
        self._token_keys.make()
        # Anew at each start, so that none gets old; the authority stays.
        if not self._is_insecure:
            authority = Authority.at(self._tls)
            for name in (*SERVICES, EVENTS_READER, OPERATOR):
                authority.issue(name)
        if self.client_ca is not None:
            Authority.at(self._tls).issue(_SHOWN_TO_CLIENTS, hosts=("localhost", *_LOOPBACKS))
        if not self._push_keys.exists():
            write_private(self._push_keys, json.dumps({"1": secrets.token_hex(32)}) + "\n")

    def of_migration(self) -> dict[str, str]:
        return {"WHIMBREL_MESSAGE_SHARDS": str(self._shards)}

    def of_message(self) -> dict[str, str]:
        return {
            **self.of_migration(),
            "WHIMBREL_MESSAGE_ETCD": self._stack.etcd_endpoint,
            "WHIMBREL_MESSAGE_REDIS_URL": self._stack.redis_url,
            "WHIMBREL_MESSAGE_TOKEN_KEY": str(self._token_keys.private),
            **self._of_tls("message"),
            "WHIMBREL_MESSAGE_FIRST_CONTACTS_A_DAY": str(_WIDE["burst"]),
            "WHIMBREL_MESSAGE_CODES_FILE": str(self._codes),
            "WHIMBREL_MESSAGE_EVENTS__READERS": json.dumps([EVENTS_READER]),
            **self._of_kafka(),
        }

    def _of_kafka(self) -> dict[str, str]:
        """With a broker, events are written; our own is one broker, and knows no producer's ids."""
        kafka = self._stack.kafka
        if kafka is None:
            return {}
        told = {
            "WHIMBREL_MESSAGE_EVENTS__IS_ON": "true",
            "WHIMBREL_MESSAGE_KAFKA__BOOTSTRAP": kafka.address,
        }
        if isinstance(kafka, Server):
            told["WHIMBREL_MESSAGE_KAFKA__REPLICAS"] = "1"
            told["WHIMBREL_MESSAGE_KAFKA__IS_IDEMPOTENT"] = "false"
        return told

    def of_gateway(self) -> dict[str, str]:
        return {
            "WHIMBREL_GATEWAY_ETCD": self._stack.etcd_endpoint,
            "WHIMBREL_GATEWAY_REDIS_URL": self._stack.redis_url,
            "WHIMBREL_GATEWAY_TOKEN_KEYS": str(self._token_keys.public),
            **self._of_tls("gateway"),
            **self._of_client_tls(),
            "WHIMBREL_GATEWAY_LIMITS": json.dumps(_LIMITS),
        }

    def of_presence(self) -> dict[str, str]:
        return {
            "WHIMBREL_PRESENCE_ETCD": self._stack.etcd_endpoint,
            "WHIMBREL_PRESENCE_REDIS_URL": self._stack.redis_url,
            **self._of_tls("presence"),
        }

    def of_media_stores(self, database: str) -> dict[str, str]:
        return {"WHIMBREL_MEDIA_DATABASE": database, **s3_settings(self._stack.s3_url)}

    def of_media(self, database: str) -> dict[str, str]:
        return {
            **self.of_media_stores(database),
            "WHIMBREL_MEDIA_ETCD": self._stack.etcd_endpoint,
            **self._of_tls("media"),
        }

    def _of_tls(self, service: str) -> dict[str, str]:
        prefix = f"WHIMBREL_{service.upper()}_TLS__"
        if self._is_insecure:
            return {f"{prefix}INSECURE": "true"}
        told = tls_settings(self._data, service)
        return {
            f"{prefix}CERTIFICATE": str(told.certificate),
            f"{prefix}KEY": str(told.key),
            f"{prefix}CA": str(told.ca),
        }

    def _of_client_tls(self) -> dict[str, str]:
        if self.client_ca is None:
            return {}
        return {
            "WHIMBREL_GATEWAY_CLIENT_TLS__CERTIFICATE": str(self._tls / f"{_SHOWN_TO_CLIENTS}.pem"),
            "WHIMBREL_GATEWAY_CLIENT_TLS__KEY": str(self._tls / f"{_SHOWN_TO_CLIENTS}-key.pem"),
        }

    def of_push_store(self, database: str) -> dict[str, str]:
        return {"WHIMBREL_PUSH_DATABASE": database}

    def of_push(self, database: str, providers: Credentials, url: str) -> dict[str, str]:
        return {
            **self.of_push_store(database),
            **providers.settings(url),
            "WHIMBREL_PUSH_ETCD": self._stack.etcd_endpoint,
            "WHIMBREL_PUSH_REDIS_URL": self._stack.redis_url,
            **self._of_tls("push"),
            "WHIMBREL_PUSH_TOKEN_KEYS": str(self._push_keys),
        }


def s3_settings(url: str) -> dict[str, str]:
    """A bucket's URL, with its keys, as svc_media is told of it."""
    split = urlsplit(url)
    host = split.netloc.rpartition("@")[2]
    settings = {
        "ENDPOINT": f"{split.scheme}://{host}",
        "BUCKET": split.path.strip("/"),
        "ACCESS_KEY": unquote(split.username or ""),
        "SECRET_KEY": unquote(split.password or ""),
        "IN_PATH": "true",
    }
    settings |= {name.upper(): value for name, value in parse_qsl(split.query)}
    return {f"WHIMBREL_MEDIA_S3_{name}": value for name, value in settings.items()}


class _KeyPair:
    """A private key file for who signs, a public one for who verifies."""

    def __init__(self, directory: Path, name: str) -> None:
        self.private = directory / f"{name}.json"
        self.public = directory / f"{name}-public.json"

    def make(self) -> None:
        self.private.parent.mkdir(mode=0o700, exist_ok=True)
        if not self.private.exists():
            KeySet.generate().save(self.private)
        if not self.public.exists():
            KeySet.load(self.private).save_public(self.public)
