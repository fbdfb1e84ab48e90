"""Sentences in another language: everything that the engine and the commands say has its Chinese.

What is said is found in the sources (tests/sentences.py), so that a sentence that is added without its
Chinese fails here, by its place.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

import engine
import turbotui
from engine import wire
from engine.errors import ERRORS_BY_CODE, InvalidRequest
from tests.sentences import Said, forms_of, sentences_in
from turbotui.cli import app
from turbotui.client import scene_leaks, scene_plans
from turbotui.format import cell_width
from turbotui.job_fields import field_of
from turbotui.subcommands.speaking import find_language, help_text, option_text
from turbotui.text import LANGUAGES, ask_language, choose_language, language, use_language
from turbotui.text.spoken import form_of, spoken
from turbotui.text.zh_spoken import READ, forms
from turbotui.text.zh_spoken.planning import FORMS as PLANNING
from turbotui.text.zh_spoken.words import WORDS

ENGINE = Path(engine.__file__).parent
CONSOLE = Path(turbotui.__file__).parent
CHINESE = re.compile(r"[\u3400-\u9fff]")

NOT_SAID = {
    "ValueError", "AssertionError", "TimeoutError", "UnknownFormat", "compile", "execute", "executemany",
    "all", "one", "startswith", "fullmatch", "run", "partition", "FastAPI", "print", "JobSpec", "extra_repr",
    "removeprefix",
}  # fmt: skip
"""What takes sentences that no person reads: defects, SQL, patterns, the API's own document."""
LOGGED = {"write", "_log", "_on_log", "_tell", "_on_problem", "_say", "_settle", "kill", "_lap", "retire"}
"""What takes lines of the log, which stay English as JSON does."""
UNREAD_MODULES = {
    "metrics.py", "prometheus.py", "openapi.py", "audit.py", "notify.py", "log_file.py", "schema.py",
    "calibration.py", "store_rows.py", "prompts.py", "programs.py", "int8.py", "demo_files.py",
    "growth.py", "cards.py", "lookout.py", "model_list.py", "telling.py", "random_models.py",
    "audit_reading.py", "owners.py",
}  # fmt: skip
"""Modules of log lines, figures, names of programs, prompts."""
AS_THEY_ARE = re.compile(
    r"^(turbotui|make|export|unset|python|sudo|loginctl|dmesg|env|ls|df)\b|^\{executable\} -m"  # commands
    r"|SELECT|ORDER BY|^file:|^state IN|\\s|\|"  # SQL and patterns
    r"|^bytes \{first\}-"  # a header
    r"|^(uid:?|backend:|torch|Python|/proc/meminfo:|, pid) ?\{|^\{age_s\} min$|^\{device_id\} \("  # figures
)
PIECES = {
    "; clean at {value}", " and held", " (with NVSwitch, Fabric Manager must run)", "started the slow way",
    "ready after {monotonic} s: {laps}", "{why}, which {resident}", " of GPU {index}", " after job {id}",
    "{loud} new finding", "{loud} new findings", ", {leftover_s} ms after it",
    " in attempt {row}, not {attempt}", " with {bytes}", "{process} left{held}",
    "{count} video and {count2} leftover, {bytes}", "{count} video and {count2} leftovers, {bytes}",
    "{count} videos and {count2} leftover, {bytes}", "{count} videos and {count2} leftovers, {bytes}",
    "libraries could not be loaded ahead: {name}: {error}", " and held {bytes}",
    "; last {count} {over} {bytes_each} a {one}",
}  # fmt: skip
"""Of longer sentences, which `composed` has whole, or of log lines."""


@pytest.fixture(autouse=True)
def _english_again() -> Iterator[None]:
    yield
    ask_language(None, otherwise=lambda: "en")
    use_language("en")


def sample(form: str) -> str:
    """The form as it might be said: a value in each hole that is no sentence and holds no separator."""
    count = iter(range(100))
    return re.sub(r"\{\w+\}", lambda _: f"v{next(count)}", form).replace("{{", "{").replace("}}", "}")


def untranslated(found: Iterator[Said]) -> list[str]:
    use_language("zh_CN")
    return sorted({str(one) for one in found if not CHINESE.search(spoken(sample(one.form)))})


def engine_sentences() -> Iterator[Said]:
    for path in sorted(ENGINE.rglob("*.py")):
        if path.name in UNREAD_MODULES or "wire" in path.parts:
            continue
        for said in sentences_in(path):
            if said.callee in NOT_SAID | LOGGED or "\n" in said.form or AS_THEY_ARE.search(said.form):
                continue
            if said.form not in PIECES:
                yield said


def test_every_error_and_finding_of_the_engine_has_its_chinese() -> None:
    errors = {error.__name__ for error in ERRORS_BY_CODE.values()}
    told = [said for said in engine_sentences() if said.callee in errors or said.callee == "Finding"]
    assert len(told) > 250
    assert not untranslated(iter(told))


