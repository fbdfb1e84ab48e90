"""The command that asks for a video."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click
import msgspec

from engine.errors import EngineError, InvalidRequest, NotFound
from engine.wire import Attention, Job, JobBatch, JobSpec, ModelKind, ModelStatus, Quant, Residency
from turbotui.client.files import FILE_TIMEOUT_S
from turbotui.client.http import HttpClient
from turbotui.draft import MAX_SAMPLES, samples_of, whole_path
from turbotui.draft import together as one_video
from turbotui.format import bytes_text, seconds
from turbotui.subcommands.explain import attention_option, finite, residency_option, topk_option
from turbotui.subcommands.jobs import held_line, job_line
from turbotui.subcommands.many import Options, queue_many
from turbotui.subcommands.output import note
from turbotui.subcommands.quant import quant_option, runs_line
from turbotui.subcommands.session import INTERRUPTED_EXIT, demo_option, json_option, one_of, open_session
from turbotui.subcommands.waiting import raise_unless_done, wait_for_job
from turbotui.text.spoken import spoken, tr

PROMPT_LIMIT_BYTES = 2**20
"""More than any engine takes; keeps `--prompt-file` from reading a disk."""


@click.command()
@click.option("--model", "-m", help="A model's name; with --demo the smallest fitting demo model.")
@click.option("--prompt", "-p", help="What the video shows.")
@click.option("--prompt-file", metavar="FILE", help="Read the prompt there; - is stdin.")
@click.option(
    "--from",
    "many",
    metavar="FILE",
    help="Queue a job for each line of a file, all or none: a prompt a line, or JSON lines with a prompt and "
    "any other field of a job; - is stdin. What a line does not say is as in the other options.",
)
@click.option("--samples", type=click.IntRange(1, MAX_SAMPLES), help="So many jobs, with seeds in a row.")
@click.option("--together", is_flag=True, help="With --samples: one job instead, side by side in one video.")
@click.option("--again", is_flag=True, help="With --from: queue also what waits, runs or was just done.")
@click.option("--dry-run", is_flag=True, help="With --from: only tell what would be queued.")
@click.option("--image", metavar="FILE", help="The first frame, for image-to-video models.")
@click.option("--resolution", help="A name in the model's table, such as 480p.")
@click.option("--aspect-ratio", help="Such as 16:9.")
@click.option("--frames", type=int, help="4n + 1.")
@click.option("--steps", type=int, help="Denoising steps, 1 to 4.")
@click.option("--seed", type=int, default=0, show_default=True, help="Same seed and device, same frames.")
@click.option("--sigma-max", type=float, help="Where the noise starts; by default 80 for t2v, 200 for i2v.")
@click.option("--ode", is_flag=True, help="Steps without fresh noise; image-to-video models only.")
@click.option("--adaptive", is_flag=True, help="The image's own shape, at about as many pixels.")
@residency_option
@attention_option
@topk_option
@quant_option
@click.option("--output-dir", metavar="DIR", help="Where the video goes.")
@click.option("--priority", type=int, default=0, show_default=True, help="Higher runs first.")
@click.option("--wait", is_flag=True, help="Wait for the video and show its progress.")
@json_option
@demo_option
def generate(
    model: str | None,
    prompt: str | None,
    prompt_file: str | None,
    many: str | None,
    samples: int | None,
    together: bool,
    again: bool,
    dry_run: bool,
    image: str | None,
    resolution: str | None,
    aspect_ratio: str | None,
    frames: int | None,
    steps: int | None,
    seed: int,
    sigma_max: float | None,
    ode: bool,
    adaptive: bool,
    residency: Residency | None,
    attention: Attention,
    sla_topk: float | None,
    quant: Quant,
    output_dir: str | None,
    priority: int,
    wait: bool,
    json: bool,
    demo: bool,
) -> None:
    """Queue a video. With --wait --json: print its manifest, whose `output` is the video's path."""
    session = open_session(json=json, demo=demo)
    one_of("--prompt, --prompt-file and --from", prompt, prompt_file, many)
    if together and samples is None:
        raise InvalidRequest("--together is for --samples; leave it out, or say how many")
    if wait and (many or ((samples or 1) > 1 and not together)):
        raise InvalidRequest("--wait is for one job; `turbotui jobs` and `turbotui watch` follow many")
    if many is None and (again or dry_run):
        raise InvalidRequest("--again and --dry-run are for --from; leave them out, or give a file")
    if model is None and many is None and not session.demo:
        raise InvalidRequest(
            "no --model is given; `turbotui models` lists them, --demo takes a small one to try"
        )
    text = ""
    if many is None:
        text = prompt if prompt is not None else _read_prompt(prompt_file or "-")
    first_frame, folder = _absolute(image), _absolute(output_dir)
    if session.target is not None:  # what is no file here is one of that machine
        first_frame, folder = image, output_dir
    client = session.client()
    kind: ModelKind = "i2v" if image else "t2v"
    spec = JobSpec(
        model=model or ("" if many and not session.demo else _demo_model(client, kind).name),
        prompt=text,
        image=first_frame,
        resolution=resolution,
        aspect_ratio=aspect_ratio,
        frames=frames,
        steps=steps,
        seed=seed,
        sigma_max=finite("--sigma-max", sigma_max),
        ode=ode,
        adaptive=adaptive,
        output_dir=folder,
        priority=priority,
        residency=residency,
        attention=attention,
        sla_topk=finite("--sla-topk", sla_topk),
        quant=quant,
    )
    if together and samples is not None:
        spec, samples = one_video(spec, samples), None
    if many is not None:
        queue_many(session, client, many, spec, Options(samples=samples or 1, again=again, dry_run=dry_run))
        return
    if samples is not None and samples > 1:
        queued = client.submit_many(JobBatch(specs=samples_of(spec, samples), again=True))
        first, last = queued.job_ids[0], queued.job_ids[-1]
        session.show(
            queued,
            lambda: [tr("jobs {first} to {last} queued; `turbotui jobs` lists them", first=first, last=last)],
        )
        return
    job = client.submit(spec)
    if job.doubt:
        note(spoken(job.doubt))
    if not wait:
        told = tr("{job}; `turbotui job show {id}` follows it", job=job_line(job), id=job.id)
        session.show(job, lambda: [told, *runs_line(job.runs), *held_line(client, [job])])
        return
    for line in runs_line(job.runs):
        note(line)
    try:
        ended = wait_for_job(session, client, job)
    except KeyboardInterrupt:
        note(
            tr(
                "job {id} goes on; `turbotui job show {id}` follows it, `turbotui job cancel {id}` ends it",
                id=job.id,
            )
        )
        raise click.exceptions.Exit(INTERRUPTED_EXIT) from None
    raise_unless_done(ended)
    manifest = _read_manifest(ended) if session.box is None else client.ask(*_manifest_of(ended))
    session.show(manifest, lambda: _result_lines(ended, manifest))


