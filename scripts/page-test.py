"""Drives a headless chromium through its DevTools pipe and looks at the pages of the reference applications.

page-test.py BROWSER TIDEMARK URL HEALTH_PAGE FOLDER: see page-test.sh. Standard library only. Every wait ends at a deadline.
"""

import base64
import datetime
import json
import os
import select
import subprocess
import sys
import tempfile
import time

browser_program, tidemark, url, health_page, folder = sys.argv[1:]


class Browser:
    """One tab: commands go out on descriptor 3, answers and events come in on 4, each ended by a zero byte."""

    def __init__(self, profile):
        out_read, self.out = os.pipe()
        self.inn, in_write = os.pipe()

        def place():
            # 3 and 4 may be among the four: moved out of the way first.
            a, b = os.dup(out_read), os.dup(in_write)
            while a < 5:
                a = os.dup(a)
            while b < 5:
                b = os.dup(b)
            os.dup2(a, 3)
            os.dup2(b, 4)

        self.log = open(os.path.join(folder, "page-browser.log"), "w")
        self.process = subprocess.Popen(
            [browser_program, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
             "--remote-debugging-pipe", "--no-first-run", "--user-data-dir=" + profile, "about:blank"],
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, close_fds=False, preexec_fn=place)
        os.close(out_read)
        os.close(in_write)
        self.number, self.rest, self.session = 0, b"", None
        self.asked, self.faults = [], []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(domain + ".enable")

    def call(self, method, **params):
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.out, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + 30
        while True:
            answer = self.receive(deadline)
            if answer is None:
                raise TimeoutError(method)
            if answer.get("id") == self.number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]

    def receive(self, deadline):
        """The next message; events are noted on the way."""
        while b"\0" not in self.rest:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.inn], [], [], left)[0]:
                return None
            more = os.read(self.inn, 1 << 16)
            if not more:
                raise EOFError("the browser ended")
            self.rest += more
        line, self.rest = self.rest.split(b"\0", 1)
        message = json.loads(line)
        method, params = message.get("method"), message.get("params", {})
        if method == "Network.requestWillBeSent":
            self.asked.append(params["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.faults.append(json.dumps(params["exceptionDetails"])[:500])
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "assert"):
            self.faults.append(json.dumps(params["args"])[:500])
        elif method == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.faults.append(params["entry"]["text"])
        return message

    def open(self, address, width, height):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.call("Page.navigate", url=address)

    def value(self, expression):
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise RuntimeError(f"{expression}: {result['exceptionDetails']}")
        return result["result"].get("value")

    def until(self, expression, seconds):
        """The value of an expression once it is true, or its last one."""
        deadline = time.monotonic() + seconds
        while not (value := self.value(expression)) and time.monotonic() < deadline:
            self.receive(time.monotonic() + 0.1)
        return value

    def picture(self, name):
        data = self.call("Page.captureScreenshot", format="png")["data"]
        with open(os.path.join(folder, name), "wb") as file:
            file.write(base64.b64decode(data))

    def close(self):
        self.process.terminate()
        self.process.wait(20)
        self.log.close()


failed = 0


def check(what, holds, more=""):
    global failed
    failed += not holds
    print(f"{'ok  ' if holds else 'FAIL'} {what}{f': {more}' if more != '' else ''}", flush=True)


def write(gauge, value, kind="", minutes_ago=0, more=()):
    """A reading of now, or of some minutes ago, as the device would send it."""
    at = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(minutes=minutes_ago)
    at = at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    rows = f"device,property,timestamp,value\n{gauge},{options[kind + 'property']},{at},{value:.2f}\n"
    args = [tidemark, "ingest", "-", "--type", options[kind + "type"], *more]
    done = subprocess.run(args, input=rows, text=True, capture_output=True, check=False)
    check(f"a reading of {value:.2f} is written to {gauge}", done.returncode == 0, done.stderr.strip() if done.returncode else "")


options = {"type": os.environ.get("PAGE_TYPE", "ponding_gauge"), "property": os.environ.get("PAGE_PROPERTY", "depth"),
           "rain_type": os.environ.get("PAGE_RAIN_TYPE", "rain_gauge"),
           "rain_property": os.environ.get("PAGE_RAIN_PROPERTY", "rain_5min")}


def look_at_monitor(tab):
    tab.open(url, 1600, 900)
    check("the page comes up with gauges", tab.until("document.querySelectorAll('#list tbody tr').length", 20))
    gauges = tab.value("board.gauges.length")
    with_place = tab.value("board.gauges.filter(g => g.place).length")
    check("the list has a line for each gauge", tab.value("document.querySelectorAll('#list tbody tr').length") == gauges, gauges)
    check("the map has a mark for each gauge that has a place",
          tab.value("document.querySelectorAll('#map .mark').length") == with_place > 0, with_place)
    check("marks lie within the map and not on one spot", tab.value("""(() => {
        const all = [...document.querySelectorAll('#map .mark')].map(m => m.getAttribute('transform'))
        const inside = t => { const [x, y] = t.match(/[\\d.-]+/g).map(Number); return x > 0 && x < 640 && y > 0 && y < 470 }
        return all.every(inside) && new Set(all).size > all.length / 2 })()"""))
    check("the list is sorted by danger", tab.value("""(() => {
        const order = [...board.levels, ...CALM], rank = g => Math.max(0, order.indexOf(g.level))
        const key = g => [rank(g), +g.is_summed, -(g.value ?? -1e9)]
        const less = (a, b) => { for (const i of [0, 1, 2]) if (a[i] !== b[i]) return a[i] < b[i]; return true }
        const shown = [...document.querySelectorAll('#list tbody td:nth-child(2)')].map(td => board.gauges.find(g => g.device === td.textContent.trim()))
        return shown.every((g, i) => !i || less(key(shown[i - 1]), key(g))) })()"""))
    charts = tab.value("[...document.querySelectorAll('#charts .line:not(.bound)')].length")
    drawn = tab.value("[...document.querySelectorAll('#charts svg')].filter(s => /[ML]/.test([...s.querySelectorAll('.line')].map(p => p.getAttribute('d')).join(''))).length")
    check("every chart has a line", charts == drawn > 1, f"{drawn} of {charts}")
    check("charts of rain have bars", tab.value("document.querySelectorAll('#charts rect.bar').length") > 0)
    check("sums that miss readings are marked as lower bounds", tab.value("""
        board.gauges.every((g, i) => [g.sum_1h, g.sum_3h].every((s, j) => !g.is_summed || !s || (s[2] < 1) ===
            document.querySelectorAll('#list tbody tr')[i].children[4 + j].textContent.startsWith('\\u2265')))"""))
    check("stale gauges say so in words", tab.value("""board.gauges.every((g, i) => g.stale ===
        document.querySelectorAll('#list tbody tr')[i].textContent.includes('STALE'))"""))
    check("text is escaped", tab.value("esc(`<a '\">&`)") == "&#60;a &#39;&#34;&#62;&#38;")
    check("scales end at 1, 2 or 5", tab.value("[0.46, 1, 69, 0.1].map(nice).map(n => +n.toPrecision(3)).join()") == "0.5,1,100,0.1")
    silent(tab)
    tab.picture("page-monitor.png")
    moves(tab)
    dark(tab)
    cut_off(tab)


def silent(tab):
    """Forty minutes are too old in a flood, also for a gauge that reports once an hour in dry weather."""
    gauge = "page-test-silent"
    write(gauge, 0, kind="rain_", minutes_ago=40, more=["--register", "--tag", "town=" + tab.value("board.town")])
    found = f"board.gauges.find(g => g.device === '{gauge}')"
    check("a gauge whose newest reading is 40 minutes old is stale", tab.until(f"{found}?.stale", 10), tab.value(f"JSON.stringify({found})"))
    line = f"[...document.querySelectorAll('#list tbody tr')].find(tr => tr.children[1].textContent.trim() === '{gauge}')?.textContent"
    check("which its line says", tab.until(f"({line} || '').includes('STALE 40 min')", 10), tab.value(line))
    check("and it comes behind all of which more is known", tab.value(
        f"board.gauges.indexOf({found}) > board.gauges.map(g => !g.stale && g.value != null).lastIndexOf(true)"))


def moves(tab):
    """What is written comes to the page by itself."""
    tab.value("window.here = 'the same page'")
    dry = tab.value("board.gauges.filter(g => !g.is_summed && g.value === 0 && g.level === 'normal').at(-1)?.device")
    wet = tab.value("board.gauges.filter(g => !g.is_summed)[0].device")
    value = tab.value(f"board.gauges.find(g => g.device === '{wet}').value") + 0.01
    before = tab.value("board.at_ns")
    write(wet, value)
    shown = f"[...document.querySelectorAll('#list tbody tr')].find(tr => tr.children[1].textContent.trim() === '%s')?.textContent"
    arrives = tab.until(f"(({shown % wet}) || '').includes('{value:.2f}')", 10)
    check("a new reading comes to the page by itself", arrives, tab.value(shown % wet))
    check("without a reload", tab.value("window.here") == "the same page" and tab.value("board.at_ns") > before)
    if dry and os.environ.get("PAGE_ALERTS", "1") == "1":
        # Faster than a street floods would be suspect, and raise nothing.
        tab.until(f"board.gauges.find(g => g.device === '{dry}').age > 40", 60)
        steps = tab.value("board.steps.length")
        write(dry, 0.05)
        raised = tab.until(f"board.levels.includes(board.gauges.find(g => g.device === '{dry}').level)", 10)
        check("a gauge that rises comes to a level", raised, tab.value(shown % dry))
        check("and its alert is told", tab.until(f"[...document.querySelectorAll('#steps li')].some(li => li.textContent.includes('{dry}'))", 10))
        check("which is one more than before", tab.value("board.steps.length") > steps)
        line = f"[...document.querySelectorAll('#list tbody tr')].find(tr => tr.children[1].textContent.trim() === '{dry}')"
        tab.value("document.querySelector('#who').value = 'page-test'")
        check("nobody has seen it", tab.until(f"!!{line}?.querySelector('button')", 10))
        tab.value(f"{line}.querySelector('button').click()")
        check("until somebody says so", tab.until(f"{line}.textContent.includes('\u2713 page-test')", 10), tab.value(f"{line}.textContent"))
        check("which is told among the alerts", tab.until(
            "[...document.querySelectorAll('#steps li')].some(li => li.textContent.includes('acknowledged by page-test'))", 10))


def dark(tab):
    tab.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    tab.receive(time.monotonic() + 0.3)
    tab.picture("page-monitor-dark.png")
    tab.call("Emulation.setEmulatedMedia", features=[])
    tab.call("Emulation.setDeviceMetricsOverride", width=420, height=900, deviceScaleFactor=1, mobile=False)
    check("it fits a narrow screen", tab.value("document.documentElement.scrollWidth") <= 420)
    tab.picture("page-monitor-small.png")


def cut_off(tab):
    """A page that hears nothing says so, and goes on by itself."""
    check("no script failed", not tab.faults, " | ".join(tab.faults[:3]))
    cut = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    tab.call("Network.emulateNetworkConditions", offline=True, **cut)
    told = tab.until("!document.querySelector('#trouble').hidden", 10)
    check("a monitor that does not answer is told", told, tab.value("document.querySelector('#trouble').textContent"))
    tab.call("Network.emulateNetworkConditions", offline=False, **cut)
    check("and forgotten when it answers again", tab.until("document.querySelector('#trouble').hidden", 10))
    # The browser logs the requests that it could not send.
    tab.faults.clear()


def look_at_health(tab):
    tab.open("file://" + os.path.abspath(health_page), 1200, 1600)
    check("the report of the device office has sections", tab.until("document.querySelectorAll('table').length >= 7", 10))
    slower = "t.rows[0].cells[0].textContent === 'slower than promised'"
    check("one of them of what reports more slowly than promised",
          tab.value(f"[...document.querySelectorAll('table')].filter(t => {slower}).length") == 1)
    # Of a fleet that plays by the book nobody is slower.
    check("with lines", tab.value(f"[...document.querySelectorAll('table')].every(t => t.rows.length > 1 || {slower})"))
    check("and no scripts", tab.value("document.scripts.length") == 0)
    tab.picture("page-health.png")


with tempfile.TemporaryDirectory(prefix="page-test-") as profile:
    tab = Browser(profile)
    try:
        look_at_monitor(tab)
        look_at_health(tab)
        outside = [a for a in tab.asked if not a.startswith((url, "file://", "data:", "about:"))]
        check("nothing is asked of anybody else", not outside, " ".join(outside[:3]) if outside else f"{len(tab.asked)} requests")
        check("no script failed", not tab.faults, " | ".join(tab.faults[:3]))
    finally:
        tab.close()
print(f"pictures: {folder}/page-monitor.png, page-monitor-dark.png, page-monitor-small.png, page-health.png")
sys.exit(1 if failed else 0)
