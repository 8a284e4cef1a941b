"""Photos and videos -> the uint8 tiles and frames that the vision encoder reads. NumPy, Pillow and PyAV; no torch.

image = load_image("photo.jpg")                      # any form -> an upright RGB picture
tiled = split_image(image, config, MediaOptions())   # the tile rule
pixel_values = normalize(tiled.tiles, config)        # float32 (tiles, 3, side, side)
video = sample_video("clip.mp4", config)             # frames by seeking, with their times
"""

from smolvlm.media.container import StreamInfo
from smolvlm.media.images import ImageLike, load_image
from smolvlm.media.kinds import MediaKind, media_kind
from smolvlm.media.limits import Limits
from smolvlm.media.pixels import normalize
from smolvlm.media.sampled_video import OnFrame, SampledVideo, VideoFrame, VideoInfo
from smolvlm.media.sampling import sample_frame_indices, sample_span_indices
from smolvlm.media.shots import CutDetector, Shot, ShotDetector
from smolvlm.media.sources import Source, SourceLike, SourcePolicy, open_source
from smolvlm.media.tiling import TiledImage, fit_to_tiles, resize_to_longest_edge, split_image, tile_grid
from smolvlm.media.video import Video, VideoLike, probe_video, sample_video
from smolvlm.media.video_packets import PacketSpan, SoundBlock
from smolvlm.media.video_subtitles import SubtitleText
from smolvlm.options.media import DETAILS, MEDIA_KINDS, SAMPLINGS, TONE_MAPS, Detail, MediaOptions, OnWarning, Sampling, ToneMap, WantedKind

__all__ = [
    "DETAILS",
    "MEDIA_KINDS",
    "SAMPLINGS",
    "TONE_MAPS",
    "CutDetector",
    "Detail",
    "ImageLike",
    "Limits",
    "MediaKind",
    "MediaOptions",
    "OnFrame",
    "OnWarning",
    "PacketSpan",
    "SampledVideo",
    "Sampling",
    "Shot",
    "ShotDetector",
    "SoundBlock",
    "Source",
    "SourceLike",
    "SourcePolicy",
    "StreamInfo",
    "SubtitleText",
    "TiledImage",
    "ToneMap",
    "Video",
    "VideoFrame",
    "VideoInfo",
    "VideoLike",
    "WantedKind",
    "fit_to_tiles",
    "load_image",
    "media_kind",
    "normalize",
    "open_source",
    "probe_video",
    "resize_to_longest_edge",
    "sample_frame_indices",
    "sample_span_indices",
    "sample_video",
    "split_image",
    "tile_grid",
]
