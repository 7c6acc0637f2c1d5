"""The clients of `examples/` together in one room: `examples.py RELAY RUST_CLIENT SCRATCH`."""

import atexit
import functools
import http.server
import os
import re
import signal
import subprocess
import sys
import threading

from selenium.webdriver.common.by import By

from browser import DESKTOP, PHONE, browser, check_page, until

relay, rust, scratch = sys.argv[1:]
PATIENCE = 60
# More than a sentence needs, less than a client can be made to say.
MAX_MESSAGE_SIZE = 4096


class Relay:
    """A relay that can be started again at the same address."""

    def __init__(self):
        self.address = "127.0.0.1:0"
        self.start()

    def start(self):
        settings = {"RELAY_ADDR": self.address, "RELAY_DRAIN_SECONDS": "1", "RELAY_RATE_LIMIT_PER_IP": "0",
                    "RELAY_MAX_MESSAGE_SIZE": str(MAX_MESSAGE_SIZE)}
        self.process = subprocess.Popen([relay], env=os.environ | settings, stdout=subprocess.DEVNULL,
                                        stderr=subprocess.PIPE, text=True)
        atexit.register(self.process.kill)
        for line in self.process.stderr:
            if found := re.search(r"listening.*addr=([0-9.:]+)", line):
                self.address = found[1]
                break
        else:
            raise AssertionError("the relay did not start")
        threading.Thread(target=lambda log: [None for _ in log], args=[self.process.stderr], daemon=True).start()

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(PATIENCE) == 0

    def url(self):
        return f"ws://{self.address}/ws"


