"""The end of an engine that was asked to end."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time

from engine.wire import JobSpec
from tests.daemon.live import LiveEngine, is_gone, stop_process, wait_for

VIEWER = """
import sys
import time
from turbotui.client.http import HttpClient
def take(frame):
    print(type(frame.event).__name__, flush=True)
HttpClient(sys.argv[1]).subscribe(take, on_open=lambda stream: None)
"""


def test_an_engine_with_three_viewers_one_of_them_stopped_ends_within_two_seconds(
    spare: LiveEngine, long: JobSpec
) -> None:
    spare.start()
    viewers = [
        subprocess.Popen(
            [sys.executable, "-c", VIEWER, str(spare.paths.socket)], stdout=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    try:
        for viewer in viewers:
            assert viewer.stdout is not None
            assert viewer.stdout.readline() == "Snapshot\n"
        stop_process(viewers[0].pid)
        job = spare.client.submit(long)
        spare.until_running(job.id)
        worker, nursery = spare.worker_pid(), spare.nursery_pid()
        assert worker is not None and nursery is not None
        assert spare.stop() < 2.0
        assert is_gone(worker) and is_gone(nursery)
        for viewer in viewers[1:]:
            assert "Goodbye" in viewer.communicate(timeout=5)[0]
    finally:
        for viewer in viewers:
            viewer.kill()
            viewer.communicate()  # closes its pipe, too
    assert not spare.paths.socket.exists()

    spare.start()
    wait_for(lambda: spare.client.job(job.id).status == "running", 30, "the job's new start")
    spare.client.cancel(job.id)


def test_an_engine_whose_folder_was_removed_ends_and_takes_nothing_from_its_successor(
    spare: LiveEngine,
) -> None:
    spare.start()
    first = spare.process
    assert first is not None
    shutil.rmtree(spare.home / "state")
    shutil.rmtree(spare.paths.runtime)
    spare.start()
    first.wait(timeout=5)
    time.sleep(1.2)  # longer than the first one looked after its socket
    assert spare.answers()
