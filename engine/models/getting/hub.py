"""What the Hub says of a repository, and of one file: asked through huggingface_hub, failures in sentences.

A token goes to the endpoint that it was set for and nowhere else: HF_TOKEN to the endpoint in use, the
one that a login saved to the public Hub alone, and neither to a host that a download is redirected to.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import BinaryIO, TypeVar
from urllib.parse import urlsplit

from engine.errors import EngineError, NotNow, Refused, WorkFailed

PUBLIC_HUB = "https://huggingface.co"

Answer = TypeVar("Answer")


class Unreachable(NotNow):
    """The Hub could not be asked: no route, no answer, or the person forbade it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RemoteFile:
    """A file as the Hub lists it."""

    bytes: int
    digest: str
    """`sha256:` of a large file's bytes, or `sha1:` of git's blob."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Repository:
    """A repository as it is now."""

    name: str
    commit: str
    licence: str | None
    files: Mapping[str, RemoteFile]


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """Where the bytes of a file come from."""

    url: str
    headers: dict[str, str]
    etag: str


class Hub:
    """The endpoint in use."""

    def __init__(self) -> None:
        from huggingface_hub import constants

        self.endpoint: str = constants.ENDPOINT
        self.offline = constants.is_offline_mode()
        self._timeout_s = float(constants.HF_HUB_ETAG_TIMEOUT)
        self._token = _token(self.endpoint)

    def repository(self, name: str) -> Repository:
        """What `name` holds and under which licence.

        Raises:
            Unreachable: the Hub could not be asked.
            Refused, WorkFailed: it answered that it will not say, or nonsense.
        """
        from huggingface_hub import HfApi

        api = HfApi(endpoint=self.endpoint, token=self._token or False)
        info = self._ask(name, lambda: api.model_info(name, files_metadata=True, timeout=self._timeout_s))
        files = {}
        for sibling in info.siblings or ():
            if sibling.size is None:
                continue
            digest = f"sha1:{sibling.blob_id}" if sibling.lfs is None else f"sha256:{sibling.lfs.sha256}"
            files[sibling.rfilename] = RemoteFile(bytes=sibling.size, digest=digest)
        if info.sha is None:
            raise WorkFailed(f"{self.endpoint} names no commit of {name}; it is no Hub, check HF_ENDPOINT")
        licence = getattr(info.card_data, "license", None)
        licence = licence or next(
            (tag.removeprefix("license:") for tag in info.tags or () if tag.startswith("license:")), None
        )
        return Repository(name=name, commit=info.sha, licence=str(licence) if licence else None, files=files)

    def source(self, repository: Repository, path: str) -> Source:
        """Where to fetch `path` from, with what to send along.

        Raises:
            Unreachable, Refused, WorkFailed: as `repository`.
        """
        from huggingface_hub import get_hf_file_metadata, hf_hub_url

        url = hf_hub_url(repository.name, path, revision=repository.commit, endpoint=self.endpoint)
        found = self._ask(
            repository.name,
            lambda: get_hf_file_metadata(
                url, token=self._token or False, timeout=self._timeout_s, endpoint=self.endpoint
            ),
        )
        if found.etag is None:
            raise WorkFailed(f"{self.endpoint} gives no digest for {path}; it is no Hub, check HF_ENDPOINT")
        at_home = urlsplit(found.location).netloc == urlsplit(self.endpoint).netloc
        headers = {"authorization": " ".join(("Bearer", self._token))} if self._token and at_home else {}
        return Source(url=found.location, headers=headers, etag=found.etag)

    def stream(self, source: Source, sink: BinaryIO, *, have: int, size: int, name: str) -> None:
        """Write the bytes of `source` from `have` on into `sink`, which may be set back to the beginning.

        Raises:
            Unreachable, Refused, WorkFailed: as `repository`.
            OSError: the disk refused.
        """
        from huggingface_hub.file_download import http_get

        self._ask(
            name,
            lambda: http_get(source.url, sink, resume_size=have, headers=source.headers, expected_size=size),
        )

    def _ask(self, name: str, call: Callable[[], Answer]) -> Answer:
        if self.offline:
            raise Unreachable(
                f"HF_HUB_OFFLINE forbids to ask {self.endpoint} for {name}; unset it, or fetch the files "
                "on another machine"
            )
        try:
            return call()
        except EngineError:
            raise
        except Exception as error:
            if (told := self._told(name, error)) is None:
                raise
            raise told from error

    def _told(self, name: str, error: Exception) -> EngineError | None:
        """What went wrong in a sentence; None where it was not the network."""
        from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

        page = f"{self.endpoint}/{name}"
        if isinstance(error, GatedRepoError):
            return Refused(
                f"{name} is gated: agree to its terms at {page}, then set HF_TOKEN to a token that "
                "may read it"
            )
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status == 401 and self._token:
            return Refused(
                f"{self.endpoint} refuses the token for {name} (401); make a new one and set HF_TOKEN to it, "
                "or unset it"
            )
        if isinstance(error, RepositoryNotFoundError) or status == 404:
            return Refused(
                f"{self.endpoint} shows no {name} to you (404); look at {page}, set HF_TOKEN if you may read "
                "it, or check HF_ENDPOINT"
            )
        if status in (401, 403):
            return Refused(
                f"{self.endpoint} does not give {name} to you ({status}); set HF_TOKEN to a token that may "
                "read it"
            )
        if isinstance(error, HfHubHTTPError) and status is not None:
            return Unreachable(f"{self.endpoint} answers {status} for {name}; try again later")
        # huggingface_hub lets through what its HTTP library raises, which is no dependency of ours.
        if type(error).__module__.partition(".")[0] in ("httpx", "httpx2", "httpcore", "httpcore2"):
            why = str(error).strip() or type(error).__name__
            return Unreachable(
                f"{self.endpoint} cannot be reached ({why}); check the network and HF_ENDPOINT, or fetch the "
                "files on another machine"
            )
        return None


def _token(endpoint: str) -> str | None:
    from huggingface_hub import constants, get_token

    given = os.environ.get("HF_TOKEN") or os.environ.get("HUGGING_FACE_HUB_TOKEN")
    if given:
        return given.strip() or None
    if endpoint == PUBLIC_HUB and not constants.HF_HUB_DISABLE_IMPLICIT_TOKEN:
        return get_token()
    return None