class Program:
    """A client that reads and writes lines."""

    def __init__(self, command, url, name):
        self.name, self.lines, self.more = name, [], threading.Condition()
        self.process = subprocess.Popen([*command, url, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.STDOUT, text=True)
        atexit.register(self.process.kill)
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        for line in self.process.stdout:
            with self.more:
                self.lines.append(line.rstrip("\n"))
                self.more.notify()

    def sees(self, pattern, times=1):
        """Waits until so many lines match, and returns the last match."""
        def matches():
            return [found for line in self.lines if (found := re.search(pattern, line))]

        with self.more:
            assert self.more.wait_for(lambda: len(matches()) >= times, PATIENCE), (self.name, pattern, self.lines)
            return matches()[-1]

    def invitation(self):
        return self.sees("^invitation: (.*)")[1]

    def says(self, line):
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def joins(self, times):
        self.sees("^joined$", times)

    def hears(self, speaker, text):
        self.sees(f"^{speaker}: {text}$")

    def is_told_not_to_come_back(self, why):
        self.sees(f"{why}.*: not again$")
        assert self.process.wait(PATIENCE) == 1

    def leaves(self):
        self.process.stdin.close()
        assert self.process.wait(PATIENCE) == 0, self.lines


class Page:
    """A client in a browser."""

    def __init__(self, origin, url, name, scheme="light", width=DESKTOP):
        self.name, self.origin, self.driver = name, origin, browser(scheme, width)
        atexit.register(self.driver.quit)
        self.driver.get(f"http://{origin}/index.html")
        self.fill("name", name)
        self.fill("url", url)
        picture(self.driver, f"start-{scheme}-{width}")
        self.id("enter").click()

    def id(self, name):
        return self.driver.find_element(By.ID, name)

    def fill(self, field, text):
        self.id(field).clear()
        self.id(field).send_keys(text)

    def items(self, selector):
        script = "return [...document.querySelectorAll(arguments[0])].map((item) => item.innerText)"
        return self.driver.execute_script(script, selector)

    def invitation(self):
        return until("an invitation", lambda: self.id("copy-url").get_dom_attribute("data-url"))

    def says(self, text):
        self.driver.execute_script("document.getElementById('text').value = arguments[0]", text)
        self.driver.execute_script("document.getElementById('say').requestSubmit()")

    def sees(self, selector, text, times=1):
        until(f"{text!r} on the page", lambda: self.items(selector).count(text) >= times)

    def joins(self, times):
        self.sees("#log .note", "joined", times)

    def hears(self, speaker, text):
        self.sees("#log li", f"{speaker}\n{text}")

    def is_told_not_to_come_back(self, why):
        until("the end", lambda: self.id("state").get_dom_attribute("data-is") == "ended")
        assert re.search(why, self.id("state").text), self.id("state").text

    def leaves(self):
        self.id("leave").click()
        self.sees("#log .note", "left")
        self.driver.quit()


def picture(driver, name):
    driver.save_screenshot(f"{os.environ.get('PAGES_PICTURES', scratch)}/client-{name}.png")


def talk(members, word):
    for member in members:
        member.says(f"{word} from {member.name}")
    for listener in members:
        for speaker in members:
            if speaker is not listener:
                listener.hears(speaker.name, f"{word} from {speaker.name}")


def voice(page, python):
    """From each of those who have one to the other, with what is told about it."""
    page.id("voice").click()
    python.says("/voice")
    # Who opens a room first hears whoever comes first: the numbers say nothing about the machine.
    said = python.sees(f"^{page.name}: 50 packets of voice, ([0-9]+) lost, jitter ([0-9.]+) ms$")
    assert int(said[1]) == 0
    heard = "return document.querySelector('#people li[data-packets]')?.dataset ?? {}"
    counted = until("voice on the page", lambda: (
        found if int((found := page.driver.execute_script(heard)).get("packets", 0)) >= 50 else None))
    assert int(counted["lost"]) == 0 and float(counted["jitter"]) >= 0, counted
    drawn = page.driver.execute_script("return document.querySelector('#people polyline').getTotalLength()")
    assert drawn > 20, drawn
    page.id("voice").click()


def meet(relay, origin, opener, scheme, width):
    """All three in a room that one of them has opened."""
    kinds = {
        "page": lambda url: Page(origin, url, "page", scheme, width),
        "python": lambda url: Program([sys.executable, "-u", "examples/python/client.py"], url, "python"),
        "rust": lambda url: Program([rust], url, "rust"),
    }
    members = {opener: kinds[opener](relay.url())}
    invitation = members[opener].invitation()
    assert re.search(r"#[\w-]{43}$", invitation), invitation
    members |= {kind: make(invitation) for kind, make in kinds.items() if kind != opener}
    for member in members.values():
        member.joins(1)
    assert members["page"].id("inviting").is_displayed() == (opener == "page"), "who has the key invites"
    talk(members.values(), "hello")
    voice(members["page"], members["python"])
    members["page"].says("A message that is longer than the others, so that it has to go on in the next line.")
    picture(members["page"].driver, f"{opener}-{scheme}-{width}")
    check_page(members["page"].driver, origin)
    return members, invitation


def restart(relay, members):
    relay.stop()
    members["rust"].says("said while nobody was there")
    relay.start()
    for member in members.values():
        member.joins(2)
    # It waits for the next connection; who opens the room is there before.
    members["page"].hears("rust", "said while nobody was there")
    talk(members.values(), "again")


def refuse(relay, members, invitation):
    """What would end in the same way is not tried again."""
    forged = re.sub(r"\.[\w-]{8}([\w-]+#)", r".AAAAAAAA\1", invitation)
    for command in [[sys.executable, "-u", "examples/python/client.py"], [rust]]:
        stranger = Program(command, forged, "stranger")
        stranger.is_told_not_to_come_back("401")
        # With another key for what is said it gets in, and nobody understands it.
        deaf = Program(command, invitation.split("#")[0] + "#" + "A" * 43, "deaf")
        deaf.joins(1)
        deaf.leaves()
    for name in ["rust", "page", "python"]:
        members[name].says("x" * MAX_MESSAGE_SIZE)
        members[name].is_told_not_to_come_back("1009")
    members["page"].driver.quit()


def main():
    handler = functools.partial(QuietFiles, directory="examples/browser")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    origin = "127.0.0.1:%d" % server.server_address[1]
    relay = Relay()
    for opener, scheme, width in [("page", "light", DESKTOP), ("python", "dark", PHONE), ("rust", "dark", DESKTOP)]:
        members, invitation = meet(relay, origin, opener, scheme, width)
        if opener == "page":
            restart(relay, members)
            refuse(relay, members, invitation)
        else:
            for member in members.values():
                member.leaves()
        print(f"examples: a page, Python and Rust in a room of {opener}: ok", flush=True)
    relay.stop()


class QuietFiles(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


main()
