"""Where things live: state, data, config, cache and the socket, for this user and host.

`TURBOTUI_HOME` moves all of it below one folder. Everything here is pure path arithmetic but
`private_dir`, which makes the folders that others must not enter. Home comes from the
environment or the password database and falls back to the temporary folder, since a container
may have neither a passwd entry nor a writable home.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import stat
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from engine.errors import InvalidRequest, StorageUnusable

APP = "turbotui"
SOCKET_PATH_LIMIT = 107
"""`sun_path` holds 108 bytes with its final NUL."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Paths:
    """Every place that the engine and its clients touch."""

    state: Path
    """Lock, jobs.sqlite, logs, audit."""
    data: Path
    """`models/` below it."""
    config: Path
    """config.toml."""
    cache: Path
    """What can be made again; may be removed at any time."""
    runtime: Path
    """The socket's folder, 0700 and ours."""
    output: Path
    """Finished videos, unless a job names a folder."""

    @property
    def lock(self) -> Path:
        return self.state / "engine.lock"

    @property
    def jobs(self) -> Path:
        return self.state / "jobs.sqlite"

    @property
    def ledger(self) -> Path:
        return self.state / "ledger.sqlite"

    @property
    def logs(self) -> Path:
        return self.state / "logs"

    @property
    def audit(self) -> Path:
        return self.state / "audit.jsonl"

    @property
    def recordings(self) -> Path:
        return self.state / "recordings"

    @property
    def models(self) -> Path:
        return self.data / "models"

    @property
    def embeddings(self) -> Path:
        return self.cache / "embeddings"

    @property
    def config_file(self) -> Path:
        return self.config / "config.toml"

    @property
    def socket(self) -> Path:
        return self.runtime / "engine.sock"


def find_paths(environ: dict[str, str] | None = None) -> Paths:
    """The paths for this environment; creates nothing.

    Raises:
        InvalidRequest: `TURBOTUI_HOME` begins with a `~` that cannot be resolved.

    `HOME` may be read-only: then state, data and cache move to a folder of ours below the temporary
    folder, so that the engine still runs; `turbotui status` shows where.
    """
    env = dict(os.environ) if environ is None else environ
    if home := env.get("TURBOTUI_HOME"):
        expanded = os.path.expanduser(home)
        if expanded.startswith("~"):
            raise InvalidRequest(f"TURBOTUI_HOME = {home!r} names nobody's home; give an absolute folder")
        root = Path(expanded).absolute()
        return Paths(
            state=root / "state",
            data=root / "data",
            config=root / "config",
            cache=root / "cache",
            runtime=_short_enough(root / "run", root),
            output=root / "videos",
        )
    import tempfile  # with random and hashlib behind it: 10 ms that TURBOTUI_HOME does not need

    fallback = Path(tempfile.gettempdir()) / f"{APP}-{os.getuid()}"
    # platformdirs finds no home without HOME or a passwd entry: "~" stays unexpanded then.
    home_dir = Path(env.get("HOME") or os.path.expanduser("~"))
    if not home_dir.is_absolute():
        home_dir = fallback
    state = _xdg(env, "XDG_STATE_HOME", platformdirs.user_state_path(APP), home_dir, ".local/state")
    data = _xdg(env, "XDG_DATA_HOME", platformdirs.user_data_path(APP), home_dir, ".local/share")
    config = _xdg(env, "XDG_CONFIG_HOME", platformdirs.user_config_path(APP), home_dir, ".config")
    cache = _xdg(env, "XDG_CACHE_HOME", platformdirs.user_cache_path(APP), home_dir, ".cache")
    if not _could_write(state):
        state = fallback / "state"
    if not _could_write(data):
        data = fallback / "data"
    if not _could_write(cache):
        cache = fallback / "cache"
    runtime_base = env.get("XDG_RUNTIME_DIR")
    runtime = Path(runtime_base) / APP if runtime_base and os.access(runtime_base, os.W_OK) else fallback
    output = home_dir / "Videos" / APP if (home_dir / "Videos").is_dir() else data / "videos"
    return Paths(
        state=state,
        data=data,
        config=config,
        cache=cache,
        runtime=_short_enough(runtime, state),
        output=output,
    )


def private_dir(path: Path) -> Path:
    """Make `path` a folder that only we can enter, or refuse one that somebody else made.

    Raises:
        StorageUnusable: it is a symlink, is not ours, is open to others and stays so, or
            cannot be made.
    """
    for parent in path.parents:
        if parent.name == f"{APP}-{os.getuid()}":
            private_dir(parent)  # it lies in a folder that everybody can write, and must be ours as well
            break
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        info = path.lstat()
        if not stat.S_ISDIR(info.st_mode):
            raise StorageUnusable(f"{path} is not a folder; remove it, or set TURBOTUI_HOME to another place")
        if info.st_uid != os.getuid():
            raise StorageUnusable(
                f"{path} belongs to uid {info.st_uid}, not to us ({os.getuid()}); "
                "remove it, or set TURBOTUI_HOME to another place"
            )
        if stat.S_IMODE(info.st_mode) & 0o077:
            path.chmod(0o700)
    except OSError as error:
        raise StorageUnusable(
            f"{path} cannot be made: {error.strerror}; set TURBOTUI_HOME to a folder that can be written"
        ) from error
    return path


def user_name(uid: int | None = None) -> str:
    """The name of `uid`, or of who runs this; a container may have no passwd entry for it."""
    uid = os.getuid() if uid is None else uid
    with contextlib.suppress(KeyError):
        return pwd.getpwuid(uid).pw_name
    return f"uid {uid}"


def _xdg(env: dict[str, str], variable: str, standard: Path, home: Path, below_home: str) -> Path:
    if env.get(variable):
        return Path(env[variable]) / APP
    return standard if standard.is_absolute() else home / below_home / APP


def _could_write(path: Path) -> bool:
    """Whether `path` can be written once made: its nearest existing parent decides."""
    for candidate in (path, *path.parents):
        if candidate.exists():
            return os.access(candidate, os.W_OK | os.X_OK)
    return False


def _short_enough(runtime: Path, owner: Path) -> Path:
    """`runtime`, or a short stand-in below the temporary folder when the socket's path would not fit."""
    if len(os.fsencode(runtime / "engine.sock")) <= SOCKET_PATH_LIMIT:
        return runtime
    import hashlib

    digest = hashlib.sha256(os.fsencode(owner)).hexdigest()[:12]
    return Path("/tmp") / f"{APP}-{os.getuid()}-{digest}"
