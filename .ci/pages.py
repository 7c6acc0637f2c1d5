"""The pages of a relay under load, in headless Chromium, and the files that Prometheus and Grafana read it with:
`pages.py RELAY PID CLIENTS METRICS PROMETHEUS SCRATCH [--brief] [--screenshot]`."""

import asyncio
import itertools
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request

from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

import queries
from browser import DESKTOP, PHONE, browser, check_page, until

relay, pid, clients, metrics, prometheus, scratch = sys.argv[1:7]
brief, screenshot = "--brief" in sys.argv, "--screenshot" in sys.argv
ROOMS, GUESTS = 3, 4


def invite(room, peer, role):
    arguments = ["token", "--key", f"{scratch}/host.key", "--room", room, "--peer", peer, role]
    arguments += ["--url", f"ws://{clients}/ws"]
    return subprocess.run([relay, *arguments], check=True, capture_output=True, text=True).stdout.strip()


async def drink(member):
    try:
        async for _ in member:
            pass
    except WebSocketException:
        pass  # the drain closes it with 1012


def sleeper(room):
    """A guest that reads no more than that it is in: what is for it waits, and voice that waits is dropped."""
    url = urllib.parse.urlsplit(invite(room, "sleeper", "--guest"))
    sleeper = socket.socket()
    sleeper.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    sleeper.connect((url.hostname, url.port))
    fields = ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13",
              "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="]
    sleeper.sendall("\r\n".join([f"GET {url.path}?{url.query} HTTP/1.1", f"Host: {url.netloc}", *fields, "", ""]).encode())
    assert sleeper.recv(12) == b"HTTP/1.1 101"
    return sleeper


async def call(room, stop, visits):
    """A host and guests, of whom one sleeps; the host talks, now and then somebody who was not invited asks to come
    in, and if `visits` are wanted, another guest looks in."""
    async with connect(invite(room, "host", "--host")) as host:
        with await asyncio.to_thread(sleeper, room):
            guests = [await connect(invite(room, f"guest {n}", "--guest")) for n in range(GUESTS)]
            visitor = invite(room, "visitor", "--guest")
            drinkers = [asyncio.create_task(drink(member)) for member in [host, *guests]]
            # More than the kernel takes for one that does not read, and less than the relay lets wait.
            for _ in range(8):
                await host.send(bytes(1 << 18))
            packets = 0
            while not stop.is_set():
                await host.send(b"KV" + bytes(118))
                if packets % 5 == 0:
                    await guests[0].send('{"from":"guest 0","text":"%s"}' % ("x" * 200))
                if packets % 50 == 0:
                    await asyncio.to_thread(turned_away)
                    if visits.is_set():
                        await (await connect(visitor)).close()
                packets += 1
                await asyncio.sleep(0.02)
            for drinker in drinkers:
                drinker.cancel()
            await asyncio.gather(*(member.close() for member in guests))


def turned_away():
    try:
        urllib.request.urlopen(f"http://{clients}/ws?room=nowhere&token=t").read()
    except urllib.error.HTTPError as error:
        assert error.code == 404, error


def load(stop, visits):
    async def calls():
        # The drain ends one call after the other; those whose turn has not come go on.
        ends = await asyncio.gather(*(call(f"room {n}", stop, visits) for n in range(ROOMS)), return_exceptions=True)
        for end in ends:
            if isinstance(end, BaseException) and not isinstance(end, WebSocketException):
                raise end
    asyncio.run(calls())


def picture(driver, name):
    path = f"{os.environ.get('PAGES_PICTURES', scratch)}/{name}.png"
    driver.save_screenshot(path)


def combinations():
    return [("light", DESKTOP)] if brief else itertools.product(["light", "dark"], [PHONE, DESKTOP])


def status_pages(state):
    for (scheme, width), scripts in itertools.product(combinations(), [True, False]):
        driver = browser(scheme, width, scripts)
        driver.get(f"http://{clients}/")
        assert driver.find_element("tag name", "h1").text == state
        text = driver.find_element("tag name", "body").text
        for said in ["plain text", "0.1.0", "1,000", "1 MiB"]:
            assert said in text, text
        if scripts:
            check_page(driver, clients)
            picture(driver, f"status-{state.lower()}-{scheme}-{width}")
        driver.quit()


def dashboard_without_scripts():
    for scheme, width in combinations():
        driver = browser(scheme, width, scripts=False)
        driver.get(f"http://{metrics}/")
        text = driver.find_element("tag name", "body").text
        assert text.split("\n") == ["Relay", "The charts need JavaScript. The figures that they are drawn from are at /metrics."], text
        assert driver.find_element("link text", "/metrics").get_attribute("href") == f"http://{metrics}/metrics"
        driver.quit()


def scraped():
    text = urllib.request.urlopen(f"http://{metrics}/metrics").read().decode()
    return {key: float(value) for key, _, value in
            (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))}


def figure(driver, chart, series):
    script = """return document.querySelector(`#${arguments[0]} [data-series="${arguments[1]}"] b`)?.dataset.value ?? ''"""
    value = driver.execute_script(script, chart, series)
    return float(value) if value else None


