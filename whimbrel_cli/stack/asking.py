"""How a server that is starting is asked whether it answers: by HTTP, on loopback."""

import asyncio

from whimbrel_cli.stack.ports import LOOPBACK


async def got(port: int, path: str) -> bytes:
    """What GET gives, head and all; nothing if nobody answers."""
    try:
        reader, writer = await asyncio.open_connection(LOOPBACK, port)
    except OSError:
        return b""
    try:
        writer.write(f"GET {path} HTTP/1.0\r\n\r\n".encode())
        return await reader.read()
    except OSError:
        return b""
    finally:
        writer.close()
