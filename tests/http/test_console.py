"""The console in a real browser (headless Chromium), fed by a worker that scores.

SCREENSHOTS=docs/images keeps what was seen.
"""

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import ADMIN_TOKEN, ROOT, need, running_demo
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

PATIENCE = 60

# Everything a keyboard must reach.
REACHABLE = 'a[href], button, input, summary, [tabindex="0"]'

# Text whose contrast to what lies behind it is below WCAG 2's 4.5 (3 for large text).
FAINT = """
const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
const rgba = (color) => {
  canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1);
  const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
  return [r, g, b, a / 255];
};
const over = (top, below) => [0, 1, 2].map((i) => top[i] * top[3] + below[i] * (1 - top[3]));
const behind = (element) => {
  if (!element) return [255, 255, 255];
  const own = rgba(getComputedStyle(element).backgroundColor);
  return own[3] > 0.99 ? own.slice(0, 3) : over(own, behind(element.parentElement));
};
const luminance = (color) => {
  const [r, g, b] = color.map((v) => v / 255)
    .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const faint = [];
for (const element of document.querySelectorAll("body *")) {
  const text = [...element.childNodes].filter((n) => n.nodeType === 3 && n.data.trim());
  const style = getComputedStyle(element);
  const drawn = element.checkVisibility() && !element.closest("svg, script, .unseen");
  if (!text.length || !drawn) continue;
  const back = behind(element);
  const front = over(rgba(style.color), back);
  const [low, high] = [luminance(front), luminance(back)].sort((a, b) => a - b);
  const ratio = (high + 0.05) / (low + 0.05);
  const large = parseFloat(style.fontSize) >= 24;
  if (ratio < (large ? 3 : 4.5)) faint.push(`${text[0].data.trim()}: ${ratio.toFixed(2)}`);
}
return faint;
"""


def axe_script() -> str:
    path = ROOT / ".runtime/axe/axe.min.js"
    need(path.is_file(), f"{path} is not there: scripts/test-env.sh")
    return path.read_text()


def barriers(browser: "Browser") -> list[str]:
    """What axe-core finds, as `rule: element`."""
    browser.driver.execute_script(axe_script())
    found = browser.driver.execute_async_script("""
        const done = arguments[arguments.length - 1];
        axe.run(document, { resultTypes: ["violations"] })
          .then(({ violations }) => done(violations.flatMap(({ id, nodes }) =>
            nodes.map((node) => `${id}: ${node.html.slice(0, 160)} ${node.failureSummary}`))))
          .catch((error) => done([`axe: ${error}`]));
    """)
    return list(found)


