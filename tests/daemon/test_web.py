"""The console in a browser: what the server refuses, a console for each page, and a real Chromium."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Any

import pytest

from tests.chromium import CHROMIUM, WHY_NOT, open_page
from tests.daemon.live import LiveEngine, wait_for
from turbotui.cli import main

aiohttp = pytest.importorskip("aiohttp", reason="textual-serve is not installed (pip install turbotui[web])")
web = pytest.importorskip("aiohttp.web")
pytest.importorskip("textual_serve", reason="textual-serve is not installed (pip install turbotui[web])")

from turbotui.web.server import MOST_CONSOLES, ConsoleServer, listen  # noqa: E402


@dataclass
class Served:
    process: subprocess.Popen[bytes]
    address: str
    """With the token."""

    @property
    def root(self) -> str:
        return self.address.partition("?")[0]

    @property
    def token(self) -> str:
        return self.address.partition("token=")[2]

    def consoles(self) -> list[int]:
        """The console processes of its pages."""
        told = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(self.process.pid)], capture_output=True, text=True
        )
        return [int(pid) for pid in told.stdout.split()]


@pytest.fixture
def served(live: LiveEngine) -> Iterator[Served]:
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "turbotui", "--host", "", "web", "--json"],
        env=live.environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdout is not None
    with process.stdout as out:
        told = b""
        while not told.rstrip().endswith(b"}"):
            line = out.readline()
            assert line, "the server ended"
            told += line
        try:
            yield Served(process=process, address=json.loads(told)["address"])
        finally:
            process.terminate()
            assert process.wait(timeout=10) == 0


async def opened(session: aiohttp.ClientSession, served: Served) -> str:
    """The address of a page that was opened by the printed one."""
    async with session.get(served.address) as answer:
        assert answer.status == 200
        return str(answer.url)


def browser() -> aiohttp.ClientSession:
    """Keeps cookies, also of an address without a name."""
    return aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True))


def status(address: str, **headers: str) -> int:
    """Of a browser without a cookie."""
    request = urllib.request.Request(
        address, headers={name.replace("_", "-"): text for name, text in headers.items()}
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


async def test_nobody_comes_in_without_the_token_or_from_another_page(served: Served) -> None:
    for path in (
        "",
        "x/",
        "x/static/js/textual.js",
        "x/ws",
        "x/download/x",
        "?token=guess",
        "?token=%ED%A0%80",
    ):
        assert status(served.root + path) == 403, path
    assert status(served.address, Host="evil.example") == 403
    assert status(served.address, Origin="http://evil.example") == 403

    name = f"turbotui_{served.root.rpartition(':')[2].rstrip('/')}"
    jar = CookieJar()
    cookies = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(jar))
    with cookies.open(served.address, timeout=10) as answer:
        page_address = answer.url
        assert page_address.startswith(served.root) and "token" not in page_address
        assert served.token not in str(answer.headers) + page_address
        assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
        assert b'"static/js/textual.js"' in answer.read()
    with cookies.open(page_address + "static/js/textual.js", timeout=10) as answer:
        assert answer.headers["Content-Type"] in ("text/javascript", "application/javascript")
    for path in (
        "static/",
        "static/../app_service.py",
        "static/..%2fapp_service.py",
        "static/%2fetc%2fpasswd",
    ):
        with pytest.raises(urllib.error.HTTPError, match=r"40[34]"):
            cookies.open(page_address + path, timeout=10)
    (cookie,) = jar
    assert cookie.name == name and cookie.path == page_address.removeprefix(served.root.rstrip("/"))
    held = f"{name}={cookie.value}"
    assert served.token not in held and status(page_address, Cookie=held) == 200
    # What another server on this machine may be told, and what somebody reads off the address.
    for address in (served.root, f"{served.root}?token={cookie.value}", f"{served.root}x/"):
        assert status(address, Cookie=held) == 403
    for wrong in ("\xff\xfe", "x", served.token):
        assert status(page_address, Cookie=f"{name}={wrong}") == 403, "and no traceback"
    assert status(page_address) == 403
    another = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))
    with another.open(served.address, timeout=10) as answer:
        assert answer.url != page_address, "the token opens another session"
    async with browser() as session:
        root = await opened(session, served)
        for origin in (None, "http://evil.example"):
            with pytest.raises(aiohttp.WSServerHandshakeError, match="403"):
                await session.ws_connect(root + "ws", origin=origin)
        async with session.ws_connect(root + "ws", origin=served.root.rstrip("/")) as page:
            assert isinstance(await page.receive_bytes(timeout=20), bytes)
            assert len(served.consoles()) == 1
            await page.send_str("no JSON")
            while not (await page.receive(timeout=10)).type == aiohttp.WSMsgType.CLOSE:
                pass
    wait_for(lambda: served.consoles() == [], 10, "the end of the console")


async def test_a_console_that_was_killed_closes_its_page_and_a_stopped_server_its_consoles(
    served: Served,
) -> None:
    async with browser() as session:
        root = await opened(session, served)
        origin = served.root.rstrip("/")
        async with session.ws_connect(root + "ws", origin=origin) as page:
            await page.receive_bytes(timeout=20)
            os.kill(served.consoles()[0], signal.SIGKILL)
            while (await page.receive(timeout=10)).type not in (
                aiohttp.WSMsgType.CLOSE,
                aiohttp.WSMsgType.CLOSED,
            ):
                pass
        async with session.ws_connect(root + "ws", origin=origin) as page:
            await page.receive_bytes(timeout=20)
            (console,) = served.consoles()
            os.kill(console, signal.SIGSTOP)  # it cannot end by itself
            served.process.terminate()
            await asyncio.to_thread(served.process.wait, 15)
        assert not Path(f"/proc/{console}").exists()


def test_no_other_address_is_served(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["web", "--address", "0.0.0.0"]) == 2
    assert "ssh -L" in capsys.readouterr().err


@asynccontextmanager
async def serving(argv: list[str]) -> AsyncIterator[ConsoleServer]:
    """A server of programs that are no consoles, in this process."""
    server = ConsoleServer(argv, listen("127.0.0.1", 0), title="x")
    runner = web.AppRunner(await server._make_app(), shutdown_timeout=1.0)
    await runner.setup()
    await web.SockSite(runner, server._listener).start()
    try:
        yield server
    finally:
        await runner.cleanup()


async def test_pages_that_open_at_once_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("turbotui.web.server.END_S", 0.2)
    prepare = web.WebSocketResponse.prepare

    async def slow(page: Any, request: Any) -> Any:
        await asyncio.sleep(0.05)
        return await prepare(page, request)

    monkeypatch.setattr(web.WebSocketResponse, "prepare", slow)
    async with serving(["sleep", "60"]) as server, browser() as session:
        async with session.get(server.address) as answer:
            root = str(answer.url)
        origin = f"http://127.0.0.1:{server.port}"
        asked = [session.ws_connect(root + "ws", origin=origin) for _ in range(MOST_CONSOLES + 4)]
        told = await asyncio.gather(*asked, return_exceptions=True)
        refused = [each for each in told if isinstance(each, aiohttp.WSServerHandshakeError)]
        assert len(refused) == 4 and {each.status for each in refused} == {503}
        for page in told:
            if isinstance(page, aiohttp.ClientWebSocketResponse):
                await page.close()
        for _ in range(100):
            if not server._consoles:
                break
            await asyncio.sleep(0.05)
        assert not server._consoles
        async with session.get(root + "ws", headers={"Origin": origin}) as answer:
            assert answer.status == 400
        assert not server._consoles, "one that is no connection at all does not count"


async def test_consoles_that_end_at_once_are_waited_for_once(caplog: pytest.LogCaptureFixture) -> None:
    async with serving(["true"]) as server, browser() as session:
        async with session.get(server.address) as answer:
            root = str(answer.url)
        origin = f"http://127.0.0.1:{server.port}"
        for _ in range(25):
            async with session.ws_connect(root + "ws", origin=origin) as page:
                await page.send_str("no JSON")
        await asyncio.sleep(0.2)
    assert "Unknown child process" not in caplog.text


@pytest.mark.long
@pytest.mark.skipif(CHROMIUM is None, reason=WHY_NOT)
async def test_a_chromium_shows_the_console_and_works_it(served: Served, tmp_path: Path) -> None:
    page = await open_page(served.address, tmp_path / "profile")
    drawn = "document.body.classList.contains('-first-byte')"
    try:
        await asyncio.sleep(4)
        assert await page.run(drawn), page.said
        assert served.token not in await page.run("location.href"), "the token left the address"
        assert await page.run("document.cookie") == "", "no script reads the cookie"
        assert all(asked.split("://")[1].startswith("127.0.0.1:") for asked in page.requests)
        assert any(asked.startswith("ws://") for asked in page.requests)
        assert not [line for line in page.said if "Content Security Policy" in line or "exception" in line]
        before = tmp_path / "dashboard.png"
        await page.screenshot(before)
        assert colours(before) > 8, "panels, not an empty page"
        await page.press("?")
        await asyncio.sleep(2)
        await page.screenshot(tmp_path / "help.png")
        assert differing(before, tmp_path / "help.png") > 0.05, "a key opens the help"
        await page.press("q")
        await asyncio.sleep(1)
        await page.press("q")
        for _ in range(50):
            if await page.run("document.body.classList.contains('-closed')"):
                break
            await asyncio.sleep(0.1)
        assert "engine goes on" in await page.run("document.getElementById('ended').innerText")
        assert await page.run("getComputedStyle(document.getElementById('ended')).display") == "flex"
        wait_for(lambda: served.consoles() == [], 10, "the end of the console")
    finally:
        await page.close()


def colours(picture: Path) -> int:
    from PIL import Image

    with Image.open(picture) as image:
        counted = image.convert("RGB").getcolors(2**24) or []
    return sum(count > 50 for count, _colour in counted)


def differing(one: Path, other: Path) -> float:
    """The share of pixels that differ."""
    from PIL import Image, ImageChops

    with Image.open(one) as first, Image.open(other) as second:
        difference = ImageChops.difference(first.convert("L"), second.convert("L"))
        return 1 - difference.histogram()[0] / (difference.width * difference.height)
