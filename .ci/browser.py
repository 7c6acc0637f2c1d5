"""Headless Chromium, and what holds for every page of ours."""

import time

from selenium import webdriver
from selenium.webdriver.chrome.service import Service

PHONE, DESKTOP = 390, 1280


def browser(scheme, width, scripts=True):
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for argument in ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"]:
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    if not scripts:
        options.add_experimental_option("prefs", {"profile.managed_default_content_settings.javascript": 2})
    driver = webdriver.Chrome(options=options, service=Service("/usr/bin/chromedriver"))
    height = 844 if width == PHONE else 900
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride",
                           {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width == PHONE})
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia",
                           {"features": [{"name": "prefers-color-scheme", "value": scheme}]})
    return driver


def until(what, condition, patience=60):
    end = time.monotonic() + patience
    while not (found := condition()):
        assert time.monotonic() < end, f"{what} did not come"
        time.sleep(0.1)
    return found


CONTRAST = """
const channels = (colour) => colour.match(/[\\d.]+/g).map(Number);
const light = (colour) => channels(colour).slice(0, 3).map((c) => c / 255)
  .map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
  .reduce((sum, c, k) => sum + c * [0.2126, 0.7152, 0.0722][k], 0);
const behind = (element) => {
  for (; element; element = element.parentElement) {
    const colour = getComputedStyle(element).backgroundColor;
    if ((channels(colour)[3] ?? 1) === 1) return colour;
  }
  return "rgb(255, 255, 255)";
};
const bad = [];
for (const element of document.querySelectorAll("body *")) {
  if (![...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim())) continue;
  if (!element.getClientRects().length || element.tagName === "NOSCRIPT") continue;
  const style = getComputedStyle(element);
  const pair = [light(element instanceof SVGElement ? style.fill : style.color), light(behind(element))].sort((a, b) => b - a);
  const ratio = (pair[0] + 0.05) / (pair[1] + 0.05);
  if (ratio < 4.5) bad.push(`${element.textContent}: ${ratio.toFixed(2)}`);
}
return bad;
"""


def check_page(driver, origin):
    """What holds for every page: it fits, it is legible, it is quiet, and it asks nobody else."""
    fits = driver.execute_script("return document.documentElement.scrollWidth <= innerWidth")
    assert fits, "it scrolls sideways"
    assert driver.execute_script(CONTRAST) == []
    assert (said := driver.get_log("browser")) == [], said
    urls = [part.split('"')[0] for entry in driver.get_log("performance")
            if "Network.requestWillBeSent" in entry["message"]
            for part in entry["message"].split('"documentURL":"')[1:] + entry["message"].split('"url":"')[1:]]
    foreign = [url for url in urls if not url.startswith((f"http://{origin}/", "data:", "about:", "chrome:"))]
    assert urls and not foreign, foreign
