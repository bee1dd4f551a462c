"""serve_page.py PROGRAM SOURCE - the server's page in headless Chromium: by mouse and keyboard, on a
phone's screen, and under axe's accessibility rules. serve_page.sh brings what it needs."""

import json
import os
import sys
import tempfile
import time

sys.dont_write_bytecode = True

from axe_selenium_python import Axe
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait
from served import Server

TEMPLATE = "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}[assistant] "


def folder_with_template(source, into):
    """The model of the repository with a chat template beside it."""
    model = os.path.join(os.path.abspath(source), "models", "polymath-16m")
    for name in os.listdir(model):
        if name != "tokenizer_config.json":
            os.symlink(os.path.join(model, name), os.path.join(into, name))
    with open(os.path.join(model, "tokenizer_config.json"), encoding="utf-8") as f:
        config = json.load(f)
    with open(os.path.join(into, "tokenizer_config.json"), "w", encoding="utf-8") as f:
        json.dump({**config, "chat_template": TEMPLATE}, f)
    return into


def open_browser():
    options = Options()
    options.binary_location = "/usr/bin/chromium"
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1280,900"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return webdriver.Chrome(options=options, service=Service("/usr/bin/chromedriver"))


class Page:
    def __init__(self, browser, url):
        self.browser = browser
        browser.get(url)
        self.until(lambda: self.text("health") == "ready", "the page says that it is ready")

    def element(self, name):
        return self.browser.find_element(By.ID, name)

    def text(self, name):
        return self.element(name).text

    def until(self, condition, what, seconds=30):
        WebDriverWait(self.browser, seconds, 0.1).until(lambda _: condition(), what)

    def tab_to(self, name):
        """Reaches an element by the tab key alone, as a keyboard's user does."""
        for _ in range(60):
            if self.browser.switch_to.active_element.get_attribute("id") == name:
                return
            self.browser.switch_to.active_element.send_keys(Keys.TAB)
        raise AssertionError(f"the tab key does not reach {name}")

    def turns(self):
        return self.browser.find_elements(By.CSS_SELECTOR, "#log .turn")

    def set(self, name, value):
        self.browser.execute_script(
            "const e = document.getElementById(arguments[0]); e.value = arguments[1];"
            "e.dispatchEvent(new Event('change'));", name, value)


def chat(page):
    page.set("max-tokens", "24")
    page.tab_to("prompt")
    page.browser.switch_to.active_element.send_keys("Say something", Keys.CONTROL, Keys.ENTER)
    page.until(lambda: len(page.turns()) == 2, "the answer has its turn")
    page.until(lambda: "tokens/s" in page.text("speed") and "+" in page.text("speed"), "the speed is told")
    assert len(page.turns()[1].text) > len("model"), page.turns()[1].text
    assert not page.browser.find_elements(By.CSS_SELECTOR, "#log .wrong"), page.text("log")


def completion(page):
    page.set("mode", "complete")
    before = len(page.turns())
    page.element("prompt").send_keys("def add(a, b):")
    page.element("send").click()
    page.until(lambda: page.element("send").is_enabled() and len(page.turns()) == before + 1, "it completes")
    shown = page.turns()[-1].text
    assert "def add(a, b):" in shown and len(shown) > 40, shown


def stop(page):
    """A long generation shows among the requests, its experts on the map, and can be stopped."""
    page.set("max-tokens", "900")
    page.element("prompt").clear()
    page.element("prompt").send_keys("import ")
    page.element("send").click()
    page.until(lambda: "decode" in page.text("rows"), "the request is listed")
    canvas = page.element("map")
    assert int(canvas.get_attribute("height")) > 1 and int(canvas.get_attribute("width")) > 1
    colours = page.browser.execute_script(
        "const c = document.getElementById('map');"
        "const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;"
        "return new Set(new Uint32Array(d.buffer)).size")
    assert colours > 4, f"the map has {colours} colours"
    page.element("stop").click()
    page.until(lambda: page.element("send").is_enabled(), "it stops")
    page.until(lambda: "none" in page.text("rows"), "its request is gone")


def map_by_keyboard(page):
    page.tab_to("map")
    page.browser.switch_to.active_element.send_keys(Keys.ARROW_DOWN, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert page.text("cell").startswith("layer 1, expert 2:"), page.text("cell")


def markup_stays_text(page):
    page.set("mode", "complete")
    page.set("max-tokens", "1")
    page.element("prompt").clear()
    page.element("prompt").send_keys("<img src=x onerror=alert(1)>")
    page.element("send").click()
    page.until(lambda: page.element("send").is_enabled() and "onerror" in page.text("log"), "it is shown")
    assert not page.browser.find_elements(By.CSS_SELECTOR, "#log img")


def accessible(page):
    axe = Axe(page.browser)
    axe.inject()
    found = axe.run()["violations"]
    assert not found, axe.report(found)


def on_a_phone(page):
    page.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride",
                                 {"width": 360, "height": 640, "deviceScaleFactor": 2, "mobile": True})
    time.sleep(0.5)
    width = page.browser.execute_script("return document.documentElement.scrollWidth")
    assert width <= 360, f"the page is {width} pixels wide on a screen of 360"
    box = page.element("send").rect
    assert box["height"] >= 44 and box["width"] >= 44, box
    accessible(page)


def main():
    program, source = sys.argv[1:3]
    checks = (chat, completion, stop, map_by_keyboard, markup_stays_text, accessible, on_a_phone)
    with tempfile.TemporaryDirectory() as folder:
        with Server(program, folder_with_template(source, folder)) as server:
            browser = open_browser()
            try:
                page = Page(browser, f"http://127.0.0.1:{server.port}/")
                for check in checks:
                    check(page)
                    print(f"ok {check.__name__}")
                told = [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
                assert not told, told
            finally:
                browser.quit()


main()