class Browser:
    """A window with what the tests ask of it."""

    def __init__(self, address: str, profile: Path) -> None:
        options = Options()
        options.binary_location = str(shutil.which("chromium"))
        # --no-sandbox: in containers, where tests run as root. What is opened is our own page.
        for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"):
            options.add_argument(argument)
        options.add_argument("--disable-dev-shm-usage")
        options.add_argument(f"--user-data-dir={profile}")
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        service = Service(str(shutil.which("chromedriver")))
        self.driver = webdriver.Chrome(options=options, service=service)
        self.address = address

    def open(self, width: int = 1360, height: int = 900, scheme: str = "light") -> None:
        self.size(width, height)
        self.prefer(scheme)
        self.driver.get(f"{self.address}/")
        self.wait("numbers from the worker", lambda: self.text("rate") not in ("–", "0"))
        self.wait("suspicious verdicts", lambda: self.all("#verdicts tbody tr"))

    def size(self, width: int, height: int) -> None:
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def prefer(self, scheme: str) -> None:
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def wait(self, what: str, done: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + PATIENCE
        while not (found := done()):
            assert time.monotonic() < deadline, f"{what}: not within {PATIENCE} s"
            time.sleep(0.1)
        return found

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def all(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def one(self, selector: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def text(self, identifier: str) -> str:
        return self.run("return document.getElementById(arguments[0]).textContent", identifier)

    def fill_in_a_suspicious_one(self) -> None:
        self.wait("examples", lambda: self.all("#examples button"))[-1].click()

    def screenshot(self, name: str, width: int) -> None:
        folder = os.environ.get("SCREENSHOTS")
        if folder:
            # A picture shows charts that have something to show.
            deadline = time.monotonic() + 200
            while time.monotonic() < deadline and self.run("return points.length") < 150:
                time.sleep(1)
            self.size(width, self.run("return document.documentElement.scrollHeight"))
            self.run("window.scrollTo(0, 0)")
            # The charts are drawn anew for the new size, and once more with the next snapshot.
            time.sleep(1.5)
            self.driver.save_screenshot(str((ROOT / folder).resolve() / f"{name}.png"))


@pytest.fixture(scope="module")
def window(demo: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    need(shutil.which("chromium") and shutil.which("chromedriver"), "chromium is not installed")
    browser = Browser(demo, tmp_path_factory.mktemp("profile"))
    yield browser
    browser.driver.quit()


@pytest.fixture
def browser(window: Browser) -> Iterator[Browser]:
    """The window, for a test that must leave no complaint in the console."""
    window.driver.get_log("browser")
    yield window
    severe = [line["message"] for line in window.driver.get_log("browser")]
    # A refused form is an answer of 422, which Chromium logs as an error of the network.
    assert not [line for line in severe if "422" not in line]


def test_it_shows_what_the_worker_does(browser: Browser) -> None:
    browser.open()
    browser.wait("readiness", lambda: browser.text("state") == "Ready")

    def total() -> int:
        return int(browser.text("rate-note").split()[0].replace(",", ""))

    before = total()
    browser.wait("more transactions", lambda: total() > before)
    assert browser.text("p99") != "–"
    assert browser.text("model-short") == "fraud 1"
    decisions = [row.text.split()[0] for row in browser.all("#decisions tr th .chip")]
    assert decisions == ["approve", "review", "decline"]
    # Rows come and go while they are read: all at once, by the page.
    shown = browser.run("""
        return [...document.querySelectorAll("#verdicts tbody tr")]
          .map((row) => [...row.cells].map((cell) => cell.innerText.trim()));
    """)
    for clock, transaction, amount, score, decision, _ in shown:
        assert len(clock) == 8
        assert len(transaction) == 36
        assert float(amount.replace(",", "")) >= 0
        assert decision in ("review", "decline")
        assert score[0] in "01>"
    # A thousand rows, and drift is told.
    browser.wait("drift", lambda: browser.all("#drift > div"))
    assert len(browser.all("#drift > div")) == 29
    assert "of the features drifted" in browser.text("drift-note")
    # Nothing drawn is left empty, and what there is nothing of is said to be nothing.
    for chart in ("rate-chart", "latency-chart", "lag-chart", "score-chart"):
        assert browser.all(f"#{chart} svg path[d], #{chart} svg rect")
    assert browser.one("#swaps-empty").is_displayed()
    assert browser.one("#dead-empty").is_displayed()
    assert "models/fraud" in browser.wait("where the model is from", lambda: browser.text("model"))


def test_suspicious_verdicts_have_reasons(browser: Browser) -> None:
    browser.open()
    # The strongest first, at most three, and none that speaks for the transaction.
    browser.wait(
        "reasons",
        lambda: browser.run("return verdicts.some(({ verdict }) => verdict.reasons?.length === 3)"),
    )
    features = browser.run("return model.features.map((feature) => feature.name)")
    explained = browser.run("return verdicts.map(({ verdict }) => verdict.reasons ?? [])")
    assert sum(bool(reasons) for reasons in explained) >= len(explained) - 8, "the newest may wait"
    for reasons in filter(None, explained):
        contributions = [reason["contribution"] for reason in reasons]
        assert len(reasons) <= 3
        assert contributions == sorted(contributions, reverse=True)
        assert contributions[-1] > 0
        assert {reason["feature"] for reason in reasons} <= set(features)
    told = browser.wait(
        "reasons in the table",
        lambda: browser.run("""
            return [...document.querySelectorAll("#verdicts td.why")]
              .map((cell) => cell.innerText.trim()).filter((text) => text !== "–")
        """),
    )
    assert re.match(r"(V\d+|Amount)\s+\+\d+\.\d", told[0]), told
    assert "Shapley" in browser.text("why-note")


def test_nothing_comes_from_elsewhere(browser: Browser) -> None:
    browser.open()
    loaded = browser.run(
        "return performance.getEntriesByType('resource').map((entry) => entry.name)"
    )
    assert all(name.startswith((browser.address, "data:")) for name in loaded), loaded
    # The policy holds: what a stranger would put into the page does not run.
    browser.run("""
        const script = document.createElement("script");
        script.textContent = "window.strange = true";
        document.body.append(script);
    """)
    assert browser.run("return window.strange") is None
    assert "Content Security Policy" in str(browser.driver.get_log("browser"))


def test_what_is_rare_is_shown_when_there_is_some(browser: Browser) -> None:
    browser.open()
    browser.run("""
        // The worker's next snapshot, with everything that a quiet one has not.
        stream.close();
        window.fetch = async (path) => ({ ok: path === "/model", json: async () => ({
          previous: { name: "fraud", version: "0" }, serving: { origin: "<i>here</i>" },
          history: [ { time: "2026-01-02T03:04:05Z", result: "rolled-back", from: "fraud@2",
            to: "fraud@1", reason: "<b>offered</b>" } ] }) });
        const now = { ...snapshot, time: Date.now(),
          drift: [["V1", 0.01], ["V14", 0.31], ["Amount", 0.12]],
          drift_share: 2 / 3, drift_score: 0.2, drift_rows: 5000,
          dead_letters: [["malformed-json", 3], ["not-a-number", 12]], dead_letter_rate: 0.5,
          swaps: [["swapped", 2], ["refused", 0]], challenger: "fraud@3", registry: true,
          not_ready: ["scoring-0: waiting for a broker"], redone: 1, lag: 7, lag_seconds: 2.5 };
        const send = (name, data) =>
          stream.dispatchEvent(new MessageEvent(name, { data: JSON.stringify(data) }));
        send("verdicts", [{ amount: null, verdict: { ...verdicts[0].verdict,
          transaction_id: "<img src=x onerror=alert(1)>".repeat(9),
          reasons: [{ feature: "<b>V14</b>", contribution: 2.3 }] } }]);
        send("snapshot", now);
    """)
    drift = [row.text.split() for row in browser.all("#drift > div")]
    assert drift == [
        ["V14", "0.310", "strong"],
        ["Amount", "0.120", "moderate"],
        ["V1", "0.010", "little"],
    ]
    dead = [row.text for row in browser.all("#dead tr")]
    assert dead == ["not-a-number 12", "malformed-json 3"]
    assert browser.text("state") == "Not ready"
    assert browser.one("#not-ready").is_displayed()
    assert browser.text("swap-counts") == "2 swapped"
    assert "fraud, version 3" in browser.text("model")
    assert "reachable" in browser.text("model")
    browser.wait("the history", lambda: browser.one("#swaps-table").is_displayed())
    assert "<b>offered</b>" in browser.text("swaps")
    assert "rolled back" in browser.text("swaps")
    assert "fraud@2 → fraud@1" in browser.text("swaps")
    assert not browser.one("#swaps-empty").is_displayed()
    assert "fraud, version 0; prepared for a rollback" in browser.text("model")
    assert "<i>here</i>" in browser.text("model")
    assert browser.text("drift-note").startswith("66.7 % of the features drifted · score 0.200")
    row = browser.one("#verdicts tbody tr").text
    assert "<img" in row
    assert "<b>V14</b>" in row
    assert "+2.3" in row
    assert "–" in row
    for width in (1360, 360):
        browser.size(width, 740)
        assert browser.run("return document.documentElement.scrollWidth") == width
    assert browser.run(FAINT) == []


def test_a_transaction_is_scored_by_hand(browser: Browser, golden: list[dict[str, Any]]) -> None:
    browser.open()
    browser.fill_in_a_suspicious_one()
    browser.one("#submit").click()
    outcome = browser.wait("the verdict", lambda: browser.text("outcome"))
    assert "decline" in outcome
    exactly = re.search(r"exactly ([\d.]+)", outcome)
    assert exactly
    assert float(exactly[1]) == pytest.approx(golden[-1]["expected_score"], abs=1e-5)
    # Why: the features that raised it, with their values and what they do to the odds.
    bars = [item.text.split() for item in browser.all("#outcome .effects li")]
    assert len(bars) == 3
    for feature, equals, value, added, *odds in bars:
        assert equals == "="
        assert float(value) == pytest.approx(golden[-1][feature], rel=1e-3)
        assert float(added) > 0
        assert odds[0] == "odds"
    widths = browser.run("""
        return [...document.querySelectorAll("#outcome .effects i")].map((bar) => bar.offsetWidth)
    """)
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] > 0
    browser.screenshot("console-light", 1360)

    # Without a field that is needed: the reason, and the focus where it is to be mended.
    field = browser.one("#form input[name=V14]")
    field.clear()
    field.send_keys(Keys.ENTER)
    browser.wait("the problem", lambda: "V14 is missing" in browser.text("outcome"))
    assert field.get_attribute("aria-invalid") == "true"
    assert browser.run("return document.activeElement.name") == "V14"
    browser.one("#clear").click()
    assert browser.text("outcome") == ""
    assert field.get_attribute("aria-invalid") is None


def test_the_command_to_copy_is_one_request_whatever_a_feature_is_called(browser: Browser) -> None:
    name = 'it\'s; $(touch here) `id` "x" \\'
    browser.open()
    browser.fill_in_a_suspicious_one()
    browser.run('document.querySelector("#form input").name = arguments[0]', name)
    browser.one("#submit").click()
    browser.wait("an answer", lambda: browser.text("outcome"))
    # A shell in which curl tells what it was given.
    command = f"curl() {{ printf '%s\\0' \"$@\"; }}; {browser.text('curl')}"
    told = subprocess.run(["bash", "-c", command], capture_output=True, check=True, text=True)
    *_, address, flag, body, end = told.stdout.split("\0")
    assert (address, flag, end) == (f"{browser.address}/v1/score", "-d", "")
    assert name in json.loads(body)


def background(browser: Browser) -> tuple[int, ...]:
    color = browser.run("return getComputedStyle(document.body).backgroundColor")
    return tuple(int(part) for part in color[color.index("(") + 1 : -1].split(",")[:3])


def test_light_and_dark(browser: Browser) -> None:
    browser.open(scheme="light")
    assert sum(background(browser)) > 600
    assert browser.run(FAINT) == []
    browser.prefer("dark")
    assert sum(background(browser)) < 150
    assert browser.run(FAINT) == []
    browser.screenshot("console-dark", 1360)
    # The viewer's choice comes before the system's, and is remembered.
    browser.one("#theme").click()
    assert browser.text("theme") == "Theme: light"
    assert sum(background(browser)) > 600
    browser.open(scheme="dark")
    assert sum(background(browser)) > 600
    for expected in ("Theme: dark", "Theme: auto"):
        browser.one("#theme").click()
        assert browser.text("theme") == expected


@pytest.mark.parametrize("width", [320, 360, 768])
def test_no_width_scrolls_sideways(browser: Browser, width: int) -> None:
    browser.open(width, 740)
    browser.fill_in_a_suspicious_one()
    browser.run("document.getElementById('submit').click()")
    browser.wait("the verdict", lambda: browser.text("outcome"))
    browser.run("document.getElementById('as-request').open = true")
    wide = browser.run("return document.documentElement.scrollWidth")
    assert wide == browser.run("return document.documentElement.clientWidth") == width
    beyond = browser.run("""
        return [...document.querySelectorAll("body *")]
          .filter((e) => e.checkVisibility() && !e.closest(".scroll, .unseen, .skip, svg"))
          .filter((e) => e.getBoundingClientRect().right > innerWidth + 1)
          .map((e) => e.outerHTML.slice(0, 120));
    """)
    assert beyond == []
    if width == 360:
        browser.run("document.getElementById('as-request').open = false")
        browser.screenshot("console-phone", 360)


def test_a_keyboard_reaches_everything_and_shows_where_it_is(browser: Browser) -> None:
    browser.open()
    browser.wait("the form", lambda: len(browser.all("#fields input")) == 29)
    wanted = browser.run(
        f"return [...document.querySelectorAll('{REACHABLE}')].filter((e) => e.checkVisibility())"
        ".map((e) => e.id || e.textContent.trim().slice(0, 30) || e.className)"
    )
    reached: list[str] = []
    for _ in range(len(wanted)):
        browser.driver.switch_to.active_element.send_keys(Keys.TAB)
        name, outline = browser.run("""
            const e = document.activeElement, style = getComputedStyle(e);
            return [e.id || e.textContent.trim().slice(0, 30) || e.className,
                    style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2];
        """)
        assert outline, f"{name} does not show that it has the focus"
        reached.append(name)
    assert set(wanted) == set(reached)
    assert {"verdict-list", "rate-chart", "pause", "submit"} <= set(reached)
    # The charts can be read by keys: older values are read out.
    chart = browser.one("#rate-chart")
    browser.run("arguments[0].focus()", chart)
    browser.driver.switch_to.active_element.send_keys(Keys.ARROW_LEFT)
    assert "/s" in browser.text("rate-readout")
    told, text, now, last = browser.run(
        """
        const of = (name) => arguments[0].getAttribute("aria-" + name);
        return [of("valuetext"), document.getElementById("rate-readout").textContent,
                Number(of("valuenow")), Number(of("valuemax"))];
        """,
        chart,
    )
    assert told == text
    assert now == last - 1


def test_a_screen_reader_hears_names(browser: Browser) -> None:
    browser.open()
    tree = browser.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    named = {
        *("button", "link", "textbox", "spinbutton", "heading", "image", "region"),
        *("slider", "table"),
    }
    seen = set()
    for node in tree:
        role = node.get("role", {}).get("value")
        if node.get("ignored") or role not in named:
            continue
        seen.add(role)
        assert node.get("name", {}).get("value", "").strip(), node
    assert named - {"textbox"} <= seen
    assert browser.run("return document.documentElement.lang") == "en"
    assert len(browser.all("h1")) == len(browser.all("main")) == 1


@pytest.mark.parametrize(("scheme", "width"), [("light", 1360), ("dark", 1360), ("light", 360)])
def test_a_checker_finds_no_barrier(browser: Browser, scheme: str, width: int) -> None:
    """axe-core: WCAG 2.2 A and AA, and what it holds for good practice."""
    browser.open(width, 900, scheme)
    browser.fill_in_a_suspicious_one()
    browser.run("document.getElementById('submit').click()")
    browser.wait("the verdict", lambda: browser.all("#outcome .effects li"))
    browser.run("document.getElementById('as-request').open = true")
    browser.wait("drift", lambda: browser.all("#drift > div"))
    assert barriers(browser) == []


def test_the_checker_finds_what_is_wrong(browser: Browser) -> None:
    browser.open()
    browser.run("""
        const field = document.createElement("input");
        field.style.color = "#bbb";
        document.querySelector("main").append(field, "pale");
    """)
    assert any(found.startswith("label:") for found in barriers(browser))


def post(address: str, path: str) -> Any:
    """What only who knows the token may ask."""
    headers = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
    request = urllib.request.Request(f"{address}{path}", b"", headers, method="POST")
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        return json.load(answer)


def test_an_exchange_of_the_model_is_shown(window: Browser, demo: str, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(ROOT / "models/fraud", bundle)
    browser = window

    def explained(version: str) -> bool:
        """Whether the newest verdict is this version's, and those of it have reasons."""
        return bool(
            browser.run(
                """
                const wanted = arguments[0];
                const own = verdicts.filter(({ verdict }) => verdict.model.version === wanted);
                return own.length && own[0] === verdicts[0] &&
                  own.some(({ verdict }) => verdict.reasons?.length);
                """,
                version,
            )
        )

    with running_demo(tmp_path, "--rate", "300", "--model", str(bundle)) as address:
        try:
            browser.address = address
            browser.open()
            browser.wait("reasons of version 1", lambda: explained("1"))
            manifest = bundle / "manifest.toml"
            text = manifest.read_text()
            assert 'version = "1"' in text
            manifest.write_text(text.replace('version = "1"', 'version = "2"'))
            post(address, "/admin/reload")
            browser.wait("version 2", lambda: "fraud, version 2" in browser.text("model"))
            browser.wait("the exchange", lambda: "fraud@1 → fraud@2" in browser.text("swaps"))
            browser.wait(
                "what was before", lambda: "fraud, version 1; pre" in browser.text("model")
            )
            assert browser.text("swap-counts") == "1 swapped"
            browser.wait("reasons of version 2", lambda: explained("2"))
            post(address, "/admin/rollback")
            browser.wait("version 1", lambda: browser.text("model-short") == "fraud 1")
            browser.wait("the way back", lambda: "fraud@2 → fraud@1" in browser.text("swaps"))
            browser.wait("reasons of version 1 again", lambda: explained("1"))
        finally:
            browser.address = demo
            browser.driver.get("about:blank")
            browser.driver.get_log("browser")


class Relay:
    """Stands between a browser and the worker, and can be cut, as a network can."""

    def __init__(self, address: str) -> None:
        self.target = ("127.0.0.1", int(address.rsplit(":", 1)[1]))
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.open = True
        self.sockets: list[socket.socket] = []
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self) -> None:
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            if not self.open:
                near.close()
                continue
            far = socket.create_connection(self.target)
            self.sockets += [near, far]
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self.pump, args=(source, sink), daemon=True).start()

    def pump(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                sink.sendall(data)
        except OSError:
            pass
        for end in (source, sink):
            end.close()

    def cut(self) -> None:
        self.open = False
        for end in self.sockets:
            # shutdown wakes whoever reads; close alone does not.
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        self.sockets.clear()

    def mend(self) -> None:
        self.open = True


def test_a_broken_connection_is_told_and_comes_back(window: Browser, demo: str) -> None:
    relay = Relay(demo)
    browser = window
    try:
        browser.address = relay.address
        browser.open()
        browser.wait("readiness", lambda: browser.text("state") == "Ready")
        relay.cut()
        browser.wait("that it is told", lambda: browser.text("state").startswith("Connection lost"))
        assert "as of" in browser.text("lost")
        assert browser.one("#lost").is_displayed()
        assert browser.run(FAINT) == []
        before = browser.run("return snapshot.time")
        relay.mend()
        browser.wait("it back", lambda: browser.run("return snapshot.time") > before)
        browser.wait("readiness", lambda: browser.text("state") == "Ready")
        assert not browser.one("#lost").is_displayed()
        # A browser gives up on an answer that is no stream: the page does not.
        before = browser.run("return snapshot.time")
        browser.run("""
            stream.close();
            stream.dispatchEvent(new Event("error"));
        """)
        assert browser.text("state").startswith("Connection lost")
        browser.wait("it back", lambda: browser.run("return snapshot.time") > before + 1000)
        browser.wait("readiness", lambda: browser.text("state") == "Ready")
    finally:
        browser.address = demo
        relay.listener.close()
        relay.cut()
        browser.driver.get_log("browser")


def test_it_can_be_paused(browser: Browser) -> None:
    browser.open()
    browser.one("#pause").click()
    assert browser.one("#pause").get_attribute("aria-pressed") == "true"
    shown = browser.text("updated")
    # Snapshots go on to arrive; the page does not follow them.
    known = browser.run("return snapshot.time")
    browser.wait("later snapshots", lambda: browser.run("return snapshot.time") > known + 1500)
    assert browser.text("updated") == shown
    browser.one("#pause").click()
    assert browser.text("updated") != shown


def test_several_windows_are_fed(browser: Browser) -> None:
    browser.open()
    first = browser.driver.current_window_handle
    browser.driver.switch_to.new_window("tab")
    browser.open()
    here = browser.text("updated")
    browser.wait("the next second", lambda: browser.text("updated") != here)
    browser.driver.close()
    browser.driver.switch_to.window(first)
    here = browser.text("updated")
    browser.wait("the next second", lambda: browser.text("updated") != here)


def test_the_api_page_lists_what_there_is(browser: Browser) -> None:
    browser.size(360, 740)
    browser.driver.get(f"{browser.address}/docs")
    browser.wait("the description", lambda: "/v1/score" in browser.text("paths"))
    assert "urn:fraud-scorer:problem:missing-feature" in browser.text("problems")
    assert browser.run("return document.documentElement.scrollWidth") == 360
    assert browser.run(FAINT) == []
