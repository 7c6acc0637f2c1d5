"""What Grafana and the alerts ask, asked of a Prometheus that reads a living relay."""

import json
import re
import time
import urllib.parse
import urllib.request


def ask(prometheus, path, **parameters):
    url = f"http://{prometheus}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
    try:
        return json.load(urllib.request.urlopen(url))["data"]
    except urllib.error.HTTPError as error:
        raise AssertionError(f"{parameters}: {error.read().decode()}") from error


def of_dashboard():
    """The queries of the panels as Grafana would send them; a variable is all of it."""
    with open("deploy/grafana/relay.json", encoding="utf-8") as file:
        panels = json.load(file)["panels"]
    for panel in panels:
        for target in panel.get("targets", []):
            query = target["expr"].replace("$__rate_interval", "10s")
            yield panel["title"], re.sub(r'"\$(job|instance)"', '".+"', query)


def check(prometheus):
    end = time.monotonic() + 60
    # The rates need a few readings; what has no limit, or no certificate, has nothing to show.
    while silent := [(title, query) for title, query in of_dashboard()
                     if not query.endswith("< Inf") and "< Inf)" not in query
                     and not ask(prometheus, "query", query=query)["result"]]:
        assert time.monotonic() < end, f"nothing to show: {silent}"
        time.sleep(1)
    for title, query in of_dashboard():
        ask(prometheus, "query", query=query)  # those, too, have to be understood
    rules = [rule for group in ask(prometheus, "rules")["groups"] for rule in group["rules"]]
    assert len(rules) > 10 and all(rule["health"] == "ok" for rule in rules), rules
    assert not (fires := [rule["name"] for rule in rules if rule["state"] == "firing"]), fires
