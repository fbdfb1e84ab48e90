"""Models to have, as an engine would tell them: for the scripted client, and the tests of its screen."""

from __future__ import annotations

from typing import Literal

from engine.wire import (
    ErrorBody,
    FileToGet,
    FoundModel,
    FoundPart,
    FoundVerdict,
    GetPlan,
    Licence,
    ModelErrand,
    ModelScan,
    ReleasedModel,
)

GIB = 2**30
TURBO = "TurboWan2.1-T2V-1.3B-480P"
FOLDER = "/data/TurboDiffusion/checkpoints"
TEXT = f"{FOLDER}/models_t5_umt5-xxl-enc-bf16.pth"
VAE = f"{FOLDER}/Wan2.1_VAE.pth"


DISTILLED = "it is distilled by TurboDiffusion: it makes videos in 1 to 4 steps"
NOT_DISTILLED = (
    "its DiT has no proj_l, so it is not distilled by TurboDiffusion and makes no video in 1 to 4 steps; "
    "encoder, VAE and tokenizer of such a model can be used beside a TurboWan checkpoint"
)


def _part(
    path: str,
    kind: Literal["dit", "text", "vae"],
    title: str,
    gib: float,
    verdict: FoundVerdict = "usable",
    sentence: str = DISTILLED,
) -> FoundPart:
    return FoundPart(
        path=path,
        kind=kind,
        verdict=verdict,
        title=title,
        sentence=sentence,
        bytes=int(gib * GIB),
        num_files=1,
    )


def scan() -> ModelScan:
    """A checkout of TurboDiffusion without its tokenizer for one, and a model of Wan's own."""
    return ModelScan(
        at=0.0,
        elapsed_s=1.2,
        models=(
            FoundModel(
                name=f"{TURBO}-quant",
                kind="t2v",
                title="TurboWan T2V DiT, 30 layers of 1536, int8",
                bytes=int(12.4 * GIB),
                paths=(f"{FOLDER}/{TURBO}-quant.pth", TEXT, VAE, f"{FOLDER}/google/umt5-xxl"),
                command=f"turbotui import {FOLDER}/{TURBO}-quant.pth {TEXT} {VAE} --name {TURBO}-quant",
            ),
            FoundModel(
                name="TurboWan2.2-I2V-A14B-720P",
                kind="i2v",
                title="TurboWan I2V DiT, 40 layers of 5120, bf16",
                bytes=int(37.4 * GIB),
                paths=(f"{FOLDER}/TurboWan2.2-I2V-A14B-high-720P.pth", TEXT, VAE),
                missing=("the expert for low noise was not found; image to video takes two",),
                command="turbotui import",
            ),
        ),
        parts=(
            _part(f"{FOLDER}/{TURBO}-quant.pth", "dit", "TurboWan T2V DiT, 30 layers of 1536, int8", 1.35),
            _part(TEXT, "text", "umT5 encoder, 24 layers, bf16", 10.6),
            _part(VAE, "vae", "Wan2.1 VAE, fp32", 0.47),
            _part(
                "/data/Wan2.1-T2V-14B/diffusion_pytorch_model.safetensors",
                "dit",
                "Wan T2V DiT, 40 layers of 5120, bf16",
                26.6,
                "parts",
                NOT_DISTILLED,
            ),
        ),
        places=(FOLDER, "/root", "/data"),
        others=3,
    )


def released() -> list[ReleasedModel]:
    return [
        ReleasedModel(
            name=name,
            kind="i2v" if "I2V" in name else "t2v",
            int8=name.endswith("-quant"),
            repository=f"TurboDiffusion/{name.removesuffix('-quant')}",
            about_bytes=int(gib * GIB),
            shared_bytes=int(11.1 * GIB),
            presence="imported" if name == f"{TURBO}-quant" else "absent",
        )
        for name, gib in ((TURBO, 13.7), (f"{TURBO}-quant", 12.4), ("TurboWan2.2-I2V-A14B-720P", 64.3))
    ]


def plan(name: str = TURBO, *, offline: bool = False) -> GetPlan:
    repository = f"TurboDiffusion/{name}"
    file = FileToGet(
        role="dit", repository=repository, path=f"{name}.pth", bytes=int(2.64 * GIB), have_bytes=0
    )
    problem = ErrorBody(
        code="not_now",
        message="https://huggingface.co cannot be reached ([Errno -2] Name or service not known); check the "
        "network and HF_ENDPOINT, or fetch the files on another machine",
    )
    return GetPlan(
        name=name,
        endpoint="https://huggingface.co",
        folder="/root/.cache/huggingface/hub",
        files=(file,),
        licences=(
            Licence(repository=repository, name="apache-2.0"),
            Licence(repository="Wan-AI/Wan2.1-T2V-1.3B", name=None),
        ),
        missing_bytes=None if offline else int(13.7 * GIB),
        free_bytes=812 * GIB,
        problem=problem if offline else None,
        elsewhere=(f"curl -fL -C - --create-dirs -o {name}.pth https://huggingface.co/…",) if offline else (),
        here=("turbotui import /root/turbowan",) if offline else (),
    )


def errand(state: Literal["running", "done", "failed"] = "running") -> ModelErrand:
    return ModelErrand(
        verb="get",
        name=TURBO,
        state=state,
        bytes=int(4.1 * GIB),
        total_bytes=int(13.7 * GIB),
        rate=88.0 * 2**20,
        detail="models_t5_umt5-xxl-enc-bf16.pth",
        at=0.0,
    )
