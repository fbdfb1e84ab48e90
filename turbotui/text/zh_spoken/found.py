"""Owns the Chinese of what the engine says of models on disks, and of fetching released ones."""

# ruff: noqa: E501  (a sentence and its translation stand in one line)
from __future__ import annotations

FORMS: dict[str, str] = {
    # looking
    "after {time_s} s or {most_folders} folders it was enough, and not all was looked at of {names}; name a folder to look there": "查看了 {time_s} 秒或 {most_folders} 个文件夹后停止，{names} 没有全部看完；指定一个文件夹即可到那里查看",
    "{folder} has more than {folder_entries} entries; the others were not looked at": "{folder} 有超过 {folder_entries} 个条目；其余的没有查看",
    "{path} is not there": "{path} 不存在",
    # matching
    "no umT5 encoder was found: fetch models_t5_umt5-xxl-enc-bf16.pth, as `turbotui models get` does": "没有找到 `umT5` 编码器：请下载 `models_t5_umt5-xxl-enc-bf16.pth`，`turbotui models get` 会下载它",
    "no Wan2.1 VAE was found: fetch Wan2.1_VAE.pth, as `turbotui models get` does": "没有找到 Wan2.1 的 VAE：请下载 `Wan2.1_VAE.pth`，`turbotui models get` 会下载它",
    "no umT5 tokenizer was found: fetch google/umt5-xxl, as `turbotui models get` does": "没有找到 `umT5` 分词器：请下载 `google/umt5-xxl`，`turbotui models get` 会下载它",
    "the expert for high noise was not found; image to video takes two": "没有找到高噪声专家；图生视频需要两个专家",
    "the expert for low noise was not found; image to video takes two": "没有找到低噪声专家；图生视频需要两个专家",
    "neither its name nor its folder's says high or low, and image to video takes one of each": "它的名字和所在文件夹的名字都没有写明 `high` 或 `low`，而图生视频两个都需要",
    "its {called} is of another folder: {path}": "它的{called}来自另一个文件夹：{path}",
    "its {expert}-noise expert is of another folder: {path}": "它的 {expert}-noise 专家来自另一个文件夹：{path}",
    "umT5 encoder": "umT5 编码器",
    "Wan2.1 VAE": "Wan2.1 VAE",
    "umT5 tokenizer": "umT5 分词器",
    # fetching
    "no released model is called {name}; did you mean {likeliest}? `turbotui models get` lists them all": "没有名为 {name} 的已发布模型；是不是 {likeliest}？`turbotui models get` 列出全部",
    "HF_HUB_OFFLINE forbids to ask {endpoint} for {name}; unset it, or fetch the files on another machine": "`HF_HUB_OFFLINE` 禁止向 {endpoint} 查询 {name}；取消该变量，或在另一台机器上下载这些文件",
    "{endpoint} cannot be reached ({why}); check the network and HF_ENDPOINT, or fetch the files on another machine": "无法连接 {endpoint}（{why}）；检查网络和 `HF_ENDPOINT`，或在另一台机器上下载这些文件",
    "{endpoint} answers {status} for {name}; try again later": "{endpoint} 对 {name} 回答 {status}；稍后再试",
    "{name} is gated: agree to its terms at {page}, then set HF_TOKEN to a token that may read it": "{name} 需要先同意条款：请在 {page} 同意，再把 `HF_TOKEN` 设为有权读取它的令牌",
    "{endpoint} refuses the token for {name} (401); make a new one and set HF_TOKEN to it, or unset it": "{endpoint} 拒绝用该令牌读取 {name}（401）；请新建令牌并设为 `HF_TOKEN`，或取消该变量",
    "{endpoint} shows no {name} to you (404); look at {page}, set HF_TOKEN if you may read it, or check HF_ENDPOINT": "{endpoint} 没有向你显示 {name}（404）；请查看 {page}，有权读取时设置 `HF_TOKEN`，或检查 `HF_ENDPOINT`",
    "{endpoint} does not give {name} to you ({status}); set HF_TOKEN to a token that may read it": "{endpoint} 不向你提供 {name}（{status}）；请把 `HF_TOKEN` 设为有权读取它的令牌",
    "{endpoint} gives no digest for {path}; it is no Hub, check HF_ENDPOINT": "{endpoint} 没有给出 {path} 的摘要；它不是模型中心，请检查 `HF_ENDPOINT`",
    "{endpoint} names no commit of {name}; it is no Hub, check HF_ENDPOINT": "{endpoint} 没有给出 {name} 的提交；它不是模型中心，请检查 `HF_ENDPOINT`",
    "{repository} no longer holds {path}; look at its page for what took its place, and import that": "{repository} 中不再有 {path}；请在它的页面上查看由什么取代，并导入那个",
    "{name} needs {missing} more in {cache}, whose disk has {free} free; make room, or set HF_HOME to a folder on another disk": "{name} 还需要在 {cache} 中占用 {missing}，而那里的磁盘剩余 {free}；腾出空间，或把 `HF_HOME` 设为另一块磁盘上的文件夹",
    "{folder} cannot be made: {strerror}; set HF_HOME to a folder that can be written": "无法创建 {folder}：{strerror}；请把 `HF_HOME` 设为可写的文件夹",
    "the hub's cache cannot be used: {error}; set HF_HOME to a folder that can be written": "无法使用模型中心的缓存：{error}；请把 `HF_HOME` 设为可写的文件夹",
    "another process fetches {path} already; wait for it, or end it": "另一个进程已在下载 {path}；等它完成，或结束它",
    "{path} of {name} changed on the Hub meanwhile; fetch it again": "模型中心上 {name} 的 {path} 在此期间变了；请重新下载",
    "{path} breaks off after {have} of {bytes} again and again; what came stays, try again later": "{path} 在 {have}（共 {bytes}）之后反复中断；已下载的部分会保留，稍后再试",
    "{path} of {name} came as {found} where the Hub says {digest}; it was removed. Fetch it again; if that repeats, {endpoint} does not give what was released": "收到的 {path}（属于 {name}）是 {found}，而模型中心写的是 {digest}；已将其删除。请重新下载；若再次如此，则 {endpoint} 提供的不是发布的文件",
    "the disk of {folder} is full; {path} goes on from here once there is room, or set HF_HOME to another disk": "{folder} 所在的磁盘已满；腾出空间后 {path} 会从这里继续，或把 `HF_HOME` 设到另一块磁盘",
    "{path} cannot be written to {folder}: {strerror}; check its disk": "无法把 {path} 写入 {folder}：{strerror}；请检查磁盘",
    # the engine's errands
    "{path} is no absolute path; the engine has another folder than you": "{path} 不是绝对路径；引擎所在的文件夹与你的不同",
    "an import takes the absolute paths of a model's parts": "导入需要模型各部分的绝对路径",
    "no model is being fetched or imported": "没有正在下载或导入的模型",
    "{name} is under way; wait for it, or cancel it": "{name} 正在进行；等它完成，或取消它",
    "the models' folder cannot be used: {problem}": "无法使用模型文件夹：{problem}",
    # the commands' own refusals
    "the look for models ended without an answer": "查找模型的进程没有给出结果就结束了",
    "the fetching process ended without a plan": "下载进程没有给出计划就结束了",
    "the fetching process ended before all was there": "下载进程在全部到齐之前就结束了",
    "{module} ended with exit code {code} without a word": "{module} 以退出码 {code} 结束，没有说明原因",
    "models get fetches gigabytes and there is no terminal to ask on; add --yes": "`models get` 要下载数 GB，而没有终端可以询问；请加上 --yes",
}
