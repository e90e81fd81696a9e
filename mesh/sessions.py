"""What a session in Postgres has set, and how it comes to have it.

A connection says it at its start. PgBouncer refuses that, for its sessions serve many: there the
role has it set in its database, and each session of the server begins with it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

# Nobody need have set a variable of ours: then it is off.
_LACKING = """
SELECT name FROM unnest($1::text[], $2::text[]) AS wanted (name, value)
WHERE coalesce(current_setting(name, true), 'off') <> value
"""
_GIVEN = """
SELECT split_part(given, '=', 1), substr(given, strpos(given, '=') + 1)
FROM pg_db_role_setting, unnest(setconfig) AS given
WHERE setrole = current_user::regrole
  AND setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
# An ALTER takes no parameters; the names are ours.
_GIVE = """
SELECT format(
    'ALTER ROLE CURRENT_USER IN DATABASE %I SET ' || $1::text || ' = %L',
    current_database(), $2::text
)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How long a connection's owner may keep others waiting."""

    statement: timedelta = timedelta(seconds=2)
    lock: timedelta = timedelta(milliseconds=500)
    idle_in_transaction: timedelta = timedelta(seconds=5)
    connect: timedelta = timedelta(seconds=2)


def usual(limits: Limits) -> dict[str, str]:
    """What each session has set, by name."""
    return {
        "statement_timeout": _shown(limits.statement),
        "lock_timeout": _shown(limits.lock),
        "idle_in_transaction_session_timeout": _shown(limits.idle_in_transaction),
        # A custom plan is made anew for each batch, and the planner changes its mind at night.
        "plan_cache_mode": "force_generic_plan",
        # Every statement here has an index; a table that is small today need not be tomorrow.
        "enable_seqscan": "off",
        "jit": "off",
    }


async def give_role(connection: Any, variables: Mapping[str, str]) -> None:
    """Let sessions of the connection's own role in its database begin with these."""
    given = {row[0]: row[1] for row in await connection.fetch(_GIVEN)}
    for name, value in variables.items():
        is_ours = "." in name  # only a superuser, and who has the right, may give such a one
        if given.get(name, "off" if is_ours else None) != value:
            await connection.execute(await connection.fetchval(_GIVE, name, value))


async def lacking(connection: Any, variables: Mapping[str, str]) -> list[str]:
    """Those of the variables that the connection's session has not, or has otherwise."""
    names, values = list(variables), list(variables.values())
    return [row[0] for row in await connection.fetch(_LACKING, names, values)]


def _shown(span: timedelta) -> str:
    """A span as the server shows it, so that what is told can be compared with what is there."""
    milliseconds = int(span.total_seconds() * 1000)
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1000)):
        if milliseconds and milliseconds % size == 0:
            return f"{milliseconds // size}{unit}"
    return f"{milliseconds}ms" if milliseconds else "0"
