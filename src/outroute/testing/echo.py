"""A node in a process of its own that answers each frame with it: ``python -m outroute.testing.echo URL PORT SECRET``.

It prints its place, and ends when its standard input does, or when it is killed. A frame ``hang`` is printed and never
answered.
"""

from __future__ import annotations

import asyncio
import sys
import threading

from outroute.testing.making import identity
from outroute.transports.channel import Secrets
from outroute.transports.registry import link_of

__all__ = ["main"]


def main() -> None:
    """Listen until standard input ends."""
    url, port, secret = sys.argv[1:4]
    asyncio.run(_listen(url, int(port), Secrets((bytes.fromhex(secret),) if secret else ())))


async def _listen(url: str, port: int, secrets: Secrets) -> None:
    held = threading.Event()

    def echo(_: bytes, frame: bytes) -> list[bytes]:
        if frame == b"hang":
            print(frame.decode(), flush=True)
            held.wait()
        return [frame, frame[:1]]

    link = link_of(url)(identity(2), handle=echo, endpoint_of=lambda _: None, secrets=secrets)
    print(await link.listen(port=port), flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    held.set()
    await link.close()


if __name__ == "__main__":
    main()
