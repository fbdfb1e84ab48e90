"""Owns the Chinese of quantising, and of the choice between a model and its int8 sibling."""

# ruff: noqa: E501  (a sentence and its translation stand in one line)
from __future__ import annotations

FORMS: dict[str, str] = {
    "{chosen} is no name for a model's folder; choose a plain one with --name": "{chosen} 不能作模型文件夹的名字；请用 --name 取一个普通的名字",
    "there is a model {chosen} already; choose another name with --name": "已有模型 {chosen}；请用 --name 另取名字",
    "{there} is there already, made of {name} as it is; use it, or choose another name with --name": "{there} 已存在，正是由现在的 {name} 生成；请直接使用，或用 --name 另取名字",
    "{there} is there already; choose another name with --name, or take it away": "{there} 已存在；请用 --name 另取名字，或把它移走",
    "{name} cannot be quantised: {problem}": "{name} 不能量化：{problem}",
    "the weights of {name} are int8 blocks already; it can be used as it is": "{name} 的权重已是 int8 分块；可以直接使用",
    "{name} needs {bytes} in {parent}, whose disk has {free_bytes} free; make room, or write it to another disk with --out": "{name} 在 {parent} 需要 {bytes}，而那里的磁盘只剩 {free_bytes}；请腾出空间，或用 --out 写到别的磁盘",
    "{path} holds {name} as {dtype}, which cannot be quantised; it must be one of {sources}": "{path} 中 {name} 是 {dtype}，不能量化；须是 {sources} 之一",
    "{path} holds {name} with numbers that are infinite or none, which cannot be quantised; fetch or convert the model again": "{path} 中 {name} 有无穷大或非数，不能量化；请重新获取或转换模型",
    "{folder} holds no linear layer in a block, so there is nothing to quantise": "{folder} 的块中没有线性层，没有可量化的",
    "another model is being quantised there; wait for its end": "那里正在量化另一个模型；请等它结束",
    "{path} holds {name} otherwise than it was written: a number is {max} steps off; check the disk, and quantise again": "{path} 中 {name} 与写入的不同：有一个数差了 {max} 级；请检查磁盘，然后重新量化",
    "the quantised model cannot be used: {problem}": "量化后的模型不能使用：{problem}",
    "{worst} is {value} % off, more than the {value2} % that int8 usually costs: its weights have outliers; compare a video of both before you rely on it": "{worst} 偏差 {value} %，高于 int8 通常的 {value2} %：其权重有离群值；依赖它之前请比较两者的视频",
    "{model} could not be quantised: {error}": "{model} 未能量化：{error}",
    "quant is bf16, and the model that {name} was quantised from is not here; leave quant out, or put that model beside it": "`quant` 是 bf16，而生成 {name} 的原模型不在这里；请去掉 `quant`，或把原模型放在它旁边",
    "quant is int8, and {name} has no int8 sibling; `turbotui quantize {name2}` makes it": "`quant` 是 int8，而 {name} 没有 int8 版本；用 `turbotui quantize {name2}` 生成",
    "{short} needs {needed} of {room}; int8 needs {less}": "{short} 需要 {needed}，只有 {room}；int8 需要 {less}",
    "choose a smaller resolution, fewer frames or a smaller model, or {way_out}": "选择较低的分辨率、较少的帧数或较小的模型，或{way_out}",
    "leave quant out: {name} needs {needed}": "去掉 `quant`：{name} 需要 {needed}",
    "run `turbotui quantize {name}`: with int8 weights it needs {needed}": "运行 `turbotui quantize {name}`：用 int8 权重需要 {needed}",
    "{model} is being quantised; wait for its end, or stop it": "正在量化 {model}；请等它结束，或停止它",
    "no model is being quantised": "没有模型正在量化",
    "the maker ended with exit code {code}; `turbotui quantize` in a terminal says why": "生成进程以退出码 {code} 结束；在终端里用 `turbotui quantize` 可知原因",
    "quantising {model}: {bytes} to {path}": "正在量化 {model}：{bytes} 写到 {path}",
    "{name} is ready, made of {model}": "{name} 已就绪，由 {model} 生成",
    "quantising {model} was stopped; what is written whole is kept for the next time": "已停止量化 {model}；已完整写入的部分会保留到下次",
    "{model} could not be quantised: the maker ended with exit code {code}": "{model} 未能量化：生成进程以退出码 {code} 结束",
    "runs as {model}: {reason}": "以 {model} 运行：{reason}",
    "runs as {model}": "以 {model} 运行",
}