def test_everything_else_that_the_engine_says_to_people_has_its_chinese() -> None:
    assert not untranslated(engine_sentences())


def own_sources() -> list[Path]:
    """What of this side speaks to people; measuring, the scripted client and the catalogues do not."""
    skipped = {"text", "bench"}
    names = {"scripted.py", "script.py", "scenes.py"}
    return [
        path
        for path in sorted(CONSOLE.rglob("*.py"))
        if path.name not in names and not skipped & set(path.relative_to(CONSOLE).parts[:-1])
    ]


def calls_in(path: Path, *names: str) -> Iterator[ast.Call]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names:
            yield node


def test_every_sentence_of_the_commands_is_in_the_catalogue_word_by_word() -> None:
    """`tr` looks up by the very form, its holes included, in every way that a choice in it can go."""
    named = {form for path in own_sources() for call in calls_in(path, "tr") for form in tr_forms(call)}
    counted = {form for path in own_sources() for call in calls_in(path, "counted") for form in nouns(call)}
    assert len(named) > 200
    assert sorted((named | counted) - set(forms())) == []


def tr_forms(call: ast.Call) -> list[str]:
    """Of literals alone; a name stands for a constant, which other tests cover."""
    argument = call.args[0]
    if isinstance(argument, ast.Constant):
        return [str(argument.value)]
    return forms_of(argument)


def nouns(call: ast.Call) -> list[str]:
    given = [str(ast.literal_eval(argument)) for argument in call.args[1:]]
    return [f"{{count}} {noun}" for noun in (given if len(given) > 1 else [given[0], given[0] + "s"])]


def test_every_single_word_is_in_the_catalogue() -> None:
    named = {
        str(argument.value)
        for path in own_sources()
        for call in calls_in(path, "word", "titles")
        for argument in call.args
        if isinstance(argument, ast.Constant) and argument.value
    }
    assert len(named) > 40
    assert sorted(named - set(WORDS)) == []


@pytest.mark.parametrize(
    "kind", ["JobState", "WorkerState", "NurseryState", "ResetState", "Severity", "Stage"]
)
def test_every_state_has_its_word(kind: str) -> None:
    assert sorted(set(getattr(wire, kind).__args__) - set(WORDS)) == []


def test_every_kind_of_finding_and_every_condition_of_a_reset_has_its_name() -> None:
    kinds, conditions = set(), set()
    for path in (ENGINE / "checks").rglob("*.py"):
        for call in calls_in(path, "Finding"):
            kinds |= {
                one.value.value for one in call.keywords if one.arg == "kind" and hasattr(one.value, "value")
            }
    for call in calls_in(ENGINE / "daemon" / "reset_plan.py", "_condition"):
        conditions |= {str(one.value) for one in call.args[:1] if isinstance(one, ast.Constant)}
    assert len(kinds) > 15 and len(conditions) > 4
    names = {str(kind).replace("_", " ") for kind in kinds} | conditions
    assert sorted(names - set(WORDS)) == []


NO_SENTENCES = NOT_SAID | {
    "t", "tr", "known", "counted", "word", "titles", "Binding", "query_one", "query", "add_class", "Path",
    "argument", "Choice", "one_of", "strftime", "option", "command", "getLogger", "style", "run_worker",
    "sub", "search", "findall", "_sized", "_after", "match", "frozenset",
}  # fmt: skip
"""What takes keys of a catalogue, patterns, keys to press, names of files and of styles."""
PIECES_HERE = {", and they speak different versions ({wire} and {wire_version})"}
"""Of sentences that are known whole."""
NEVER_SHOWN = {
    "clock.py", "sse.py", "base.py", "standing.py", "moment.py", "messages.py", "kept.py", "facts.py",
    "scene_plans.py", "scene_gpus.py", "scene_models.py", "scan.py", "scene_leaks.py", "script.py",
}  # fmt: skip
"""Modules whose texts are log lines of a recording, which stay English, or how times are written."""
ALLOWED = re.compile(
    r"\n|\x1b|^( {2})?sigma_max|^turbotui |^turbotui:|^(pid|uid) \{\w+\}( {2}|$)|pid \{pid\}$"
    r"|^\{executable\} -m|install -o|visudo|^(scp|env|exec|cat|import|curl)\b|^file:\{|sha256 \{|\\[bdsWw]"
    r"|\(\?P<"
)
"""Commands, patterns, and names before figures."""


