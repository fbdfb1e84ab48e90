"""The commands about the embeddings of earlier prompts, which the engine keeps on disk."""

from __future__ import annotations

import click

from engine.wire import CacheCleared, CacheStatus
from turbotui.format import bytes_text
from turbotui.subcommands.session import JsonGroup, demo_option, json_option, open_session
from turbotui.text.spoken import counted, listed, tr


@click.group(cls=JsonGroup, invoke_without_command=True)
@json_option
@demo_option
@click.pass_context
def cache(context: click.Context, json: bool, demo: bool) -> None:
    """Show what the embeddings of earlier prompts take on disk, which spare the text encoder."""
    if context.invoked_subcommand is None:
        session = open_session(json=json, demo=demo)
        status = session.client().cache()
        session.show(status, lambda: [_status_line(status)])


@cache.command()
@json_option
@demo_option
def clear(json: bool, demo: bool) -> None:
    """Forget the embeddings of all earlier prompts."""
    session = open_session(json=json, demo=demo)
    cleared = session.client().clear_cache()
    session.show(cleared, lambda: [_cleared_line(cleared)])


def _status_line(status: CacheStatus) -> str:
    limit = tr(" of {max_bytes}", max_bytes=bytes_text(status.max_bytes)) if status.max_bytes else ""
    off = "" if status.max_bytes else tr("; no more are kept, as engine.embedding_cache_bytes is 0")
    told = listed([_count(status.entries), bytes_text(status.bytes) + limit])
    return tr("{told}, in {folder}{off}", told=told, folder=status.folder, off=off)


def _cleared_line(cleared: CacheCleared) -> str:
    return tr(
        "{entries}, {size}, removed from {folder}",
        entries=_count(cleared.entries),
        size=bytes_text(cleared.bytes),
        folder=cleared.folder,
    )


def _count(entries: int) -> str:
    return counted(entries, "prompt embedding")
