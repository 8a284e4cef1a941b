"""What a batch run asks of every input, and with which model: all that its answers depend on."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from smolvlm.errors import ParamsError
from smolvlm.generation import normalize_schema
from smolvlm.media.fetch.policy import RemotePolicy
from smolvlm.options.declare import check, option
from smolvlm.vlm import split_options

PART_INPUTS = 16  # what a killed worker may have to do again, and the step of the progress bar
BATCH_SIZE = 8  # answers decoded together
MAX_QUESTIONS = 100
_NOT_ANSWERS = ("batch_size",)  # may change between two halves of a run


@dataclass(frozen=True)
class ModelSpec:
    """Arguments of `smolvlm.load`, and the fingerprint of the weights that it must find under that name."""

    name: str
    fingerprint: str
    adapter: str | None = None
    engine: str = "auto"
    device: str = "auto"
    dtype: str = "auto"
    prompt_style: str = "official"


@dataclass(frozen=True, kw_only=True)
class BatchSettings:
    """Questions, options and model of a run. Raises ParamsError, or SchemaError for a schema that cannot be followed.

    options: fields of MediaOptions and GenerationParams. schema: JSON text; each answer is then a document of it.
    remote_hosts: as `RemotePolicy.hosts`; none by default. allow_addresses: networks inside one's own that may be
    fetched from all the same, and remote_ports beside 80 and 443. allow_paths: folders, by their whole paths, from which
    lists and Parquet files may name media beside their own folders.
    """

    model: ModelSpec
    questions: tuple[str, ...]
    inputs: tuple[str, ...]
    system: str | None = None
    schema: str | None = None
    column: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    remote_hosts: tuple[str, ...] = ()
    remote_ports: tuple[int, ...] = ()
    allow_addresses: tuple[str, ...] = ()
    allow_paths: tuple[str, ...] = ()
    part_inputs: int = option(PART_INPUTS, "Inputs of one part.", least=1)
    batch_size: int = option(BATCH_SIZE, "Answers decoded together.", least=1)

    def __post_init__(self) -> None:
        if not self.inputs:
            raise ParamsError("no input is given; pass folders, lists, Parquet files, WebDataset shards or media.")
        if not 1 <= len(self.questions) <= MAX_QUESTIONS or not all(q.strip() for q in self.questions):
            raise ParamsError(f"questions: expected 1 to {MAX_QUESTIONS} texts that are not empty.")
        if len(set(self.questions)) < len(self.questions):
            raise ParamsError("questions holds the same question twice; each may stand once.")
        check(self)
        for folder in self.allow_paths:
            if not os.path.isabs(folder):
                raise ParamsError(f"allow_paths: {folder!r} is not a whole path; write it from the root on.")
        split_options(self.options)
        self.remote_policy()
        if self.schema is not None:
            normalize_schema(self.schema)

    def remote_policy(self) -> RemotePolicy:
        """Which addresses may be fetched."""
        ports = (*RemotePolicy.ports, *self.remote_ports)
        return RemotePolicy(hosts=self.remote_hosts, ports=ports, allow_addresses=self.allow_addresses)

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it, tuples as lists; `from_dict` takes it back."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return plain

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> BatchSettings:
        tuples = {f.name for f in fields(cls) if str(f.type).startswith("tuple")}
        values: dict[str, Any] = {name: tuple(v) if name in tuples else v for name, v in raw.items()}
        values["model"] = ModelSpec(**raw["model"])
        return cls(**values)

    def identity(self) -> dict[str, Any]:
        """What a resumed run must have in common with the parts that are there, flat, by name."""
        raw = self.to_dict()
        model, options = raw.pop("model"), raw.pop("options")
        named: dict[str, Any] = {"model" if name == "name" else f"model's {name}": value for name, value in model.items()}
        named |= options
        return named | {name: value for name, value in raw.items() if name not in _NOT_ANSWERS}
