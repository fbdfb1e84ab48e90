"""Which program a command line is: pure, by what each program's own documentation has people type.

A name is for people's eyes only. Anybody can call a process what they like, so nothing is ever ended
because of it. Command lines come cleaned (`engine.telemetry.procfs.clean`) and are never shown from here.
"""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import PurePosixPath

TURBOTUI_WORKER = "turbotui worker"
"""Of an engine that may be another user's."""
TURBODIFFUSION = "TurboDiffusion WebUI"
MPS = "CUDA MPS server"
WEB_UIS = frozenset({TURBODIFFUSION, "ComfyUI", "Stable Diffusion WebUI", "InvokeAI", "Wan2GP", "Gradio app"})
"""Programs that a person opens in a browser: one that nobody can reach any more is a leftover."""

_BY_NAME = {
    "tt-worker": TURBOTUI_WORKER,
    "tt-nursery": "turbotui nursery",
    "tt-probe": "turbotui probe",
    "nvidia-cuda-mps": MPS,
    "nvidia-cuda-mps-server": MPS,
    "nvidia-cuda-mps-control": MPS,
    "nv-hostengine": "DCGM",
    "dcgm-exporter": "DCGM exporter",
    "dcgmi": "DCGM",
    "nvidia-smi": "nvidia-smi",
    "nvitop": "nvitop",
    "nvtop": "nvtop",
    "gpustat": "gpustat",
    "Xorg": "Xorg",
    "Xwayland": "Xwayland",
    "gnome-shell": "GNOME Shell",
    "kwin_wayland": "KWin",
    "kwin_x11": "KWin",
    "ollama": "Ollama",
    "ollama_llama_server": "Ollama",
    "llama-server": "llama.cpp server",
    "llama-cli": "llama.cpp",
    "tritonserver": "Triton server",
    "text-generation-launcher": "Text Generation Inference",
    "text-generation-server": "Text Generation Inference",
    "invokeai-web": "InvokeAI",
    "blender": "Blender",
}
"""By the kernel's name of a process (15 characters) or the program's file name."""

_BY_TITLE = (("VLLM::", "vLLM"), ("sglang::", "SGLang"), ("ray::", "Ray"))
"""Of processes that write themselves a title over their command line."""

_BY_WORD: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("turbotui engine", re.compile(r"engine\.daemon")),
    (TURBOTUI_WORKER, re.compile(r"engine\.worker\.entry")),
    ("turbotui probe", re.compile(r"engine\.telemetry\.probe")),
    ("vLLM", re.compile(r"vllm(\.entrypoints\..*)?|vllm-openai")),
    ("SGLang", re.compile(r"sglang(\.launch_server|\.srt\..*)?")),
    ("Text Generation Inference", re.compile(r"text[-_]generation[-_](server|launcher)(\..*)?")),
    ("Jupyter kernel", re.compile(r"ipykernel(_launcher)?|colab_kernel_launcher")),
    ("Jupyter", re.compile(r"jupyter(-lab|-notebook|hub)?|jupyter_server")),
    ("accelerate training", re.compile(r"accelerate(\.commands\.launch)?")),
    ("torchrun training", re.compile(r"torchrun|torch\.distributed\.(run|launch)")),
    ("InvokeAI", re.compile(r"invokeai(-web)?(\..*)?")),
    ("DeepSpeed training", re.compile(r"deepspeed(\.launcher\..*)?")),
)
"""By a whole word of the command line that names a module (`-m` or a script's file name)."""

_BY_PATH: tuple[tuple[str, re.Pattern[str]], ...] = (
    (TURBODIFFUSION, re.compile(r"turbodiffusion.*\.py$|turbodiffusion\.serve(\..*)?$", re.IGNORECASE)),
    ("ComfyUI", re.compile(r"comfyui[^/]*/.*\.py$|^comfyui(\.py)?$", re.IGNORECASE)),
    (
        "Stable Diffusion WebUI",
        re.compile(
            r"(stable-diffusion-webui|(sd-webui-)?forge|automatic)[^/]*/(launch|webui)\.py$", re.IGNORECASE
        ),
    ),
    ("Wan2GP", re.compile(r"(^|/)wgp\.py$|wan2gp[^/]*/.*\.py$", re.IGNORECASE)),
    ("Gradio app", re.compile(r"(^|/)(gradio_[\w-]+|[\w-]+_gradio|app_gradio|gradio)\.py$", re.IGNORECASE)),
)
"""By the path of a script, which holds the folder that the program was cloned into."""

_COMFY_OPTIONS = frozenset({"--lowvram", "--highvram", "--normalvram", "--novram", "--preview-method"})
_COMFY_OPTIONS |= {
    "--front-end-version",
    "--disable-smart-memory",
    "--output-directory",
    "--disable-auto-launch",
}
_WEBUI_OPTIONS = frozenset({"--no-half-vae", "--disable-nan-check", "--medvram", "--no-half", "--ckpt-dir"})
_PYTHON = re.compile(r"(python|pypy)[\d.]*$")


@lru_cache(maxsize=2048)
def program_of(name: str, command: str) -> str | None:
    """The program behind a process, or None.

    `name` is what the kernel calls it, `command` its command line with blanks between the words.
    """
    for title, program in _BY_TITLE:
        if command.startswith(title) or name.startswith(title):
            return program
    words = command.split(" ")
    base = PurePosixPath(words[0]).name
    for known in (name, base):
        if known in _BY_NAME:
            return _BY_NAME[known]
    if not words[0]:
        return None
    subject = _subject(words)
    for word in subject:
        stem = PurePosixPath(word).name
        for program, pattern in _BY_WORD:
            if pattern.fullmatch(word) or pattern.fullmatch(stem.removesuffix(".py")):
                return program
        for program, pattern in _BY_PATH:
            if pattern.search(word):
                return program
    return _by_options(subject, frozenset(words))


def is_web_ui(program: str | None) -> bool:
    """Whether people reach it through a port that it listens on."""
    return program in WEB_UIS


def _subject(words: list[str]) -> tuple[str, ...]:
    """The words that name what runs: the program itself, and under Python the script or module.

    What follows belongs to the program: a file `--model vllm` makes nothing a vLLM.
    """
    found = [words[0]]
    if not _PYTHON.search(PurePosixPath(words[0]).name):
        return tuple(found)
    rest = iter(words[1:])
    for word in rest:
        if word in ("-m", "-cm"):
            found += [next(rest, "")]
            break
        if word in ("-c", "-"):
            break
        if word in ("-X", "-W"):
            next(rest, "")
        elif not word.startswith("-"):
            found.append(word)
            break
    return tuple(found)


def _by_options(subject: tuple[str, ...], words: frozenset[str]) -> str | None:
    """A WebUI started from within its own folder, by options that only it has."""
    script = PurePosixPath(subject[-1]).name
    if script == "main.py" and words & _COMFY_OPTIONS:
        return "ComfyUI"
    if script in ("launch.py", "webui.py") and (words & _WEBUI_OPTIONS or "--xformers" in words):
        return "Stable Diffusion WebUI"
    if script in ("app.py", "webui.py") and words & _WEBUI_OPTIONS:
        return TURBODIFFUSION  # the guide's own start line
    return None
