"""Data and voice through a relay, with the `websockets` library: `third_party.py RELAY URL SCRATCH`."""

import asyncio
import ssl
import subprocess
import sys

from websockets.asyncio.client import connect

relay, url, scratch = sys.argv[1:]
tls = ssl.create_default_context(cafile=f"{scratch}/cert.pem") if url.startswith("wss") else None


def invite(room, peer, role):
    """The URL of a member, from the program itself."""
    arguments = ["token", "--key", f"{scratch}/host.key", "--room", room, "--peer", peer, role, "--url", url]
    return subprocess.run([relay, *arguments], check=True, capture_output=True, text=True).stdout.strip()


async def receive(member):
    return await asyncio.wait_for(member.recv(), 10)


async def main():
    async with connect(invite("Raum 1", "host", "--host"), ssl=tls) as host:
        async with connect(invite("Raum 1", "ann", "--guest"), ssl=tls) as guest:
            voice = b"KV" + bytes(range(118))
            for sender, receiver in [(host, guest), (guest, host)]:
                await sender.send('{"from":"%s","text":"hello"}' % ("host" if sender is host else "ann"))
                assert b'"hello"' in await receive(receiver)
                await sender.send(voice)
                assert await receive(receiver) == voice
                await sender.send(["in ", "frag", "ments"])
                assert await receive(receiver) == b"in fragments"
            large = bytes(1 << 20)
            await host.send(large)
            assert await receive(guest) == large
            await asyncio.wait_for(await host.ping(), 10)
        notice = await receive(host)
        assert b'"type":"session:leave","from":"ann"' in notice, notice
    print("third party: data, voice, fragments, 1 MiB, ping, leave notice: ok")


asyncio.run(main())
