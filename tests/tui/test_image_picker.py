"""Choosing an image: folders, filtering, what each shows, and what is no image."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from textual.widgets import Input

from turbotui.app import TurboApp
from turbotui.client import scenes
from turbotui.draft import Draft
from turbotui.picture.folder import list_folder, nearest_folder
from turbotui.remote.box import Box
from turbotui.remote.target import Target
from turbotui.screens import image_picker, window
from turbotui.screens.image_field import ImageThumb
from turbotui.screens.image_picker import ImagePickerScreen
from turbotui.screens.new_job import NewJobScreen
from turbotui.widgets.picture import PictureView

from .conftest import NOW, SMALL, WIDE, burst, live, screen_text, scripted, until

Build = Callable[..., TurboApp]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three images, one of them none, in the order of their ages; a folder; and what is not shown."""
    place = tmp_path / "pictures"
    (place / "older").mkdir(parents=True)
    (place / ".hidden").mkdir()
    Image.new("RGB", (40, 20), (200, 30, 30)).save(place / "red fox.png")
    Image.new("RGB", (20, 40), (30, 30, 200)).save(place / "蓝色.jpg")
    Image.new("RGB", (8, 8), (30, 200, 30)).save(place / "older" / "green.png")
    (place / "broken.png").write_text("nothing")
    (place / "notes.txt").write_text("")
    for age, name in enumerate(("red fox.png", "蓝色.jpg", "broken.png")):
        os.utime(place / name, (NOW - age * 1000,) * 2)
    return place


async def open_form(pilot: Any, image: str) -> NewJobScreen:
    await live(pilot)
    pilot.app.drafts.own.keep(Draft(model="wan2.2-a14b", image=image))
    await pilot.press("a")
    await pilot.pause()
    screen = pilot.app.screen
    assert isinstance(screen, NewJobScreen)
    return screen


async def open_picker(pilot: Any, image: str) -> ImagePickerScreen:
    await open_form(pilot, image)
    await pilot.press("ctrl+t")
    await until(pilot, lambda: isinstance(pilot.app.screen, ImagePickerScreen))
    await until(pilot, lambda: pilot.app.screen.panel.listing is not None)
    screen = pilot.app.screen
    assert isinstance(screen, ImagePickerScreen)
    return screen


def field(app: TurboApp) -> str:
    return app.screen.query_one("#image", Input).value


async def looked(pilot: Any, screen: ImagePickerScreen) -> None:
    await until(pilot, lambda: screen.panel.image is not None or bool(screen.panel.said))


@pytest.mark.parametrize("size", [SMALL, WIDE], ids=["80x24", "120x36"])
async def test_the_newest_image_is_shown_first_and_enter_takes_it(
    console: Build, folder: Path, size: tuple[int, int]
) -> None:
    app = console(scripted(scenes.busy(NOW)))
    async with app.run_test(size=size) as pilot:
        screen = await open_picker(pilot, str(folder / "gone.png"))
        await looked(pilot, screen)
        text = screen_text(app)
        assert "red fox.png" in text and "蓝色.jpg" in text and "older/" in text
        assert "hidden" not in text and "notes" not in text
        assert "3 images; not shown: 1 of other kinds" in text and "40x20" in text
        assert screen.query_one(PictureView).picture is not None
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, NewJobScreen))
        assert field(app) == str(folder / "red fox.png")
        assert app.focused is app.screen.query_one("#image")


async def test_it_begins_at_the_image_that_is_chosen_already(console: Build, folder: Path) -> None:
    app = console(scripted(scenes.busy(NOW)))
    async with app.run_test(size=WIDE) as pilot:
        screen = await open_picker(pilot, str(folder / "蓝色.jpg"))
        await until(pilot, lambda: screen.panel.chosen == "蓝色.jpg")
        await looked(pilot, screen)
        assert "20x40" in screen_text(app)


