import stat
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from tests.svc_media.store import bucket_of, signed
from whimbrel_cli.stack.seaweed import Seaweed
from whimbrel_cli.stack.servers import Server


async def test_the_object_store_keeps_its_keys_its_port_and_what_it_has_over_a_kill(
    tmp_path: Path,
) -> None:
    server = Server(Seaweed(tmp_path / "seaweed"), log=tmp_path / "seaweed.log")
    async with httpx.AsyncClient() as http:
        try:
            await server.start()
            address, bucket = server.address, bucket_of(server.address)
            (await http.put(signed(bucket, "PUT", ""))).raise_for_status()
            (await http.put(signed(bucket, "PUT", "kept"), content=b"x")).raise_for_status()

            await server.kill()
            await server.start()

            assert server.address == address
            assert (await http.get(signed(bucket, "GET", "kept"))).content == b"x"
        finally:
            await server.stop()

    secrets = [tmp_path / "seaweed" / name for name in ("secret-key", "identities.json")]
    assert [stat.S_IMODE(path.stat().st_mode) for path in secrets] == [0o600, 0o600]
    assert secrets[0].read_text() not in (tmp_path / "seaweed.log").read_text()


async def test_nobody_reads_the_bucket_without_a_signature(s3_url: str) -> None:
    bucket, split = bucket_of(s3_url), urlsplit(s3_url)
    async with httpx.AsyncClient() as http:
        await http.put(signed(bucket, "PUT", ""))
        (await http.put(signed(bucket, "PUT", "closed"), content=b"x")).raise_for_status()

        origin = f"{split.scheme}://{split.hostname}:{split.port}{split.path}"
        answers = [await http.get(f"{origin}{path}") for path in ("", "/closed")]

    assert [answer.status_code for answer in answers] == [403, 403]
