"""Follows the README as a reader would: `readme.py CLONE`. Each `sh` block is typed into a terminal of its own."""

import atexit
import os
import re
import socket
import sys
from urllib.request import urlopen

import pexpect

clone = sys.argv[1]
BUILD_SECONDS, ANSWER_SECONDS = 900, 120


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [str(each.getsockname()[1]) for each in sockets]
    for each in sockets:
        each.close()
    return ports


# Whatever else runs on this machine may have the README's ports.
clients, metrics = free_ports(2)
environment = os.environ | {"RELAY_ADDR": f"127.0.0.1:{clients}", "npm_config_yes": "true"}


def here(text):
    return text.replace("8443", clients).replace("9090", metrics)


def terminal(commands):
    commands = here(commands)
    print(f"$ {commands}", end="", flush=True)
    # Wide enough for a token on one line.
    shell = pexpect.spawn(
        "bash", ["-euc", commands], cwd=clone, env=environment, encoding="utf-8", dimensions=(50, 2000)
    )
    # A hang-up alone would have a relay read its certificate anew.
    atexit.register(shell.close, force=True)
    return shell


def run(commands):
    """All that a command prints, if it ends well."""
    shell = terminal(commands)
    shell.expect(pexpect.EOF, timeout=ANSWER_SECONDS)
    shell.close()
    assert shell.exitstatus == 0, f"status {shell.exitstatus}: {shell.before}"
    return shell.before


def expect(shell, text, seconds=ANSWER_SECONDS):
    shell.expect_exact(text, timeout=seconds)


with open(f"{clone}/README.md", encoding="utf-8") as file:
    readme = file.read()
blocks = re.findall(r"^```sh ?(\w*)\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL)
roles, texts = zip(*blocks)
assert roles == ("server", "host", "", "guest"), f"the README has other blocks than this script: {roles}"
start, open_room, invite, join = texts

server = terminal(start)
expect(server, "listening", BUILD_SECONDS)
host = terminal(open_room)
expect(host, "Connected")
invitation = run(invite)
assert re.fullmatch(rf"ws://127\.0\.0\.1:{clients}/ws\?room=lobby&token=[\w.-]+\s*", invitation), invitation
guest = terminal(join)
expect(guest, "Connected")

guest.sendline("hello host")
expect(host, "< hello host")
host.sendline("hello ann")
expect(guest, "< hello ann")

pages = re.findall("<(http://127.0.0.1:.*?)>", readme)
shown = ["<h1>Serving</h1>", "dashboard.js", 'relay_connections{role="guest"} 1']
for page, part in zip(pages, shown, strict=True):
    with urlopen(here(page), timeout=ANSWER_SECONDS) as answer:
        assert part in answer.read().decode(), f"{part} is not at {page}"

guest.sendintr()
expect(host, '{"id":"","type":"session:leave","from":"ann",')
host.sendintr()
server.sendintr()
server.expect(pexpect.EOF, timeout=ANSWER_SECONDS)
server.close()
assert server.exitstatus == 0, f"the relay ended with {server.exitstatus}"
print("relay up, invitation minted, two clients talked, pages seen, relay ended in good order: ok")