async def test_letters_narrow_the_list_and_a_folder_is_entered_and_left(console: Build, folder: Path) -> None:
    app = console(scripted(scenes.busy(NOW)))
    async with app.run_test(size=WIDE) as pilot:
        screen = await open_picker(pilot, str(folder))
        await pilot.press(*"OLD")
        assert screen.panel.chosen == "older" and "red fox" not in screen_text(app)
        await pilot.press("enter")
        await until(pilot, lambda: "green.png" in screen_text(app))
        assert screen.panel.wanted == ""
        await pilot.press("left")
        await until(pilot, lambda: "red fox" in screen_text(app))
        assert screen.panel.chosen == "older"  # where one came from
        await pilot.press("backspace")
        await until(pilot, lambda: "pictures/" in screen_text(app))
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.screen, NewJobScreen))
        assert field(app) == str(folder)


async def test_what_is_no_image_says_so_and_is_not_taken(console: Build, folder: Path) -> None:
    app = console(scripted(scenes.busy(NOW)))
    async with app.run_test(size=WIDE) as pilot:
        screen = await open_picker(pilot, str(folder))
        await pilot.press("question_mark")
        await until(pilot, lambda: "out of a folder, or into it" in screen_text(app))
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is screen)
        await pilot.press(*"broken")
        await until(pilot, lambda: "is no image" in screen_text(app))
        await pilot.press("enter")
        await pilot.pause()
        assert app.screen is screen


async def test_a_path_is_typed_whole(console: Build, folder: Path, tmp_path: Path) -> None:
    app = console(scripted(scenes.busy(NOW)))
    async with app.run_test(size=WIDE) as pilot:
        screen = await open_picker(pilot, str(tmp_path))
        await burst(pilot, *(f"{folder}/older"), "enter")
        await until(pilot, lambda: "green.png" in screen_text(app))
        await burst(pilot, *"/no/such/place", "enter")
        await until(pilot, lambda: "/no/such/place cannot be read" in screen_text(app))
        assert screen.panel.listing is not None  # what was there stays
        await burst(pilot, "ctrl+u", *str(folder / "red fox.png"), "enter")
        await until(pilot, lambda: isinstance(app.screen, NewJobScreen))
        assert field(app) == str(folder / "red fox.png")


async def test_on_another_machine_it_says_whose_files_these_are(console: Build, folder: Path) -> None:
    box = Box(Target(host="me@far"))
    app = console(scripted(scenes.busy(NOW)), box=box)
    async with app.run_test(size=SMALL) as pilot:
        await open_picker(pilot, str(folder))
        text = " ".join(screen_text(app).split())
        assert "files of this machine" in text and "me@far" in text and "put" in text
    box.close()