def test_no_sentence_is_written_past_the_catalogues() -> None:
    """Refusals are raised in English and read back where they are shown: their forms have to be known."""
    errors = {error.__name__ for error in ERRORS_BY_CODE.values()} | {"UsageError", "BadParameter", "fail"}
    use_language("zh_CN")
    past = []
    for path in own_sources():
        if path.name in NEVER_SHOWN:
            continue
        for said in sentences_in(path):
            raised = said.callee in errors and CHINESE.search(spoken(sample(said.form)))
            kept = said.form in {**forms(), **WORDS} or CHINESE.search(spoken(sample(said.form)))
            if not (
                raised
                or kept
                or said.form in PIECES_HERE
                or said.callee in NO_SENTENCES
                or ALLOWED.search(said.form)
            ):
                past.append(str(said))
    assert sorted(past) == []


def test_both_languages_have_the_same_holes() -> None:
    differing = []
    for english, chinese in forms().items():
        wanted, given = form_of(english, ""), form_of(chinese, "")
        if set(wanted.names) != set(given.names):
            differing.append(english)
    assert differing == []


NAMES = set(
    """
    scp WebUI GPU CPU NVML CUDA cuDNN MIG UUID SIGKILL SIGTERM Ctrl-C JSON Python torch turbotui diffusers
    safetensors pid PID uid root sudo sudoers cgroup WAL WSL UTF SQLite PyTorch DiT VAE vae Wan ODE
    RSS TCP SSH HTTP API Prometheus Markdown tmux ffmpeg exporter logind linger Windows Fabric
    Manager NVSwitch NVLink IMEX ECC vGPU Gradio Triton Jupyter accelerate torchrun DeepSpeed NVIDIA
    TurboDiffusion Ampere infoROM pickle zip state dict patch residual hidepid pidfd EPERM Xid MPS
    DIR AGE JOB MODEL ASCII TERM OOM MiB GiB GB/s int8 conv3d esc tab ctrl fps wire cpu check doctor
    notice warning critical info llama.cpp KillUserProcesses PERFORMANCE status kill watch prune
    cleanup device name dtype model int conv NAME-random NAME-random-int yesterday engine demo reset
    ssh OpenSSH POSIX shell Unix TURBOTUI_HOST console.ssh_command console.remote_command
    make run TORCH nvidia-smi nvidia-persistenced CUDA_VISIBLE_DEVICES TURBOTUI_HOME image_dim
    tokenizer text_encoder torch.save config.json config.toml jobs.sqlite console.keys frames steps
    seed priority ode sigma_max resolution aspect_ratio output_dir dit_only hz seconds since until
    rrggbb ansi_blue proc help and MODEL/ all kind attention auto dense sla sagesla SLA sla_topk proj_l top-k
    leaks CLIP GGUF LoRA TurboWan VACE _VAE.pth pth umT channels width patch_embedding.weight proj_l hub quant
    noise switch
    """.split()
)
"""What an engineer in China writes in Latin letters too: names, commands, settings and units."""


def test_no_english_is_left_in_the_chinese() -> None:
    left: dict[str, str] = {}
    for english, chinese in [*forms().items(), *WORDS.items()]:
        bare = re.sub(r"`[^`]*`|\{[^}]*\}|'[^']*'|--[a-z-]+|engine\.[a-z_]+|make run.*", "", chinese)
        for found in re.findall(r"[A-Za-z_][A-Za-z_./\-]{2,}", bare):
            if found.strip("./-") not in NAMES:
                left[found] = english
    assert left == {}


def test_a_sentence_is_read_back_whole() -> None:
    """What stood in a hole stands in the Chinese, for every sentence there is."""
    use_language("zh_CN")
    lost = []
    for english in forms(READ):
        values = {name: f"~{place}~" for place, name in enumerate(form_of(english, "").names)}
        said = english.format(**values)
        told = spoken(said)
        if not all(value in told for value in values.values()):
            lost.append(f"{said} -> {told}")
    assert lost == []


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("there is no job 7; `turbotui jobs` lists those there are",
         "没有任务 7；`turbotui jobs` 列出现有的"),
        ("job 3 is done; only waiting or running jobs can be cancelled; duplicate it to run it again",
         "任务 3 处于“完成”状态；只有等待中或运行中的任务可以取消；复制它即可再次运行"),
        ("/m/a b.safetensors is truncated: it has 5 of 9 bytes; fetch or convert the model again",
         "/m/a b.safetensors 不完整：应有 9 字节，只有 5；重新获取或转换模型"),
        ("worker 12 was ended by SIGKILL; the kernel does that when host memory runs out",
         "工作进程 12 被 SIGKILL 结束；主机内存耗尽时内核会这样做"),
        ("GPU 1 is not reset: MIG is off; no display is active on it",
         "没有重置 GPU 1：MIG 已关闭；上面没有活动的显示输出"),
        ("frames is 34, which is not 4n + 1; choose 33 or 37", "frames 是 34，不是 4n + 1；请选 33 或 37"),
        ("frames is 0, which is not 4n + 1; choose 1", "frames 是 0，不是 4n + 1；请选 1"),
        ("a sentence of a newer engine, 7 GiB", "a sentence of a newer engine, 7 GiB"),
        ("一句中文", "一句中文"),
        ("", ""),
    ],
)  # fmt: skip
def test_what_an_engine_said_is_told_in_chinese(said: str, told: str) -> None:
    use_language("zh_CN")
    assert spoken(said) == told
    use_language("en")
    assert spoken(said) == said


