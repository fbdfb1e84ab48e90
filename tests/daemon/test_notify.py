"""The person's command is really run, and one that hangs or is missing harms nothing."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from engine.wire import JobSpec
from tests.daemon.live import LiveEngine, wait_for


def test_the_command_gets_its_json_and_one_that_hangs_or_is_missing_harms_nothing(
    spare: LiveEngine, tmp_path: Path, short: JobSpec
) -> None:
    told, command = tmp_path / "told", tmp_path / "tell"
    spare.paths.config.mkdir(parents=True, exist_ok=True)
    spare.paths.config_file.write_text(
        f"[notify]\ncommand = [{json.dumps(str(command))}]\non = ['done']\ntimeout_s = 2\n"
        "min_interval_s = 0\n"
    )

    def write(code: str) -> None:
        fresh = tmp_path / "fresh"
        fresh.write_text(f"#!{sys.executable} -S\n{code}\n")
        fresh.chmod(0o755)
        fresh.rename(command)  # one that runs keeps its own

    def complaint(number: int) -> str | None:
        found = [line.text for line in spare.client.logs(limit=5000) if line.event == "notify"]
        return found[number - 1] if len(found) >= number else None

    write(f"import sys; open({str(told)!r}, 'w').write(sys.stdin.read())")
    spare.start()
    done = spare.run(short)
    heard = json.loads(str(wait_for(lambda: told.exists() and told.read_text(), 10, "the notification")))
    assert (heard["event"], heard["job"]["id"], heard["job"]["output"]) == ("done", done.id, done.output)
    assert heard["host"] == spare.client.hello().host and heard["job"]["prompt"] == short.prompt
    assert heard["text"].startswith(f"job {done.id} done") and complaint(1) is None

    write("import time; time.sleep(600)")
    assert spare.run(short).status == "done"
    assert spare.run(short).status == "done"  # while the first one's command still hangs
    assert "had not ended after 2 s" in wait_for(lambda: complaint(1), 15, "the complaint")

    command.unlink()
    assert spare.run(short).status == "done"
    assert spare.run(short).status == "done"
    assert "cannot be run" in wait_for(lambda: complaint(2), 15, "the other complaint")
    assert complaint(3) is None

    write("import time; time.sleep(600)")
    assert spare.run(short).status == "done"
    assert spare.stop() < 3
