"""The page in a real browser: a visit from upload to result, and what goes wrong on the way.

Needs Chromium with its driver (`apt install chromium chromium-driver`) and selenium; what the page
does is also tested without them, through its functions and endpoints.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from tests.conftest import SmallModel
from tests.sdconv.page.test_child import gone
from tests.test_gradio_app import SCRIPT, free_port

selenium = pytest.importorskip("selenium", reason="selenium is not installed: pip install '.[dev]'")
from selenium.common.exceptions import (  # noqa: E402
    ElementClickInterceptedException,
    StaleElementReferenceException,
    WebDriverException,
)
from selenium.webdriver import Chrome, ChromeOptions, ChromeService  # noqa: E402

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
DRIVER = shutil.which("chromedriver")
PS = shutil.which("ps") or "ps"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        BROWSER is None or DRIVER is None,
        reason="no Chromium here: apt install chromium chromium-driver",
    ),
]

PATIENCE = 90.0
"""Seconds that a busy machine may take for anything."""

FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync",
         "--window-size=1360,1000")  # fmt: skip


class Server:
    """The page, served by a process that can be killed."""

    def __init__(self, root: Path) -> None:
        self.root, self.port = root, free_port()
        self.address = f"http://127.0.0.1:{self.port}/"
        self.start()

    def start(self) -> None:
        command = [sys.executable, str(SCRIPT), "--host", "127.0.0.1", "--port", str(self.port)]
        log = (self.root.parent / "server.log").open("ab")
        with log:
            self.process = subprocess.Popen(
                [*command, "--root", str(self.root)], stdout=log, stderr=log
            )
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            with suppress(OSError), urlopen(f"{self.address}healthy", timeout=5):  # noqa: S310
                return
            time.sleep(0.2)
        raise AssertionError("the page was not served")

    def end(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)
        self.process.wait(PATIENCE)


class Visit:
    """A browser of a visitor's own, at the page."""

    def __init__(self, address: str, profile: Path, language: str = "en") -> None:
        options = ChromeOptions()
        for flag in (*FLAGS, f"--user-data-dir={profile}", f"--lang={language}",
                     f"--accept-lang={language}"):  # fmt: skip
            options.add_argument(flag)
        options.add_experimental_option("prefs", {"intl.accept_languages": language})
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        options.binary_location = BROWSER
        self.driver: Any = Chrome(options=options, service=ChromeService(DRIVER))
        self.address = address

    def go(self, path: str = "") -> None:
        self.driver.get(self.address + path)
        self.see("#plan .sdc-hint", hidden=True)

    def look(self, width: int, *, dark: bool) -> None:
        """As on a phone, or in the dark."""
        metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})

    def find(self, css: str) -> list[Any]:
        found: list[Any] = self.driver.find_elements("css selector", css)
        return found

    def until(self, wanted: Callable[[], Any], what: str) -> Any:
        """Wait until something is true; an element that was just drawn anew is looked for again."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            with suppress(StaleElementReferenceException, ElementClickInterceptedException):
                if found := wanted():
                    return found
            time.sleep(0.1)
        raise AssertionError(f"not within {PATIENCE:g} s: {what}; instead: {self.text()[:600]}")

    def see(self, css: str, text: str = "", *, hidden: bool = False) -> Any:
        """Wait for an element with that text in it."""

        def seen() -> Any:
            shown = [e for e in self.find(css) if hidden or e.is_displayed()]
            return next((e for e in shown if text in e.get_attribute("textContent")), None)

        return self.until(seen, f"{css} {text!r}")

    def click(self, css: str, text: str = "") -> None:
        self.until(lambda: self.see(css, text).click() or True, f"click on {css} {text!r}")

    def write(self, css: str, text: str) -> None:
        field = self.see(css)
        field.click()
        field.send_keys(text, "\n")

    def upload(self, css: str, path: Path) -> None:
        self.see(css, hidden=True).send_keys(str(path))

    def text(self) -> str:
        return str(self.driver.execute_script("return document.body.innerText"))

    def tick(self, css: str, label: str) -> None:
        self.click(f"{css} label", label)

    def job(self) -> str:
        """The id of the job that is open, as the page's address has it."""
        return str(
            self.until(lambda: re.search(r"job=([\w-]+)", self.driver.current_url), "job")[1]
        )

    def state(self) -> str:
        return str(self.see(".sdc-status").get_attribute("class").split()[-1])

    def ends_in(self, state: str) -> None:
        """Wait until the job stands so."""
        self.until(lambda: self.state() == state, f"a job that is {state}")

    def fetch(self, address: str) -> tuple[int, bytes]:
        """What a link gives to this browser."""
        cookies = "; ".join(f"{c['name']}={c['value']}" for c in self.driver.get_cookies())
        request = Request(self.address + address, headers={"Cookie": cookies})  # noqa: S310
        try:
            with urlopen(request, timeout=30) as answer:  # noqa: S310
                return answer.status, bytes(answer.read())
        except HTTPError as e:
            return e.code, e.read()

    def complaints(self) -> list[str]:
        """What the browser complains of."""
        entries = self.driver.get_log("browser")
        return [entry["message"] for entry in entries if entry["level"] == "SEVERE"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, small_model: SmallModel) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("browser") / "root"
    root.mkdir()
    shutil.copyfile(small_model.checkpoint, root / "small.safetensors")
    shutil.copyfile(small_model.lora, root / "style.safetensors")
    server = Server(root)
    yield server
    server.end()


