"""How loud a video is, second by second."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from smolvlm.errors import VideoError
from smolvlm.media import Video

_RATE = 8000  # Hz: loud or soft is heard at this rate as well
_FLOOR_DB = -90.0


class Loudness:
    """The RMS level in dB below full scale (0 dB: a square wave at its largest), from one pass over the sound."""

    def __init__(self, video: Video) -> None:
        """No sound, or sound that cannot be decoded, is no error: `warning` says the latter."""
        self.warning: str | None = None
        seconds = int(video.duration_s) + 1
        self._power = np.zeros(seconds)
        self._samples = np.zeros(seconds, np.int64)
        if not video.has_sound:
            return
        try:
            for block in video.sound(sample_rate=_RATE):
                at = (block.time_s + np.arange(len(block.samples)) / _RATE).astype(np.int64).clip(0, seconds - 1)
                square = np.square(block.samples[:, 0], dtype=np.float64)
                self._power += np.bincount(at, square, minlength=seconds)
                self._samples += np.bincount(at, minlength=seconds)
        except VideoError as error:
            self.warning = f"its sound cannot be decoded: {error}"

    def db(self, start_s: float, end_s: float) -> float | None:
        """Of the seconds that `start_s`..`end_s` touches; None where there is no sound."""
        span = slice(int(start_s), max(int(np.ceil(end_s)), int(start_s) + 1))
        count = int(self._samples[span].sum())
        if not count:
            return None
        mean: npt.NDArray[np.float64] = self._power[span].sum() / count
        return float(max(_FLOOR_DB, 10 * np.log10(max(float(mean), 1e-12))))