def _demo_model(client: HttpClient, kind: ModelKind) -> ModelStatus:
    """The smallest usable demo model of `kind`."""
    fitting = [model for model in client.models() if model.demo and model.kind == kind and model.takes_jobs]
    if not fitting:
        raise NotFound(f"no demo model of kind {kind} can be used; `turbotui models --demo` says why")
    # A person's int8 sibling of one is smaller, and for whoever asks for it.
    return min(fitting, key=lambda model: (model.quantised_from is not None, model.bytes))


def _read_prompt(name: str) -> str:
    try:
        if name == "-":
            raw = sys.stdin.buffer.read(PROMPT_LIMIT_BYTES + 1)
        else:
            with open(name, "rb") as file:
                raw = file.read(PROMPT_LIMIT_BYTES + 1)
        if len(raw) > PROMPT_LIMIT_BYTES:
            raise InvalidRequest(
                f"the prompt in {name} is longer than {PROMPT_LIMIT_BYTES} bytes; shorten it"
            )
        # An editor's last newline is not part of what the person wrote.
        return raw.decode("utf-8-sig").rstrip("\r\n")
    except OSError as error:
        raise InvalidRequest(f"the prompt in {name} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InvalidRequest(
            f"the prompt in {name} is not UTF-8 (byte {error.start}); save it as UTF-8"
        ) from error


def _absolute(path: str | None) -> str | None:
    return None if path is None else whole_path(path)


def _read_manifest(job: Job) -> dict[str, Any]:
    """The manifest as it lies beside the video, with fields of newer engines too."""
    try:
        if job.manifest is None:
            raise FileNotFoundError("it names none")
        manifest: dict[str, Any] = msgspec.json.decode(Path(job.manifest).read_bytes(), type=dict[str, Any])
        return manifest
    except (OSError, msgspec.DecodeError) as error:
        raise EngineError(
            f"job {job.id} is done, but its manifest {job.manifest} cannot be read: {error}"
        ) from error


def _manifest_of(job: Job) -> tuple[str, type[dict[str, Any]], float]:
    return f"/jobs/{job.id:d}/manifest", dict[str, Any], FILE_TIMEOUT_S


def _result_lines(job: Job, manifest: dict[str, Any]) -> Iterable[str]:
    yield tr("job {id} is done in {get}", id=job.id, get=seconds(manifest.get("elapsed_s")))
    yield f"{manifest.get('output', job.output)}  {bytes_text(manifest.get('output_bytes'))}"
