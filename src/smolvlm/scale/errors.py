"""The one error of batch runs, and what is said where pyarrow is missing."""

from __future__ import annotations

from typing import Any

from smolvlm.errors import MissingExtraError, SmolVLMError


class BatchError(SmolVLMError, ValueError):
    """A batch run cannot begin, go on or end: unusable inputs, another run's parts, a full disk, a lost cluster."""


def parquet() -> Any:
    """`pyarrow.parquet`, imported when it is used. Raises MissingExtraError."""
    try:
        import pyarrow.parquet
    except ImportError:
        raise MissingExtraError("smolvlm batch", "scale") from None
    return pyarrow.parquet
