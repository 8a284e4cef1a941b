"""The settings of the page: one frozen dataclass."""

from __future__ import annotations

from dataclasses import dataclass

from smolvlm.errors import ParamsError
from smolvlm.listening import Callers

LANGUAGE_CHOICES = ("auto", "en", "zh")


@dataclass(frozen=True, kw_only=True)
class PageConfig:
    """What `smolvlm ui` may be told; each default lives here. Raises ParamsError for a value out of its range.

    allowed_hosts: names that the page answers to, beside localhost, addresses and `host`. port: 0 takes a free one and
    prints it. simple: the page of one question. lang: "auto" is the browser's first choice among English and
    Chinese. max_upload_mb: of one file, in units of 10^6 bytes. random_weights: whether the checkpoint says of itself that
    it knows nothing.
    """

    host: str = "127.0.0.1"
    allowed_hosts: tuple[str, ...] = ()
    port: int = 7860
    simple: bool = False
    lang: str = "auto"
    max_upload_mb: int = 500
    random_weights: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ParamsError(f"port={self.port}: expected a number from 0 to 65535.")
        if self.lang not in LANGUAGE_CHOICES:
            raise ParamsError(f"lang={self.lang!r}: expected one of {', '.join(LANGUAGE_CHOICES)}.")
        Callers(self.host, self.allowed_hosts)
        if self.max_upload_mb < 1:
            raise ParamsError(f"max_upload_mb={self.max_upload_mb}: expected a whole number of at least 1.")