def test_a_sentence_that_never_ends_costs_no_time() -> None:
    use_language("zh_CN")
    long = "x cannot be read: " * 200
    assert spoken(long) == long or CHINESE.search(spoken(long))
    assert spoken("y" * 100_000) == "y" * 100_000


def test_a_refusal_leads_to_its_field_in_either_language() -> None:
    known = 0
    for english in PLANNING:
        said = english.format(**dict.fromkeys(form_of(english, "").names, "v"))
        use_language("en")
        field = field_of(spoken(said))
        use_language("zh_CN")
        assert field is None or field_of(spoken(said)) == field, said
        known += field is not None
    assert known > 10


# ------------------------------------------------------------------ the language of a command


@pytest.mark.parametrize("given", ["zh", "zh_CN", "zh-CN", "zh_CN.UTF-8"])
@pytest.mark.parametrize("line", ["--lang {} jobs", "jobs --lang {}", "jobs --lang={}"])
def test_the_option_counts_before_and_after_the_command(given: str, line: str) -> None:
    find_language(line.format(given).split())
    assert language() == "zh_CN"
    find_language(["jobs", "--", "--lang", given])
    assert choose_language("en") == "en"


def test_the_option_wins_over_settings_and_locale(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TURBOTUI_HOME", str(tmp_path))
    monkeypatch.setenv("LC_ALL", "zh_CN.UTF-8")
    find_language(["jobs"])
    assert language() == "zh_CN"
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "config.toml").write_text('[console]\nlanguage = "en"\n')
    find_language(["jobs"])
    assert language() == "en"
    find_language(["jobs", "--lang", "zh"])
    assert language() == "zh_CN"


def test_settings_that_cannot_be_read_do_not_stop_a_command(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TURBOTUI_HOME", str(tmp_path))
    monkeypatch.setenv("LC_ALL", "C")
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "config.toml").write_text("[console\n")
    find_language(["jobs"])
    assert language() == "en"


def test_a_language_that_there_is_not_is_refused_by_name() -> None:
    with pytest.raises(InvalidRequest, match="fr"):
        find_language(["jobs", "--lang", "fr"])


def commands(command: click.Command, path: str = "turbotui") -> Iterator[tuple[str, click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        for name, below in command.commands.items():
            yield from commands(below, f"{path} {name}")


def test_every_help_is_chinese_in_chinese() -> None:
    use_language("zh_CN")
    plain = []
    for path, command in commands(app):
        paragraphs = [text for text in inspect.cleandoc(command.help or "").split("\n\n") if text[:1] != "\b"]
        plain += [f"{path}: {text}" for text in paragraphs if text and not CHINESE.search(help_text(text))]
        with click.Context(command) as context:
            options = [option for option in command.get_params(context) if isinstance(option, click.Option)]
        told = [option.help for option in options if option.help not in (None, "4n + 1.")]
        plain += [f"{path}: {text}" for text in told if text and not CHINESE.search(option_text(text))]
    assert plain == []


@pytest.mark.parametrize("language_of", LANGUAGES)
@pytest.mark.parametrize("width", [80, 120])
def test_no_line_of_any_help_is_wider_than_its_terminal(language_of: str, width: int) -> None:
    use_language(language_of)
    for path, command in commands(app):
        context = command.make_context(path, [], resilient_parsing=True, terminal_width=width)
        wide = [line for line in command.get_help(context).splitlines() if cell_width(line) > width]
        wide = [
            line
            for line in wide
            if "node_exporter" not in line and "turbotui.prom" not in line and "curl" not in line
        ]
        assert wide == [], path


def test_made_up_engines_say_what_the_engine_would() -> None:
    """Else the pictures of the Chinese console have English in them that no person would meet."""
    use_language("zh_CN")
    report, check, plan = scene_leaks.leak_report(0.0), scene_plans.found(0.0), scene_plans.reset_plan("")
    said: list[str | None] = [*report.unknown, *check.unknown, *plan.ends]
    said += [condition.text for condition in plan.conditions]
    for verdict in report.verdicts:
        said += [verdict.title, *verdict.evidence, verdict.remedy and verdict.remedy.text]
    for finding in check.findings:
        said += [finding.title, *finding.evidence, finding.remedy, finding.changed]
    english = re.compile(r"\b(is|and|the|of|since|with) [a-z]")
    assert [text for text in said if text and english.search(spoken(text))] == []