Opener = Callable[..., Visit]


@pytest.fixture
def browser(server: Server, tmp_path: Path) -> Iterator[Opener]:
    """Opens browsers, each of a visitor of his own."""
    opened: list[Visit] = []

    def opener(language: str = "en") -> Visit:
        opened.append(Visit(server.address, tmp_path / f"profile{len(opened)}", language))
        return opened[-1]

    yield opener
    for visit in opened:
        with suppress(WebDriverException):
            visit.driver.quit()


def choose_text_encoder(visit: Visit) -> None:
    """The shortest conversion of what is chosen."""
    visit.tick("#targets", "onnxruntime")
    visit.see("#plan", "This machine can do it")
    visit.click(".label-wrap", "More options")
    for component in ("unet", "vae_encoder", "vae_decoder"):
        visit.tick("#components", component)
        visit.until(
            lambda c=component: (
                f"Exporting {c}" not in visit.see("#plan").get_attribute("textContent")
            ),  # type: ignore[misc]
            "the plan without it",
        )


def test_from_upload_to_result(
    browser: Opener, server: Server, small_model: SmallModel, tmp_path: Path
) -> None:
    ann = browser()
    ann.go()
    model = tmp_path / "my <b>model.safetensors"
    shutil.copyfile(small_model.checkpoint, model)
    ann.upload("#upload input[type=file]", model)
    ann.see("#found", "sd15")
    assert not ann.find("#found b")  # a name is no markup
    ann.upload(".sdc-add input[type=file]", small_model.lora)
    ann.see("#added .sdc-name", small_model.lora.name)
    choose_text_encoder(ann)
    ann.see("#plan", "keys used")
    ann.click("#start")
    job = ann.job()
    ann.ends_in("pass")
    ann.see(".sdc-status", "1 of 1 artifact ")

    frame = ann.see("iframe.sdc-report")
    ann.until(lambda: frame.size["height"] > 900, "a frame as high as its report")
    ann.driver.switch_to.frame(frame)
    ann.see(".banner.pass")
    ann.driver.switch_to.default_content()
    ann.click(".sdc-result button[role=tab]", "Downloads")
    links = [a.get_attribute("href") for a in ann.find("#files a")]
    assert len(links) >= 4
    paths = [link.removeprefix(server.address) for link in links]
    assert all(ann.fetch(path)[0] == 200 for path in paths)
    ann.click(".sdc-result button[role=tab]", "Commands")
    ann.see("#commands pre", "sdconv export -u my_bmodel.safetensors")

    ben = browser()  # a second visitor, at the same time
    ben.go()
    ben.click("button[role=tab]", "History")
    ben.see("#history", "No conversions yet")
    ben.go(f"?job={job}")
    ben.see("#status", "no job")
    assert {ben.fetch(path)[0] for path in paths} == {404}

    ann.go()  # the page anew: the job is in the history
    ann.click("button[role=tab]", "History")
    ann.click("#history button", "model")
    ann.see(".sdc-status.pass")
    assert ann.job() == job
    assert ann.complaints() == []