async def test_an_older_folder_does_not_come_back_and_a_hanging_disk_holds_nothing_up(
    console: Build, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = console(scripted(scenes.busy(NOW)))
    slow = threading.Event()
    usual, is_file = image_picker.list_folder, os.path.isfile

    def listed(place: Path) -> Any:
        if place.name == "older":
            slow.wait(3)
        return usual(place)

    def hangs(path: Any) -> bool:
        return bool(slow.wait(3)) and is_file(path) if str(path).startswith("/hangs") else is_file(path)

    monkeypatch.setattr(image_picker, "list_folder", listed)
    monkeypatch.setattr(os.path, "isfile", hangs)
    async with app.run_test(size=WIDE) as pilot:
        screen = await open_picker(pilot, str(folder))
        screen._open(folder / "older")
        screen._open(folder.parent)
        await until(pilot, lambda: screen.panel.listing is not None and screen.panel.listing.folder != folder)
        await pilot.press(*"/hangs", "enter", "ctrl+u", "o")
        assert screen.panel.wanted == "o"
        slow.set()
        await pilot.pause(0.2)
        assert screen.panel.listing is not None and screen.panel.listing.folder == folder.parent


async def test_a_click_moves_the_cursor_and_a_second_one_takes(console: Build, folder: Path) -> None:
    app = console(scripted(scenes.busy(NOW)))
    async with app.run_test(size=WIDE) as pilot:
        screen = await open_picker(pilot, str(folder))
        rows = [screen.panel.render_line(y).text for y in range(screen.panel.size.height)]
        y = next(y for y, row in enumerate(rows) if "蓝色" in row)
        await pilot.click("#files", offset=(6, y))
        await pilot.pause()
        assert screen.panel.chosen == "蓝色.jpg"
        await looked(pilot, screen)
        await pilot.click("#files", offset=(6, y), times=2)
        await until(pilot, lambda: isinstance(app.screen, NewJobScreen))
        assert field(app).endswith("蓝色.jpg")


async def test_the_form_shows_the_chosen_image_where_there_is_room(console: Build, folder: Path) -> None:
    app = console(scripted(scenes.busy(NOW)))
    async with app.run_test(size=WIDE) as pilot:
        screen = await open_form(pilot, str(folder / "red fox.png"))
        thumb = screen.query_one(ImageThumb)

        def drawn() -> bool:
            thumb.look()
            return bool(thumb.display) and thumb.picture is not None

        await until(pilot, drawn)
        screen.query_one("#image", Input).value = str(folder / "notes.txt")
        await until(pilot, lambda: not drawn() and "is no image" in screen_text(app))
        screen.query_one("#image", Input).value = ""
        await until(pilot, lambda: not drawn() and not thumb.display)


async def test_a_small_form_and_a_model_without_image_have_no_room_for_one(
    console: Build, folder: Path
) -> None:
    app = console(scripted(scenes.busy(NOW)))
    async with app.run_test(size=SMALL) as pilot:
        screen = await open_form(pilot, str(folder / "red fox.png"))
        thumb = screen.query_one(ImageThumb)
        for _ in range(5):
            thumb.look()
            await pilot.pause(0.05)
        assert not thumb.display
        screen.query_one("#image_row").display = False
        await pilot.press("ctrl+t")
        await pilot.pause()
        assert app.screen is screen


def test_a_listing_is_sorted_and_leaves_out_what_leads_nowhere(folder: Path) -> None:
    (folder / "link.png").symlink_to(folder / "nowhere")
    os.mkfifo(folder / "fifo.png")
    listing = list_folder(folder)
    assert [entry.name for entry in listing.entries] == ["older", "red fox.png", "蓝色.jpg", "broken.png"]
    assert (listing.others, listing.cut) == (3, False)


@pytest.mark.parametrize("text", ["", "~nobody-here/x", "\0", "relative/nothing"])
def test_what_names_no_folder_begins_somewhere_all_the_same(text: str, tmp_path: Path) -> None:
    assert nearest_folder(text, tmp_path).is_dir()


def test_the_picker_begins_where_the_field_points(folder: Path, tmp_path: Path) -> None:
    assert nearest_folder(str(folder / "red fox.png"), tmp_path) == folder
    assert nearest_folder(str(folder / "no" / "such" / "file"), tmp_path) == folder


async def test_the_picture_moves_with_its_frame_when_the_terminal_is_resized(
    console: Build, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(window, "REFRESH_S", 3600.0)
    app = console(scripted(scenes.busy(NOW)))
    async with app.run_test(size=SMALL) as pilot:
        screen = await open_picker(pilot, str(folder / "red fox.png"))
        await looked(pilot, screen)
        await pilot.resize_terminal(*WIDE)
        await pilot.pause()
        width, _height = screen.wanted_size(*WIDE)
        place = screen.query_one(PictureView).styles.offset.x.value
        assert place == 2 + screen.panel.list_cells(width - 4) + 2


async def test_a_path_that_is_being_typed_is_not_looked_for_in_the_folder(
    console: Build, folder: Path
) -> None:
    app = console(scripted(scenes.busy(NOW)))
    async with app.run_test(size=SMALL) as pilot:
        await open_picker(pilot, str(folder / "red fox.png"))
        await pilot.press(*"/etc")
        text = screen_text(app)
        assert "↵ takes /etc, or opens it" in text and "nothing is called" not in text
        await pilot.press("ctrl+u", *"zzz")
        assert "nothing is called zzz" in screen_text(app)


async def test_a_model_that_takes_no_image_says_so(console: Build) -> None:
    app = console(scripted(scenes.cpu(NOW)))
    async with app.run_test(size=SMALL) as pilot:
        await live(pilot)
        await pilot.press("a")
        await until(pilot, lambda: isinstance(app.screen, NewJobScreen))
        await pilot.press("ctrl+t")
        await pilot.pause()
        assert isinstance(app.screen, NewJobScreen)
        assert "this model begins with no image: choose an i2v one" in screen_text(app)
