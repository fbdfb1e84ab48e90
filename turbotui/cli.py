"""The commands of turbotui by name, and what becomes of their errors.

This module and what it imports load no Textual, torch or pydantic: a command that only looks
answers in a fraction of a second. The console's modules are imported when it opens.
"""

from __future__ import annotations

import sys

import click

from engine.errors import EngineError, InvalidRequest
from engine.wire import ErrorBody
from turbotui import garbage
from turbotui.subcommands import (
    audit,
    bench,
    bench_generate,
    cache,
    check,
    doctor,
    explain,
    files,
    follow,
    generate,
    importing,
    jobs,
    leaks,
    ledger,
    lifecycle,
    memory,
    models,
    opening,
    outputs,
    processes,
    quantize,
    recording,
    reset,
    switch,
    there,
    watch,
    web,
)
from turbotui.subcommands.output import print_json, report
from turbotui.subcommands.session import (
    JsonGroup,
    demo_option,
    find_meant,
    host_option,
    json_option,
    read_only_option,
)
from turbotui.subcommands.speaking import complaint, find_language, in_every_language

EPILOG = """\b
Exit codes:
  0    done
  2    a command or value that could never work
  3    no engine answers, or it may not be used
  4    the engine refused
  5    the work was accepted and failed
  6    check: the worst finding is a notice
  7    check: it is a warning; doctor: there is a problem; leaks: a leak
  8    check: it is critical
  130  interrupted; a job that was waited for goes on, a switch was given up
"""


def _group(name: str, help: str, *commands: click.Command) -> click.Group:
    group: click.Group = json_option(JsonGroup(name, help=help, epilog=EPILOG, no_args_is_help=True))
    for command in commands:
        group.add_command(command)
    return group


@click.group(
    cls=JsonGroup,
    epilog=EPILOG,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@json_option
@demo_option
@click.option("--remote-command", metavar="COMMAND", help="What runs turbotui on the machine of --host.")
@click.option("--log", metavar="FILE", help="Show another program's log in the console, as a WebUI's.")
@click.option("--no-mouse", is_flag=True, help="Leave the mouse to the terminal, whatever the settings say.")
@read_only_option
@click.option("--ascii", is_flag=True, help="The console draws with ASCII alone.")
@click.option("--version", is_flag=True, help="The same as `turbotui version`.")
@click.pass_context
def app(
    context: click.Context,
    json: bool,
    demo: bool,
    remote_command: str | None,
    log: str | None,
    no_mouse: bool,
    read_only: bool,
    ascii: bool,
    version: bool,
) -> None:
    """Operate TurboDiffusion video models with deterministic VRAM. Alone it opens the console."""
    if context.invoked_subcommand is None:
        if version:
            context.invoke(lifecycle.version, json=json)
            return
        if json:
            raise click.UsageError("the console prints no JSON; name a command, or leave --json out")
        garbage.hold()
        from turbotui.console import open_console

        target = find_meant()
        if code := open_console(
            demo=demo, target=target, log=log, mouse=not no_mouse, ascii=ascii, read_only=read_only
        ):
            raise click.exceptions.Exit(code)
    elif read_only and context.invoked_subcommand != "view":
        raise click.UsageError("--read-only is the console's; leave it out before a command")
    elif log is not None or no_mouse:
        raise click.UsageError("--log and --no-mouse are the console's; leave them out before a command")


for _command in (
    generate.generate,
    jobs.list_jobs,
    _group(
        "job",
        "Look at one job or change it.",
        jobs.show,
        jobs.cancel,
        jobs.retry,
        jobs.duplicate,
        jobs.move,
        jobs.hold,
        jobs.release,
    ),
    models.models_group,
    importing.import_,
    quantize.quantize,
    switch.switch,
    switch.cancel_switch,
    models.unload,
    models.free,
    memory.park,
    memory.cleanup,
    memory.warm,
    memory.drop_warm,
    processes.ps,
    processes.kill,
    follow.watch,
    check.check,
    leaks.leaks,
    audit.audit,
    ledger.ledger,
    doctor.doctor,
    reset.reset,
    explain.explain,
    cache.cache,
    watch.status,
    watch.metrics,
    _group("queue", "The queue as a whole.", watch.resume_queue),
    watch.logs,
    recording.report,
    recording.replay,
    _group("recording", "What the flight recorder keeps.", recording.extent, recording.export),
    _group(
        "engine",
        "Start, stop and find the engine.",
        lifecycle.start,
        lifecycle.stop,
        lifecycle.restart,
        lifecycle.status,
        lifecycle.run,
    ),
    _group(
        "bench",
        "Measure this host.",
        bench.start,
        bench.switch,
        bench_generate.generate,
        bench.balance,
        bench.console,
    ),
    _group("outputs", "Look at finished videos, or delete old ones.", outputs.list_outputs, outputs.prune),
    opening.open_,
    files.fetch,
    files.put,
    opening.view,
    web.web,
    lifecycle.version,
):
    app.add_command(_command)
app.params.append(host_option())
there.reach_everywhere(app)
in_every_language(app)


def main(arguments: list[str] | None = None) -> int:
    """Run one command and give its exit code; `arguments` are those of the process unless given."""
    given = sys.argv[1:] if arguments is None else arguments
    json = "--json" in given
    try:
        find_language(given)
        result = app.main(given, prog_name="turbotui", standalone_mode=False)
    except EngineError as error:
        return report(error, json=json)
    except click.ClickException as error:
        if json:
            print_json(ErrorBody(code=InvalidRequest.code, message=error.format_message()))
        complaint(error)
        return error.exit_code
    except click.Abort:
        return 130
    return result if isinstance(result, int) else 0
