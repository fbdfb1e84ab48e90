"""Where the daemon begins: `python -P -m engine.daemon`.

The order matters: the lock before anything that another engine could notice, the socket before
the slow imports (a client that connects early waits in its backlog instead of failing).

Exit codes: 0 ended as asked, 2 a setting is wrong, 3 another engine holds the lock, 4 the environment
is refused.
"""

from __future__ import annotations

import asyncio
import os
import sys
import uuid

from engine.config import load_config
from engine.daemon.lock import EngineLock
from engine.daemon.nursery import ENVIRONMENT
from engine.errors import EngineError, StorageUnusable
from engine.jobs.liveness import read_start_time
from engine.paths import find_paths, private_dir
from engine.version import build_id
from engine.wire import LockHolder


def main() -> int:
    try:
        paths = find_paths()
        private_dir(paths.state)
        lock = EngineLock(paths.lock)
        lock.acquire()
        private_dir(paths.logs)
        config = load_config(paths.config_file, section="engine")
        from engine.daemon.server import SocketServer, bind_socket

        listener = bind_socket(paths.socket)
        instance = uuid.uuid4().hex
        lock.publish(
            LockHolder(
                pid=os.getpid(),
                start_time=read_start_time(os.getpid()) or 0.0,
                socket=str(paths.socket),
                instance=instance,
                build=build_id(),
            )
        )
    except EngineError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except (OSError, UnicodeError) as error:
        print(
            f"the socket {paths.socket!r} cannot be made: {error}; set TURBOTUI_HOME elsewhere",
            file=sys.stderr,
        )
        return StorageUnusable.exit_code
    # What children other than the nursery get; the daemon itself never touches a device.
    environ = dict(os.environ)
    os.environ.update(ENVIRONMENT)
    os.chdir(paths.state)
    os.umask(0o077)

    from engine.daemon.app import create_app
    from engine.daemon.engine import Engine

    async def serve() -> None:
        engine = Engine(paths, config, lock=lock, environ=environ, instance=instance)
        server = SocketServer(
            create_app(engine),
            paths.socket,
            listener,
            may_bind=lock.still_held,
            on_rebound=engine.socket_rebound,
        )
        await engine.serve(server)

    try:
        asyncio.run(serve())
    except EngineError as error:  # a job store that is newer or damaged, above all
        paths.socket.unlink(missing_ok=True)
        print(error, file=sys.stderr)
        return error.exit_code
    # Whatever thread still waits for a child that hangs must not keep the process.
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
