"""Owns the Chinese of what the commands and the engine say, by area; one term for one thing.

The console's own sentences, which have keys, are in `zh_cn`.

Glossary, which every catalogue of this folder and `zh_cn` keeps to:

    device memory   显存 (of a GPU), 内存 (of the host, or of either)
    weights         权重        component   组件        expert      专家
    job             任务        queue       队列        hold        挂起 / release 放行
    worker          工作进程    nursery     孵化进程    probe       探针
    load            装载        unload      卸载        switch      切换
    bring back      装回        resident    驻留        leased      占用中
    free            释放        park        清空        cleanup     清理 (hard 硬清理, full 全面清理)
    warm            预热        let go      放开        registered  登记
    receipt         回执        residue     残留        give back   归还
    unseen          不明        ghost       幽灵        leftover    遗留进程, of files 残留文件
    allocator       分配器      cache       缓存        fragmented  碎片
    context         上下文      driver      驱动        reset       重置
    denoise         去噪        decode      解码        embedding   嵌入
    finding         发现        remedy      办法        manifest    清单
    persistence mode 持久模式   display     显示输出    socket      套接字
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import import_module

OWN = ("commands", "options", "help", "import_command", "fetching", "leak_commands")
"""What this side says itself, which is looked up by its very form."""
READ = (
    "complaints",
    "engine",
    "findings",
    "leaks",
    "holders",
    "doctor",
    "reset",
    "models",
    "found",
    "importing",
    "planning",
    "quantising",
    "storage",
    "ledger",
    "telemetry",
    "worker",
    "jobs",
    "leaklog",
    "remote",
    "composed",
)
"""What is read back out of a sentence that was said in English: an engine's, and our own refusals."""


@cache
def forms(areas: tuple[str, ...] = OWN + READ) -> Mapping[str, str]:
    """The sentences of `areas` by their English form."""
    found: dict[str, str] = {}
    for area in areas:
        found.update(import_module(f"{__name__}.{area}").FORMS)
    return found
