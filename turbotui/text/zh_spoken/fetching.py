"""Owns the Chinese of `turbotui models scan` and `turbotui models get`: what they print, and their help."""

# ruff: noqa: E501  (a sentence and its translation stand in one line)
from __future__ import annotations

FORMS: dict[str, str] = {
    "Fetch it?": "下载吗？",
    "no models; `turbotui models scan` looks for some on this host": "没有模型；`turbotui models scan` 在本机查找",
    "`turbotui models get` lists what can be fetched": "`turbotui models get` 列出可以下载的",
    "`turbotui models --demo` makes three small ones to try": "`turbotui models --demo` 生成三个小模型供试用",
    "all of it lies in {folder} already": "全部已在 {folder} 中",
    "here already": "已在本机",
    "it lies in {folder}; import it with `turbotui models scan`'s command": "它在 {folder} 中；用 `turbotui models scan` 给出的命令导入",
    "licence of {repository}: its card names none; look at {page}": "{repository} 的许可证：其说明中没有写；请查看 {page}",
    "licence of {repository}: {name}": "{repository} 的许可证：{name}",
    "nothing here makes a model; `turbotui models get` lists what can be fetched": "这里没有能组成模型的文件；`turbotui models get` 列出可以下载的",
    "reading what is here already": "正在读取已有的部分",
    "sizes by the shapes of the nets, with {shared} of encoder and VAE that all of them share": "大小按网络的形状计算，其中 {shared} 是所有模型共用的编码器和 VAE",
    "what came stays; the same command goes on from there": "已下载的部分会保留；同一条命令会从那里继续",
    "{bytes} of it here": "本机已有 {bytes}",
    "{count} folder": "{count} 个文件夹",
    "{count} folders": "{count} 个文件夹",
    "{count} weight file": "{count} 个权重文件",
    "{count} weight files": "{count} 个权重文件",
    "{files} of other nets not listed": "另有其他网络的 {files}，没有列出",
    "{missing} to fetch into {folder}, whose disk has {free} free": "需要下载 {missing} 到 {folder}，那里的磁盘剩余 {free}",
    "{model}: cannot be imported yet": "{model}：还不能导入",
    "{model}: import it with": "{model}：用以下命令导入",
    "{model}: imported already": "{model}：已导入",
    "{name} from {endpoint}": "{name}，来自 {endpoint}",
    "Look for models on this host: hub caches, TurboDiffusion and ComfyUI folders, disks, and each PATH.": "在本机查找模型：模型中心的缓存、TurboDiffusion 和 `ComfyUI` 的文件夹、磁盘以及每个 `PATH`。",
    "Tells what each find is by its tensors, and the command that imports what belongs together. Reads no weights and changes nothing.": "按张量说明找到的每一个是什么，并给出导入成套文件的命令。不读取权重，也不改动任何东西。",
    "Fetch a released model from the Hub and import it in place; without NAME list those there are.": "从模型中心下载已发布的模型并就地导入；不给 `NAME` 则列出有哪些。",
    "Tells size and licence and asks first. Goes on where it broke off, and keeps only what has the right digest. Honours HF_ENDPOINT, HF_HOME, HF_TOKEN and HF_HUB_OFFLINE; where the Hub cannot be reached it prints the commands for a machine that can. With --json and without --yes it only tells the plan; with both, what was fetched and then what `turbotui import --json` says, a line of JSON each.": "先说明大小和许可证并询问。中断后从断点继续，只保留摘要相符的文件。遵循 `HF_ENDPOINT`、`HF_HOME`、`HF_TOKEN` 和 `HF_HUB_OFFLINE`；无法连接模型中心时，输出可在另一台机器上运行的命令。有 --json 而没有 --yes 时只说明计划；两者都有时，先输出下载了什么，再输出 `turbotui import --json` 的内容，每行一个 JSON。",
    "Fetch it without asking.": "不询问直接下载。",
    "Only fetch it into the hub's cache.": "只下载到模型中心的缓存。",
}
