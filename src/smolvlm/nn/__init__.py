"""The PyTorch modules, one file for each box of the diagram. Module paths equal the official tensor names."""

try:
    import torch as _torch  # noqa: F401
except ImportError as error:  # pragma: no cover - exercised in an environment without torch
    from smolvlm.errors import MissingExtraError

    raise MissingExtraError("the PyTorch model", "torch") from error