MATHEMATICS = """
const done = arguments[0];
import("/dashboard.js").then(({ parse, rate, quantile, ticks }) => {
  const at = (time, n) => ({ time, values: parse([
    "# TYPE a counter", "process_start_time_seconds 5", `a_total{lane="data"} ${n}`,
    `w_bucket{le="1.0",lane="data"} ${n / 2}`, `w_bucket{le="3.0",lane="data"} ${n}`, `w_bucket{le="+Inf",lane="data"} ${n}`,
  ].join("\\n")) });
  const readings = [at(0, 0), at(1000, 10), at(2000, 40), at(3000, 90)];
  const gap = [at(0, 0), { time: 1000, values: null }, at(2000, 9)];
  done([rate(readings, 3, 'a_total{lane="data"}'), rate(gap, 2, 'a_total{lane="data"}'), rate(readings, 0, "a"),
    quantile(readings, 3, "w", "data", 0.5), quantile(readings, 3, "w", "data", 0.75), quantile(readings, 3, "w", "voice", 0.5),
    ticks(70, {}).at(-1)]);
});
"""


# Each chart with its lines, while the calls go on.
LINES = {"deliveries": 2, "waits": 4, "connections": 2, "rooms": 1, "memory": 2, "cpu": 1, "drops": 1, "refusals": 1}
COUNT_LINES = """
const drawn = [...document.querySelectorAll(`#${arguments[0]} .plot path.series[d*=L]`)];
return drawn.filter((path) => path.getTotalLength() > 2).length;
"""
TITLES = "return Math.max(...[...document.querySelectorAll('.chart h2')].map((title) => title.getBoundingClientRect().height))"


def dashboard(scheme, width):
    driver = browser(scheme, width)
    driver.get(f"http://{metrics}/")
    until("the first reading", lambda: figure(driver, "rooms", "rooms") is not None)
    for chart, series in [("deliveries", "voice"), ("deliveries", "data"), ("waits", "voice p99"), ("waits", "data p50"),
                          ("drops", "voice, queue full"), ("refusals", "room not found"), ("memory", "resident"),
                          ("cpu", "user and system")]:
        until(f"{series} of {chart}", lambda: (figure(driver, chart, series) or 0) > 0)
    # What does not change while the calls go on is the same number.
    now = scraped()
    assert figure(driver, "rooms", "rooms") == now["relay_rooms"] == ROOMS
    for role in ["host", "guest"]:
        assert figure(driver, "connections", f"{role}s") == now['relay_connections{role="%s"}' % role]
    assert figure(driver, "waits", "voice p50") <= figure(driver, "waits", "voice p99")
    assert driver.execute_async_script(MATHEMATICS) == [30, None, None, 1, 2, None, 100]
    for chart, lines in LINES.items():
        until(f"{lines} lines in {chart}", lambda: driver.execute_script(COUNT_LINES, chart) >= lines)
    assert driver.execute_script(TITLES) < 30, "a title takes two lines"
    text = driver.find_element("tag name", "body").text
    assert "no TLS" in text and not any(wrong in text for wrong in ["NaN", "undefined", "Infinity"]), text
    check_page(driver, metrics)
    picture(driver, f"dashboard-{scheme}-{width}")
    return driver


def readme_picture(driver):
    time.sleep(75)  # a picture of something: five minutes would show more, one is enough
    height = driver.execute_script("return document.documentElement.scrollHeight")
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride",
                           {"width": DESKTOP, "height": height, "deviceScaleFactor": 1, "mobile": False})
    time.sleep(1)  # the charts are drawn anew
    driver.save_screenshot("docs/dashboard.png")


def main():
    stop, visits = threading.Event(), threading.Event()
    calls = threading.Thread(target=load, args=[stop, visits])
    calls.start()
    try:
        until("the calls", lambda: scraped()['relay_connections{role="guest"}'] == ROOMS * (GUESTS + 1))
        for scheme, width in [] if brief else [("light", PHONE), ("dark", DESKTOP), ("dark", PHONE)]:
            dashboard(scheme, width).quit()
        dashboard_without_scripts()
        watching = dashboard("light", DESKTOP)
        visits.set()
        until("those who left", lambda: (figure(watching, "disconnects", "peer, 1000") or 0) > 0)
        if screenshot:
            readme_picture(watching)
        queries.check(prometheus)
        status_pages("Serving")
        os.kill(int(pid), signal.SIGTERM)
        state = "return document.getElementById('state').textContent"
        until("the drain on the dashboard", lambda: watching.execute_script(state) == "Draining")
        status_pages("Draining")
        until("the end of a call", lambda: figure(watching, "disconnects", "relay, 1012") is not None)
        picture(watching, "dashboard-draining")
    finally:
        stop.set()
        calls.join()
    # The calls are over, so the relay ends; and the dashboard says so.
    until("the end on the dashboard", lambda: watching.execute_script(state) == "Not reachable")
    assert watching.find_element("id", "notice").is_displayed()
    picture(watching, "dashboard-gone")
    watching.quit()
    print(f"{os.path.basename(relay)}: status page, dashboard, and what Prometheus and Grafana ask for: ok")


main()
