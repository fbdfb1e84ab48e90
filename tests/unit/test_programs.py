"""Which program a command line is, and that nothing else is taken for it."""

from __future__ import annotations

import pytest

from engine.telemetry.procfs import clean
from engine.telemetry.programs import is_web_ui, program_of


@pytest.mark.parametrize(
    ("name", "command", "program"),
    [
        ("python", "python turbodiffusion/serve/app.py", "TurboDiffusion WebUI"),
        ("python", "python /srv/TurboDiffusion/webui.py --port 7860", "TurboDiffusion WebUI"),
        ("python", "python app.py --no-half-vae --disable-nan-check", "TurboDiffusion WebUI"),
        ("python3", "/opt/venv/bin/python3 /home/li wei/ComfyUI/main.py --listen", None),
        ("python3", "/opt/venv/bin/python3 /home/liwei/ComfyUI/main.py --listen", "ComfyUI"),
        ("python", "python -u -X dev main.py --lowvram", "ComfyUI"),
        ("python", "python launch.py --medvram", "Stable Diffusion WebUI"),
        ("python", "python /x/stable-diffusion-webui-forge/webui.py", "Stable Diffusion WebUI"),
        ("invokeai-web", "/v/bin/python /v/bin/invokeai-web", "InvokeAI"),
        ("VLLM::EngineCor", "VLLM::EngineCore", "vLLM"),
        ("vllm", "/v/bin/python /v/bin/vllm serve big", "vLLM"),
        ("python3", "python3 -m vllm.entrypoints.openai.api_server --model m", "vLLM"),
        ("python3", "python3 -m sglang.launch_server", "SGLang"),
        ("sglang::schedul", "sglang::scheduler_TP0", "SGLang"),
        ("ollama", "/usr/local/bin/ollama runner --ollama-engine", "Ollama"),
        ("llama-server", "./llama-server -m x.gguf", "llama.cpp server"),
        ("text-generation", "/usr/bin/text-generation-launcher", "Text Generation Inference"),
        ("tritonserver", "tritonserver --model-store=/m", "Triton server"),
        ("python", "/v/bin/python -m ipykernel_launcher -f /k.json", "Jupyter kernel"),
        ("torchrun", "/v/bin/python /v/bin/torchrun train.py", "torchrun training"),
        ("python", "python -m torch.distributed.run train.py", "torchrun training"),
        ("accelerate", "/v/bin/python /v/bin/accelerate launch train.py", "accelerate training"),
        ("Xorg", "/usr/lib/xorg/Xorg :0", "Xorg"),
        ("gnome-shell", "/usr/bin/gnome-shell", "GNOME Shell"),
        ("nvidia-cuda-mps", "nvidia-cuda-mps-server", "CUDA MPS server"),
        ("nv-hostengine", "/usr/bin/nv-hostengine -n", "DCGM"),
        ("tt-worker", "/v/bin/python -c from multiprocessing.forkserver import main", "turbotui worker"),
        ("python", "/v/bin/python -P -m engine.worker.entry --fd 9", "turbotui worker"),
    ],
)
def test_a_program_is_known_by_its_command_line(name: str, command: str, program: str | None) -> None:
    assert program_of(name, command) == program


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("", ""),
        ("python", "python main.py"),
        ("python", "python train.py --model vllm --folder /data/ComfyUI/main.py"),
        ("python", "python app.py"),
        ("python", "python -c import vllm"),
        ("python", "python my_vllm_notes.py"),
        ("vim", "vim /home/a/ComfyUI/main.py"),
        ("bash", "bash -c torchrun train.py"),
        ("python", "python -m engine.daemonic"),
        ("python", "python -m"),
    ],
)
def test_what_only_mentions_a_program_is_not_it(name: str, command: str) -> None:
    assert program_of(name, command) is None


@pytest.mark.parametrize(
    "text", ["\x1b]0;ComfyUI\x07", "a" * 4000, "\u202evllm", "-m " * 1000, " ", "\ufffd"]
)
def test_a_hostile_name_brings_nothing_of_its_own(text: str) -> None:
    for program in (program_of(text, text), program_of(clean(text, 64), f"python {text}/ComfyUI/main.py")):
        assert program is None or program in ("ComfyUI", "vLLM")


def test_only_what_people_open_in_a_browser_is_a_web_ui() -> None:
    assert is_web_ui("ComfyUI") and is_web_ui("TurboDiffusion WebUI")
    assert not is_web_ui("vLLM") and not is_web_ui(None) and not is_web_ui("turbotui worker")
