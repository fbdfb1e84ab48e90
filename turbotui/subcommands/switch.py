"""The commands that make a model the loaded one, and that give that up."""

from __future__ import annotations

import queue
import threading

import click

from engine.errors import EngineError, JobCancelled, NotNow
from engine.wire import CancelRequest, Receipt, SwitchRequest
from turbotui.client.http import HttpClient
from turbotui.subcommands.output import note
from turbotui.subcommands.receipts import show_receipt
from turbotui.subcommands.session import INTERRUPTED_EXIT, demo_option, json_option, open_session
from turbotui.subcommands.steps import steps_shown
from turbotui.text.spoken import spoken, tr


@click.command()
@click.argument("model")
@json_option
@demo_option
def switch(model: str, json: bool, demo: bool) -> None:
    """Load a model and give back what it does not need.

    Ctrl-C gives it up, and what was loaded before comes back; pressed again it leaves without waiting.
    """
    session = open_session(json=json, demo=demo)
    client = session.client()
    with steps_shown(client, "switch"):
        receipt, interrupted = _Switching(client, model).wait()
    if interrupted and receipt.error_code == JobCancelled.code:
        show_receipt(session, receipt, exit_code=INTERRUPTED_EXIT)
    show_receipt(session, receipt)


@click.command("cancel-switch")
@click.argument("model", metavar="[MODEL]", default="")
@json_option
@demo_option
def cancel_switch(model: str, json: bool, demo: bool) -> None:
    """Give up the switch to a model, or whatever switch or reload is under way.

    What was loaded before comes back; the switch itself ends with a receipt that says so.
    """
    session = open_session(json=json, demo=demo)
    asked = session.client().cancel_switch(CancelRequest(model=model or None))
    session.show(asked, lambda: [tr("{target} is given up", target=target) for target in asked.targets])


class _Switching:
    """A switch that is waited for: asked in a thread, so that Ctrl-C can ask for something else meanwhile."""

    def __init__(self, client: HttpClient, model: str) -> None:
        self._client = client
        self._model = model
        self._answers: queue.SimpleQueue[Receipt | EngineError] = queue.SimpleQueue()

    def wait(self) -> tuple[Receipt, bool]:
        """Its receipt, and whether it was asked to be given up.

        Raises:
            EngineError: what the engine answered instead.
            Exit: Ctrl-C was pressed twice.
        """
        interrupted = False
        try:
            threading.Thread(target=self._ask, name="switch", daemon=True).start()
            answer = self._answers.get()
        except KeyboardInterrupt:
            interrupted = True
            answer = self._give_up()
        if isinstance(answer, EngineError):
            raise answer
        return answer, interrupted

    def _ask(self) -> None:
        try:
            self._answers.put(self._client.switch(SwitchRequest(model=self._model)))
        except EngineError as error:
            self._answers.put(error)

    def _give_up(self) -> Receipt | EngineError:
        try:
            note(
                tr("giving up the switch to {model}; Ctrl-C again leaves it to the engine", model=self._model)
            )
            try:
                self._client.cancel_switch(CancelRequest(model=self._model))
            except NotNow:
                pass  # it has just ended, one way or the other
            except EngineError as error:
                note(tr("it could not be given up: {error}", error=spoken(str(error))))
            return self._answers.get()
        except KeyboardInterrupt:
            note(tr("left; `turbotui status` shows what is loaded"))
            raise click.exceptions.Exit(INTERRUPTED_EXIT) from None
