"""The client of another machine's engine: what a job names of this machine is put there first."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from engine.wire import (
    BatchForecast,
    BatchQueued,
    Explanation,
    Job,
    JobBatch,
    JobForecast,
    JobSpec,
    StoredImage,
)
from turbotui.client.files import put_image
from turbotui.client.http import HttpClient


class Images:
    """What was put there already, by the file as it was; lives as long as the box."""

    def __init__(self, host: str, *, on_put: Callable[[Path, StoredImage], None]) -> None:
        self._host = host
        self._on_put = on_put
        self._put: dict[tuple[str, int, int], str] = {}
        self._lock = threading.Lock()

    def there(self, client: HttpClient, image: str) -> str:
        """The path there of `image`: of this machine, which is put, or `box:/path` of that one.

        A path that is no file here is taken to be that machine's.

        Raises:
            InvalidRequest: it is no image that the engine takes.
        """
        before, mark, path = image.partition(f"{self._host}:")
        if mark and path.startswith("/") and before in ("", f"{Path.cwd()}/"):
            return path
        file = Path(image)
        if not file.is_file():
            return image
        with self._lock:
            info = file.stat()
            key = (str(file.absolute()), info.st_size, info.st_mtime_ns)
            if key not in self._put:
                stored = put_image(client, file)
                self._put[key] = stored.path
                self._on_put(file, stored)
            return self._put[key]


class BoxClient(HttpClient):
    """As `HttpClient`; the images of jobs may be this machine's."""

    def __init__(self, socket_path: str | Path, *, where: str, images: Images) -> None:
        super().__init__(socket_path, where=where)
        self._images = images

    def submit(self, spec: JobSpec) -> Job:
        return super().submit(self._there(spec))

    def forecast(self, spec: JobSpec) -> JobForecast:
        return super().forecast(self._there(spec))

    def submit_many(self, batch: JobBatch) -> BatchQueued:
        return super().submit_many(self._all_there(batch))

    def forecast_many(self, batch: JobBatch) -> BatchForecast:
        return super().forecast_many(self._all_there(batch))

    def explain(self, spec: JobSpec) -> Explanation:
        return super().explain(self._there(spec))

    def _all_there(self, batch: JobBatch) -> JobBatch:
        return replace(batch, specs=tuple(self._there(spec) for spec in batch.specs))

    def _there(self, spec: JobSpec) -> JobSpec:
        if not spec.image:
            return spec
        return replace(spec, image=self._images.there(self, spec.image))
