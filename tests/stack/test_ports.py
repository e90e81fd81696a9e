import os
import socket

import pytest

from whimbrel_cli.stack.errors import PortTaken
from whimbrel_cli.stack.ports import LOOPBACK, free_port, is_free, require_free


@pytest.fixture
def taken():
    with socket.socket() as listener:
        listener.bind((LOOPBACK, free_port()))
        listener.listen()
        yield listener.getsockname()[1]


def test_a_free_port_can_be_listened_on() -> None:
    port = free_port()

    assert is_free(port)
    require_free(port, "anybody")


def test_a_taken_port_is_named_with_its_holder(taken) -> None:
    with pytest.raises(PortTaken) as refused:
        require_free(taken, "etcd")

    assert f"port {taken}, wanted by etcd" in str(refused.value)
    assert f"pid {os.getpid()}" in str(refused.value)
