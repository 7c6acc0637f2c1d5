"""What a relay behind a proxy takes for the address of its client: `address.py RELAY URL SCRATCH`."""

import asyncio
import ssl
import subprocess
import sys

from websockets.asyncio.client import connect

relay, url, scratch = sys.argv[1:]
tls = ssl.create_default_context(cafile=f"{scratch}/cert.pem")
own, invented = "127.0.0.9", "198.51.100.66"


async def main():
    arguments = ["token", "--key", f"{scratch}/host.key", "--room", "address", "--peer", "host", "--host", "--url", url]
    target = subprocess.run([relay, *arguments], check=True, capture_output=True, text=True).stdout.strip()
    headers = {"X-Forwarded-For": invented, "X-Real-IP": invented}
    async with connect(target, ssl=tls, local_addr=(own, 0), additional_headers=headers):
        # The relay has written the line before it let the client in.
        log = open(f"{scratch}/relay").read()
    joined = next(line for line in log.splitlines() if "joined" in line and "room=address" in line.replace('"', ""))
    assert f"ip={own}" in joined and invented not in log, joined
    print("the relay sees the address of the client, whatever that claims: ok")


asyncio.run(main())
