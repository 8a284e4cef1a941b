"""Cutting videos without encoding them anew, but for the edges."""

from smolvlm.apps.videos.cut.cutter import CutReport, cut
from smolvlm.apps.videos.cut.plan import Piece

__all__ = ["CutReport", "Piece", "cut"]
