"""Who may come in to the console in a browser."""

from __future__ import annotations

import pytest

from engine.errors import InvalidRequest
from turbotui.web.door import MOST_SESSIONS, Door, loopback
from turbotui.web.page import page

DOOR = Door(token="secret", cookie="c")


@pytest.mark.parametrize("host", ["localhost:8000", "127.0.0.1:1", "[::1]:8000", "LOCALHOST", "127.0.0.1"])
def test_a_loopback_name_is_let_in_on_any_port(host: str) -> None:
    assert DOOR.refusal({"Host": host}, socket=False) is None
    assert DOOR.refusal({"Host": host, "Origin": f"http://{host}"}, socket=True) is None


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "localhost.evil.example:80",
        "",
        "127.0.0.1.nip.io:80",
        "192.168.0.9:80",
        "[::2]:1",
        "localhost:\udcff",
        "localhost:80:80",
        "[::1]x",
        "[::1",
        "localhost:",
    ],
)
def test_any_other_name_is_refused(host: str) -> None:
    assert "printed" in (DOOR.refusal({"Host": host, "Origin": f"http://{host}"}, socket=True) or "")


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "http://localhost:9", "https://localhost:8000", "null", ""]
)
def test_a_page_of_another_site_is_refused(origin: str) -> None:
    assert "another site" in (DOOR.refusal({"Host": "localhost:8000", "Origin": origin}, socket=False) or "")


def test_the_console_is_opened_by_a_page_only() -> None:
    assert "a page of this server" in (DOOR.refusal({"Host": "localhost:8000"}, socket=True) or "")


def test_only_the_token_is_known() -> None:
    assert DOOR.knows("secret")
    assert not any(
        map(DOOR.knows, (None, "", "Secret", "secre", "secret ", "sécret", "\ud800", "\udcff\udcfe"))
    )


def test_a_session_is_opened_by_its_path_and_its_cookie_together() -> None:
    door = Door(token="secret", cookie="c")
    (path, value), (other_path, other_value) = door.open(), door.open()
    assert len({path, value, other_path, other_value, door.token}) == 5
    assert door.admits(path, value) and door.admits(other_path, other_value)
    for wrong in ((path, other_value), (path, None), (None, value), (value, path), (path, "\ud800"),
                  ("", ""), ("secret", "secret"), ("\udcff", value)):  # fmt: skip
        assert not door.admits(*wrong), wrong
    for _ in range(MOST_SESSIONS):
        newest = door.open()
    assert door.admits(*newest) and not door.admits(path, value), "their number has a bound"


@pytest.mark.parametrize("address", ["0.0.0.0", "192.168.0.9", "::", "gpubox", "127.0.0.1:80", "127.1", ""])
def test_no_other_address_is_served(address: str) -> None:
    with pytest.raises(InvalidRequest, match="ssh -L"):
        loopback(address)


def test_the_loopback_is_served() -> None:
    assert [loopback(name) for name in ("localhost", "127.0.0.1", "127.0.0.9", "::1")] == [
        "127.0.0.1",
        "127.0.0.1",
        "127.0.0.9",
        "::1",
    ]


def test_the_page_loads_nothing_from_elsewhere_and_holds_no_markup_of_others() -> None:
    text = page(title="<script>x", host='localhost:1"><b>', path="p", font_size=15)
    assert "<script>x" not in text and '"><b>' not in text
    assert (
        "https:" not in text
        and "http:" not in text
        and "//" not in text.replace("ws://", "").replace("\n// The", "")
    )
