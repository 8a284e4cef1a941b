"""One run for the tests that need a process of their own: `run_sft.py OPTIONS.json [--kill-at N] [--limit-at N BYTES]`."""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from pathlib import Path


def main() -> int:
    from smolvlm.errors import SmolVLMError
    from smolvlm.options.training import TrainOptions
    from smolvlm.train.records import StepRecord
    from smolvlm.train.sft import sft

    options = TrainOptions(**json.loads(Path(sys.argv[1]).read_text()))
    kill_at = int(sys.argv[3]) if sys.argv[2:3] == ["--kill-at"] else 0
    limit_at = int(sys.argv[3]) if sys.argv[2:3] == ["--limit-at"] else 0

    def on_step(record: StepRecord) -> None:
        if record.step == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        if record.step == limit_at:  # from here on no file may grow beyond: what a full disk looks like to a writer
            resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[4]), resource.RLIM_INFINITY))

    try:
        sft(options, on_step)
    except SmolVLMError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
