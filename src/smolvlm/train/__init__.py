"""Training: mixtures, conversations, packing, objectives, and a loop of our own on `accelerate`. Needs the `train` extra."""

from importlib.util import find_spec

from smolvlm.errors import MissingExtraError

if any(find_spec(name) is None for name in ("accelerate", "torch")):  # found, not imported: `--help` needs neither
    raise MissingExtraError("training", "train")
