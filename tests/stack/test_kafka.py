from pathlib import Path

from whimbrel_cli.stack.kafka import Kafka
from whimbrel_cli.stack.servers import Server


async def test_the_broker_keeps_its_port_over_a_kill(tmp_path: Path) -> None:
    server = Server(Kafka(), log=tmp_path / "kafka.log")
    try:
        await server.start()
        address = server.address
        await server.kill()
        assert not await Kafka().answers(server.port)

        await server.start()

        assert server.address == address
        assert await Kafka().answers(server.port)
    finally:
        await server.stop()
