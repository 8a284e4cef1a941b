"""The settings of the page: one frozen dataclass."""

from __future__ import annotations

from dataclasses import dataclass

from smolvlm.listening import Callers
from smolvlm.options.declare import check, option

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
    port: int = option(7860, "The port; 0 takes a free one and prints it.", least=0, most=65535)
    simple: bool = False
    lang: str = option("auto", "The page's language.", choices=LANGUAGE_CHOICES)
    max_upload_mb: int = option(500, "Of one file, in units of 10^6 bytes.", least=1)
    random_weights: bool = False

    def __post_init__(self) -> None:
        check(self)
        Callers(self.host, self.allowed_hosts)
