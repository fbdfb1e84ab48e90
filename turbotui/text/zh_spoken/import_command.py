"""Owns the Chinese of `turbotui import`: its help, its options, what it prints."""

# ruff: noqa: E501  (a sentence and its translation stand in one line)
from __future__ import annotations

FORMS: dict[str, str] = {
    "{component}: {share} of {size} written": "{component}：{size} 已写 {share}",
    "another import is under way; waiting for its end": "另一个导入正在进行；等待它结束",
    "what is whole of the copy stays; the same command goes on from there": "已完整复制的部分会保留；同一命令从那里继续",
    "{name} is ready, after {took}: turbotui switch {name}": "{name} 已就绪，用时 {took}：turbotui switch {name}",
    "{name} ({kind}) will be {path}": "{name}（{kind}）将位于 {path}",
    "{size} will be written; {free} are free": "将写入 {size}；剩余 {free}",
    "the files are used where they lie: leave them there": "文件就地使用：请勿移动",
    "{count} files of {path}": "{path} 的 {count} 个文件",
    "of {model}": "来自 {model}",
    "Make a model of released checkpoints: TurboWan, Wan2.1_VAE.pth, umT5, or diffusers repositories.": "由发布的检查点生成模型：TurboWan、Wan2.1_VAE.pth、umT5 或 diffusers 仓库。",
    "In place by default: the model is a table that points into the files, which stay where they are. What is not given is taken from beside it or from a model here; the tokenizer also from the hub's cache.": "默认就地导入：模型是指向文件的表，文件留在原处。没有给出的部分取自旁边的文件或这里的模型；分词器也取自 hub 缓存。",
    "A copy that Ctrl-C ended goes on where it stopped when it is asked for again. With --json: the plan, the progress and the model, a line of JSON each.": "被 Ctrl-C 中止的复制再次执行时从中止处继续。用 --json：计划、进度和模型各一行 JSON。",
    "What the model is called; by default as the DiT's file is.": "模型的名字；默认与 DiT 文件同名。",
    "The high-noise expert's file.": "高噪声专家的文件。",
    "The low-noise expert's file.": "低噪声专家的文件。",
    "Write the weights anew as aligned safetensors.": "把权重重新写成对齐的 safetensors。",
    "In which weights are kept: bf16 as the reference computes, or as the files have them.": "权重保持的格式：与参考实现相同的 bf16，或文件原有的格式。",
    "Only say what would be made of what.": "只说明会用什么生成什么。",
    "Make a model anew that was imported before.": "重新生成先前导入的模型。",
    "Believe --high and --low against the files' names.": "以 --high 和 --low 为准，不理会文件名。",
    "Take a DiT that is not distilled, too.": "也接受未蒸馏的 DiT。",
}