def test_a_reload_a_stop_and_a_restart_of_the_server(browser: Opener, server: Server) -> None:
    ann = browser()
    ann.go()
    ann.click(".sdc-ways button[role=tab]", "Server")
    ann.write("#chosen input", "small.safetensors")
    ann.see("#found", "sd15")
    choose_text_encoder(ann)
    ann.click("#start")
    job = ann.job()
    ann.driver.refresh()  # in the middle
    ann.see(".sdc-status.running")
    assert ann.until(lambda: run_of(server, job), "the run's process")
    ann.click("#stop")
    ann.see(".sdc-status.stopped")
    assert run_of(server, job) == []

    ann.click("#resume")
    (process,) = ann.until(lambda: run_of(server, job), "the run's process")
    os.kill(process, signal.SIGSTOP)  # it stands still, so that it cannot be done already
    server.end(signal.SIGKILL)
    os.kill(process, signal.SIGCONT)
    assert gone(process)
    server.start()
    ann.see(".sdc-status.interrupted")  # without a reload: the page finds the server again
    ann.click("#resume")
    ann.ends_in("pass")
    assert ann.job() == job


def run_of(server: Server, job: str) -> list[int]:
    """The processes that work on a job, as `ps` shows them."""
    listed = subprocess.run(
        [PS, "-ewwo", "pid,stat,args"], capture_output=True, text=True, check=True
    ).stdout
    lines = (line.split(maxsplit=2) for line in listed.splitlines() if job in line)
    assert server.process.poll() is None
    return [int(pid) for pid, stat, _ in lines if not stat.startswith("Z")]


def test_what_is_wrong_is_told_and_nothing_is_kept(
    browser: Opener, server: Server, tmp_path: Path
) -> None:
    ann = browser()
    ann.go()
    bad = tmp_path / "holiday.safetensors"
    bad.write_text("not a model at all")
    ann.upload("#upload input[type=file]", bad)
    ann.see("#found [role=alert]", "holiday.safetensors")
    assert not list(server.root.glob("uploads/*/holiday.safetensors"))
    (server.root.parent / "secret.safetensors").write_bytes(b"secret")
    (server.root / "link.safetensors").symlink_to(server.root.parent / "secret.safetensors")
    for escape in ("../secret.safetensors", "/etc/passwd", "link.safetensors"):
        ann.go()
        ann.click(".sdc-ways button[role=tab]", "Server")
        ann.write("#chosen input", escape)
        ann.see("#found [role=alert]", "no such file or folder below the root folder")
    ann.click(".sdc-ways button[role=tab]", "Address")
    ann.write("#link input, #link textarea", "https://localhost/model.safetensors")
    ann.see("#found [role=alert]", "not a public host")
    ann.click("#start")
    ann.see("#refusal [role=alert]", "no checkpoint is chosen")


@pytest.mark.parametrize(
    ("language", "said"),
    [
        ("en", ("Choose a model", "Drop File Here", "Sampling")),
        ("zh-CN", ("选择模型", "将文件拖放", "采样设置")),
    ],
)
def test_both_languages_fit_every_window(
    browser: Opener, server: Server, language: str, said: tuple[str, ...]
) -> None:
    visit = browser(language)
    for width, dark in ((1360, False), (390, True)):
        visit.look(width, dark=dark)
        visit.go()
        visit.see("body", said[0])
        for fold in visit.find(".label-wrap"):
            if fold.is_displayed():
                fold.click()
        visit.until(lambda: said[1] in visit.text(), said[1])
        whole = visit.driver.execute_script("return document.body.textContent")
        shown = visit.text()
        assert not re.search(r"\[object|__i18n__|\b(?:make|plan|add|read|model)\.[a-z]", shown)
        assert not re.search(r"\[object|__i18n__", whole.partition("window.gradio_config")[0])
        if language.startswith("zh"):  # no label was forgotten
            assert not re.search(r"Picture sizes|Upload files|More options|Add to it", shown)
        inside = visit.driver.execute_script("return document.documentElement.scrollWidth")
        assert inside <= width
        colour = visit.driver.execute_script(
            "return getComputedStyle(document.querySelector('.sdc-card')).backgroundColor"
        )
        assert (sum(map(int, re.findall(r"\d+", colour)[:3])) < 300) == dark
    assert visit.complaints() == []
