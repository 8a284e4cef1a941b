"""How many replicas, how large, and which request goes to which: the arguments of a deployment beside the server's settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from smolvlm.errors import ParamsError
from smolvlm.serve.config import ServeConfig

NAME = "smolvlm"  # of the deployment: what a Serve config file calls it
_BY_SESSION = "ray.serve.experimental.consistent_hash_router.ConsistentHashRouter"


class ReplicaOptions(BaseModel):
    """target_ongoing_requests: that each replica should have under way, by the mean; above it one more is started. None: half
    of `max_running`, for a replica whose batch is full leaves no room for those who come while the next one loads.

    replica_cpus: processors of each replica, and the threads that it computes with. replica_gpus: its share of a GPU.
    upscale_delay_s, downscale_delay_s: how long there must be too many or too few requests before Serve acts.
    sticky: requests with the same header `x-session-id` go to the same replica, which holds their pictures and prompts.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_replicas: int = Field(1, ge=0)
    max_replicas: int = Field(4, ge=1)
    target_ongoing_requests: float | None = Field(None, gt=0)
    replica_cpus: int = Field(2, ge=1)
    replica_gpus: float = Field(0.0, ge=0, le=64)
    upscale_delay_s: float = Field(30.0, ge=0)
    downscale_delay_s: float = Field(600.0, ge=0)
    sticky: bool = False

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> ReplicaOptions:
        """Of typed values or text. Raises ParamsError that names what is out of range."""
        try:
            options = cls.model_validate(dict(values))
        except ValidationError as error:
            first = error.errors()[0]
            raise ParamsError(f"{first['loc'][0]}={str(first['input'])[:60]}: {first['msg'][:1].lower()}{first['msg'][1:]}.") from None
        if options.min_replicas > options.max_replicas:
            raise ParamsError(f"min_replicas={options.min_replicas} is more than max_replicas={options.max_replicas}.")
        return options

    def autoscaling(self, config: ServeConfig) -> dict[str, Any]:
        """Serve's `autoscaling_config`."""
        target = self.target_ongoing_requests or max(1.0, config.max_running / 2)
        same = ("min_replicas", "max_replicas", "upscale_delay_s", "downscale_delay_s")
        return {"target_ongoing_requests": target} | {name: getattr(self, name) for name in same}

    def routing(self) -> dict[str, Any]:
        """The deployment's name, and how Serve chooses a replica: the less busy of two, or by session.

        Two names, because a proxy keeps the way of choosing that it first learned for a name (Ray 2.60).
        """
        if not self.sticky:
            return {"name": NAME}
        return {"name": f"{NAME}-sticky", "request_router_config": {"request_router_class": _BY_SESSION}}
