"""Owns the Chinese of what is said about many jobs at once, and about what a job shows while it runs."""

# ruff: noqa: E501  (a sentence and its translation stand in one line)
from __future__ import annotations

FORMS: dict[str, str] = {
    # files of jobs
    "{name} is larger than {limit_bytes} MiB; divide it": "{name} 大于 {limit_bytes} MiB；请拆分",
    "{name} cannot be read: {reason}; give the path of a text file": "{name} 无法读取：{reason}；请给出文本文件的路径",
    "{name} asks for nothing; write a prompt a line (# begins a remark)": "{name} 里没有内容；每行写一个提示词（# 开头是注释）",
    "{name} asks for {meant} jobs, and at most {batch_limit} are queued at once; divide it": "{name} 要 {meant} 个任务，一次最多排队 {batch_limit} 个；请拆分",
    "{name} asks for {meant} jobs times {samples} samples, and at most {batch_limit} are queued at once; divide it": "{name} 要 {meant} 个任务，各 {samples} 个样本，一次最多排队 {batch_limit} 个；请拆分",
    "{name} names no models; choose one for its prompts": "{name} 没有指明模型；请为其中的提示词选一个",
    "it has {line} characters and at most {line_limit_chars} are read; shorten it": "它有 {line} 个字符，最多读取 {line_limit_chars} 个；请缩短",
    'no model is named; write "model": "..." or choose one for all lines': '没有指明模型；请写 `"model": "..."`，或为所有行选一个',
    "{name} is no text in UTF-8, UTF-16 or GBK; save it as UTF-8": "{name} 不是 UTF-8、UTF-16 或 `GBK` 文本；请存为 UTF-8",
    "it looks like a JSON line in a file of prompts; keep one kind of line in a file": "看起来是提示词文件中的一行 JSON；一个文件里只用一种写法",
    "it is no JSON": "不是 JSON",
    "it is no JSON at character {pos}": "第 {pos} 个字符处不是 JSON",
    '{what}; write {{"prompt": "..."}} and what else differs': '{what}；请写 `{{"prompt": "..."}}` 以及其他不同之处',
    'it is no JSON object; write {{"prompt": "..."}} and what else differs': '不是 JSON 对象；请写 `{{"prompt": "..."}}` 以及其他不同之处',
    "a job has no field {unknown}; it has {fields}": "任务没有字段 {unknown}；有 {fields}",
    'it has no prompt; write "prompt": "..."': '没有提示词；请写 `"prompt": "..."`',
    "{error}; write it as JSON of its kind": "{error}；请写成相应类型的 JSON",
    "it holds half of a character; remove it": "含有半个字符；请去掉它",
    "samples is {count}; choose 1 to {max_samples}": "样本数是 {count}；请取 1 到 {max_samples}",
    # queueing them
    "--wait is for one job; `turbotui jobs` and `turbotui watch` follow many": "--wait 只用于一个任务；`turbotui jobs` 和 `turbotui watch` 可跟踪多个",
    "--again and --dry-run are for --from; leave them out, or give a file": "--again 和 --dry-run 须与 --from 同用；请去掉它们，或给一个文件",
    "{error}; whether the jobs are queued is not known: {way}": "{error}；不知道任务是否已排队：{way}",
    "give --again no more": "不要再给 --again",
    "the same command again makes none of them twice": "再运行同一条命令不会重复排队",
    "{count} line of {name} cannot be queued, so none was; mend them or put a # before them": "{name} 中有 {count} 行不能排队，因此一行也没有排队；请改正，或在行首加 #",
    "{count} lines of {name} cannot be queued, so none was; mend them or put a # before them": "{name} 中有 {count} 行不能排队，因此一行也没有排队；请改正，或在行首加 #",
    "a batch has 1 to {batch_limit} requests and this one has {count} request; divide it": "一批有 1 到 {batch_limit} 个请求，这一批有 {count} 个；请拆分",
    "a batch has 1 to {batch_limit} requests and this one has {count} requests; divide it": "一批有 1 到 {batch_limit} 个请求，这一批有 {count} 个；请拆分",
    "request {number} of {specs}: {error}; none of them was queued": "第 {number} 个请求（共 {specs} 个）：{error}；一个也没有排队",
    # what a job shows
    "there is no preview of job {job_id}": "没有任务 {job_id} 的预览",
    "there is no preview of job {job_id} after step {step}": "没有任务 {job_id} 第 {step} 步之后的预览",
    "nothing is known of the stages of job {job_id}; its manifest has them": "任务 {job_id} 的各阶段已不可知；它的清单里有",
    # the audit log
    "engine {pid}": "引擎 {pid}",
    "everything of ours": "我们的一切",
    "everything of ours, {others}": "我们的一切，{others}",
    "process {pid}, started at {start_time}, of {owner}, holds {held}: {command}": "{owner} 的进程 {pid}，启动于 {start_time}，占用 {held}：{command}",
    "process {pid}, of {owner}, holds {held}: {command}": "{owner} 的进程 {pid}，占用 {held}：{command}",
    "process {pid}, of {owner}, on no GPU: {command}": "{owner} 的进程 {pid}，不在 GPU 上：{command}",
    "process {pid}, started at {start_time}, of {owner}, on no GPU: {command}": "{owner} 的进程 {pid}，启动于 {start_time}，不在 GPU 上：{command}",
    "failed: {error}": "失败：{error}",
    "refused: {why}": "被拒绝：{why}",
    "not_found: {why}": "没有找到：{why}",
    "its end is not known": "结局不明",
    "ended late, {result}": "迟迟才结束，{result:w}",
    "no SIGKILL is sent": "没有发送 SIGKILL",
    "it stops": "正在停止",
    "it stops, after the running job": "在运行中的任务之后停止",
    "deleted {told}; {count} problems": "已删除 {told}；{count} 个问题",
}
