"""The SDK registers by phone number and one-time code on the real mesh, and finds people so."""

import hashlib
import secrets
from datetime import timedelta
from pathlib import Path

import pytest

from tests.e2e.shards import on_each_shard
from whimbrel_cli.codes import sent_codes
from whimbrel_cli.stack.mesh import Mesh
from whimbrel_client import (
    CallFailed,
    Client,
    CodeInvalid,
    HandleUnknown,
    NumberTaken,
    RateLimited,
    RegistrationLocked,
)

MOST_TRIES = 5
_LASTS = """
SELECT expires_at - clock_timestamp() AS lasts FROM registration_code WHERE number_hash = $1
"""
_AGE = "UPDATE registration_code SET expires_at = clock_timestamp() WHERE number_hash = $1"
_LATER = "UPDATE registration_code SET next_at = now() WHERE number_hash = $1"


class Phone:
    """A number, and what is sent to it."""

    def __init__(self, mesh: Mesh) -> None:
        self.number = f"+49151{secrets.randbelow(10**8):08}"
        self._mesh = mesh

    async def code(self) -> str:
        """Ask for a code, and read it."""
        await Client.request_code(self.number, gateways=self._mesh.gateway_addresses)
        return self.newest()

    def newest(self) -> str:
        (code,) = [
            sent.code for sent in sent_codes(self._mesh.data) if sent.phone_number == self.number
        ]
        return code

    async def register(self, profile: Path, handle: str, code: str, *, pin: str = "") -> bytes:
        account = await Client.register(
            profile,
            handle,
            gateways=self._mesh.gateway_addresses,
            number=self.number,
            code=code,
            pin=pin,
        )
        return account.user_id


@pytest.fixture
def phone(mesh: Mesh) -> Phone:
    return Phone(mesh)


@pytest.fixture
def handle() -> str:
    return f"p{secrets.token_hex(8)}"


def other(code: str) -> str:
    """A code that is wrong."""
    return f"{(int(code) + 1) % 10**6:06}"


async def test_a_code_makes_an_account_that_others_find_by_its_number(
    mesh: Mesh, phone: Phone, handle: str, tmp_path: Path
) -> None:
    user_id = await phone.register(tmp_path / "one", handle, await phone.code())
    stranger = f"p{secrets.token_hex(8)}"
    await Client.register(tmp_path / "two", stranger, gateways=mesh.gateway_addresses)

    async with Client.connect(tmp_path / "two") as client:
        found = await client.user_at(phone.number)
        with pytest.raises(HandleUnknown):
            await client.user_at(Phone(mesh).number)
        with pytest.raises(CallFailed, match="FIELD_INVALID"):
            await client.user_at("0151 234")

    assert found == user_id


async def test_a_wrong_code_a_used_one_and_none_are_refused(
    phone: Phone, handle: str, tmp_path: Path
) -> None:
    code = await phone.code()

    for wrong in (other(code), ""):
        with pytest.raises(CodeInvalid):
            await phone.register(tmp_path / "one", handle, wrong)
    await phone.register(tmp_path / "one", handle, code)
    with pytest.raises(CodeInvalid):
        await phone.register(tmp_path / "another phone", handle, code)


async def test_a_code_is_good_for_ten_minutes(
    mesh: Mesh, phone: Phone, handle: str, tmp_path: Path
) -> None:
    code, number_hash = await phone.code(), hashlib.sha256(phone.number.encode()).digest()
    (lasting,) = await on_each_shard(mesh, _LASTS, number_hash)
    await on_each_shard(mesh, _AGE, number_hash)

    with pytest.raises(CodeInvalid):
        await phone.register(tmp_path / "one", handle, code)
    await forget_the_pause(mesh, phone.number)
    await phone.register(tmp_path / "one", handle, await phone.code())

    assert timedelta(minutes=9) < lasting["lasts"] <= timedelta(minutes=10)


async def test_after_too_many_guesses_the_right_code_is_refused_too(
    phone: Phone, handle: str, tmp_path: Path
) -> None:
    code = await phone.code()

    for _ in range(MOST_TRIES):
        with pytest.raises(CodeInvalid):
            await phone.register(tmp_path / "one", handle, other(code))
    with pytest.raises(CodeInvalid):
        await phone.register(tmp_path / "one", handle, code)
    with pytest.raises(RateLimited) as too_soon:
        await phone.code()

    assert too_soon.value.retry_after is not None
    assert 0 < too_soon.value.retry_after.total_seconds() <= 60


async def test_a_number_is_no_way_to_a_second_account(
    mesh: Mesh, phone: Phone, handle: str, tmp_path: Path
) -> None:
    code = await phone.code()
    await phone.register(tmp_path / "one", handle, code)

    with pytest.raises(NumberTaken) as taken:
        await phone.register(tmp_path / "one", f"p{secrets.token_hex(8)}", code)

    assert taken.value.handle == handle


async def test_a_locked_number_asks_a_new_phone_for_its_pin(
    mesh: Mesh, phone: Phone, handle: str, tmp_path: Path
) -> None:
    user_id = await phone.register(tmp_path / "old", handle, await phone.code())
    async with Client.connect(tmp_path / "old") as client:
        await client.set_registration_lock("2580")
    await forget_the_pause(mesh, phone.number)
    code = await phone.code()

    for wrong in ("", "0852"):
        with pytest.raises(RegistrationLocked):
            await phone.register(tmp_path / "new", handle, code, pin=wrong)
    again = await phone.register(tmp_path / "new", handle, code, pin="2580")

    assert again == user_id


async def forget_the_pause(mesh: Mesh, number: str) -> None:
    """As if a minute had passed since the last code was sent."""
    number_hash = hashlib.sha256(number.encode()).digest()
    await on_each_shard(mesh, _LATER, number_hash)
