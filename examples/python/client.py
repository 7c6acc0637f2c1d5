"""Opens a room, or joins one: `client.py ws://HOST:PORT/ws NAME` or `client.py INVITATION NAME`.
Lines are said; `/voice` sends a second of it, the end of the input leaves. Needs websockets and PyNaCl.
"""

import asyncio
import contextlib
import itertools
import random
import sys
import threading
import time

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from session import VOICE, Session


def tell(text):
    if text:
        print("".join(c if c.isprintable() else "?" for c in text), flush=True)


def pause(error, attempt):
    """How long to wait before the next attempt, with full jitter. None: it would end in the same way."""
    jitter = random.uniform(0, min(30, 2**attempt))
    if isinstance(error, InvalidStatus):
        after = error.response.headers.get("Retry-After", "0" if error.response.status_code >= 500 else "")
        return int(after) + jitter if after.isdigit() else None
    if isinstance(error, ConnectionClosed) and error.rcvd:
        return jitter if error.rcvd.code in (1012, 1013) or error.rcvd.reason == "ping timeout" else None
    return jitter  # no close frame, no connection, no handshake: the network


async def hear(session, socket, data):
    if data.startswith(VOICE):
        return tell(session.hear_packet(data))
    for kind, sender, text in map(session.open, data.split(b"\n")):  # messages that waited may come joined
        tell(sender + {"chat": f": {text}", "session:leave": " has left"}.get(kind, " is here"))
        if kind == "hello":
            await socket.send(session.message("here"))


async def talk(session, socket, lines):
    packets = itertools.count()
    while (line := await lines.get()) is not None:
        if line != "/voice":
            await socket.send(session.message("chat", line))
            continue
        for number in itertools.islice(packets, 50):
            await socket.send(session.packet(number))
            await asyncio.sleep(0.02)
    await socket.close()


async def call(session, lines):
    async with connect(session.url()) as socket:
        tell("joined")
        await socket.send(session.message("hello"))  # the relay learns the name, too
        talking = asyncio.create_task(talk(session, socket, lines))
        try:
            while True:
                data = await socket.recv()
                with contextlib.suppress(*session.FOREIGN):
                    await hear(session, socket, data)
        finally:
            talking.cancel()
            await asyncio.wait([talking])


async def main(url, name):
    session, lines, loop = Session(url, name), asyncio.Queue(), asyncio.get_running_loop()

    def read():
        for line in itertools.chain(map(str.strip, sys.stdin), [None]):
            loop.call_soon_threadsafe(lines.put_nowait, line)

    threading.Thread(target=read, daemon=True).start()
    if session.is_host:
        tell(f"invitation: {session.invitation()}")
    attempt = -1
    while True:
        began = time.monotonic()
        try:
            await call(session, lines)
        except (OSError, ConnectionClosed, InvalidHandshake) as error:
            if isinstance(error, ConnectionClosed) and error.sent and error.sent.code == 1000:
                return 0  # we left
            attempt = 0 if time.monotonic() - began > 60 else attempt + 1
            if (wait := pause(error, attempt)) is None:
                tell(f"{error}: not again")
                return 1
            tell(f"{error}: again in {wait:.1f} s")
            await asyncio.sleep(wait)


if __name__ == "__main__":
    sys.exit(asyncio.run(main(*sys.argv[1:])) if len(sys.argv) == 3 else __doc__)
