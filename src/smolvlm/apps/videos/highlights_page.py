"""One HTML file, nothing beside it, that shows why each moment was taken; English and Chinese."""

from __future__ import annotations

import base64
import html
import io
from pathlib import Path

from PIL import Image

from smolvlm.apps.videos.highlights import Highlights, HighlightSettings
from smolvlm.apps.videos.highlights_choice import Candidate
from smolvlm.apps.videos.playlists import location
from smolvlm.errors import VideoError
from smolvlm.media import Video

_THUMB_PX = 320
_MOST_OTHERS = 40
_TEXTS = {
    "title": ("Highlights", "精彩片段"),
    "taken": ("Taken", "已选"),
    "others": ("Likely, but not taken: no room in the budget, or like another", "可能但未选：超出时长，或与其他片段相似"),
    "none": ("none", "无"),
    "probability": ("probability", "概率"),
    "budget": ("of", "／"),
    "play": ("Click a picture to play it from there.", "点击图片即可从该处播放。"),
}
_STYLE = """
body{font:16px/1.45 system-ui,sans-serif;margin:0 auto;max-width:60rem;padding:1rem;color:#1c1c1c;background:#fff}
video{width:100%;max-height:50vh;background:#000}
ol{list-style:none;padding:0;display:grid;gap:.8rem;
grid-template-columns:repeat(auto-fill,minmax(15rem,1fr))}
li{border:1px solid #ddd;border-radius:.4rem;overflow:hidden}
button{border:0;padding:0;width:100%;cursor:pointer;background:#eee;min-height:3rem}
img{display:block;width:100%}
p{margin:.4rem .6rem;overflow-wrap:anywhere}.why{color:#555;font-size:.85rem}meter{width:100%}
html[lang=zh] .en,html[lang=en] .zh{display:none}
@media(prefers-color-scheme:dark){body{background:#161616;color:#eee}.why{color:#aaa}
li{border-color:#444}}
"""
_SCRIPT = """
const video=document.querySelector('video'),root=document.documentElement;
root.lang=(navigator.language||'en').startsWith('zh')?'zh':'en';
document.getElementById('language').onclick=()=>{root.lang=root.lang==='zh'?'en':'zh'};
for(const b of document.querySelectorAll('button[data-s]'))b.onclick=()=>{video.currentTime=+b.dataset.s;video.play()};
"""


def highlights_page(video: Video, found: Highlights, settings: HighlightSettings, out: Path) -> str:
    """The page's text. The video is named relative to `out`; pictures are in the page."""
    address = "" if video.source.path is None else location(Path(video.source.path), Path(out).absolute().parent)
    taken = "".join(_entry(video, candidate) for candidate in found.taken)
    others = sorted(found.others, key=lambda candidate: -candidate.probability)[:_MOST_OTHERS]
    rest = "".join(_entry(video, candidate) for candidate in others) or f"<li><p>{_both('none')}</p></li>"
    about = html.escape("; ".join(found.about) or found.kind)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; img-src data:; media-src 'self' file: data:; "
        "style-src 'unsafe-inline'; script-src 'unsafe-inline'\">"
        f"<title>Highlights</title><style>{_STYLE}</style></head><body>"
        f'<h1>{_both("title")} <button id="language" style="width:auto;padding:.2rem .6rem;min-height:0">English / 中文</button></h1>'
        f"<p>{html.escape(video.label)} {about and '· ' + about} · {found.lasts_s:.1f} s {_both('budget')} {settings.duration:g} s</p>"
        f'<video controls preload="metadata" src="{html.escape(address, quote=True)}"></video><p>{_both("play")}</p>'
        f"<h2>{_both('taken')}</h2><ol>{taken}</ol><h2>{_both('others')}</h2><ol>{rest}</ol>"
        f"<script>{_SCRIPT}</script></body></html>\n"
    )


def _both(name: str) -> str:
    english, chinese = (html.escape(text) for text in _TEXTS[name])
    return f'<span class="en">{english}</span><span class="zh">{chinese}</span>'


def _entry(video: Video, candidate: Candidate) -> str:
    return (
        f'<li><button data-s="{candidate.start_s:.3f}" aria-label="{candidate.start_s:.1f} s">{_picture(video, candidate)}</button>'
        f"<p>{html.escape(candidate.caption)}</p><p>{candidate.start_s:.1f}-{candidate.end_s:.1f} s</p>"
        f'<p><meter value="{candidate.probability:.3f}"></meter> {_both("probability")} {candidate.probability:.0%}</p>'
        f'<p class="why">{html.escape(candidate.reason)}</p></li>'
    )


def _picture(video: Video, candidate: Candidate) -> str:
    """The middle frame as a JPEG in the page; nothing where it cannot be decoded."""
    try:
        frame = next(video.frames((candidate.start_s + candidate.end_s) / 2, longest_edge=_THUMB_PX))
    except (VideoError, StopIteration):
        return ""
    held = io.BytesIO()
    Image.fromarray(frame.pixels).save(held, "JPEG", quality=75)
    return f'<img alt="" src="data:image/jpeg;base64,{base64.b64encode(held.getvalue()).decode()}">'
