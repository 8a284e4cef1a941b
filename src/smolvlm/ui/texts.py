"""Every word that the page shows, in English and Chinese, and which of the two a browser asks for."""

from __future__ import annotations

from typing import Any

LANGUAGES = {"en": "English", "zh": "中文"}
DEFAULT_LANGUAGE = "en"

_TEXTS = {
    "tagline": ("Ask about pictures and videos. Nothing is passed on to anyone.", "就图片和视频提问。数据不会转交给任何人。"),
    "answers": ("<b>{model}</b> answers ({engine}).", "回答的模型：<b>{model}</b>（{engine}）。"),
    "nano": (
        "nano is a small demonstration model: it knows drawn scenes, signs and clips like the examples, and nothing of photographs.",
        "nano 是一个小型演示模型：它只认识与示例相似的手绘场景、标牌和短片，不认识照片。它只懂英文。",
    ),
    "random": (
        "This checkpoint has random weights: it knows nothing, and its answers mean nothing.",
        "此检查点的权重是随机的：它一无所知，回答没有意义。",
    ),
    "small": (
        "A small model: it miscounts, misreads small text and invents. Check what matters.",
        "小模型会数错、看错小字，也会编造。重要内容请自行核实。",
    ),
    "placeholder": (
        "<h3>What would you like to know?</h3>Add pictures or videos with the paper clip, or try an example.",
        "<h3>想了解什么？</h3>用回形针添加图片或视频，或点击一个示例。",
    ),
    "chat": ("Conversation", "对话"),
    "box": ("Ask a question; add pictures and videos …", "输入问题；可添加图片和视频 …"),
    "new": ("New conversation", "新对话"),
    "theme": ("Dark / light", "深色 / 浅色"),
    "settings": ("Settings", "设置"),
    "system": ("System prompt", "系统提示词"),
    "system_info": ("How the model should answer; may stay empty.", "告诉模型如何回答；可以留空。"),
    "temperature": ("Temperature", "温度"),
    "temperature_info": ("0: the likeliest word each time.", "0：每次取最可能的词。"),
    "top_p": ("Top-p", "Top-p"),
    "top_p_info": ("Sample among likely words of this mass; 1: all.", "只在累计概率达到此值的词中采样；1：全部。"),
    "max_tokens": ("Longest answer (tokens)", "回答的最大长度（token）"),
    "frames": ("Frames of a video", "视频取帧数上限"),
    "detail": ("Detail of pictures", "图片细节"),
    "detail_official": ("official: enlarged and split", "official：放大并切块"),
    "detail_fit": ("fit: never enlarged", "fit：不放大"),
    "detail_low": ("low: one tile, fastest", "low：一块，最快"),
    "media_info": ("Holds for pictures and videos that are added from now on.", "对此后添加的图片和视频生效。"),
    "seen": ("Frames that the model saw", "模型看到的帧"),
    "upload": ("Picture or video", "图片或视频"),
    "question": ("Question", "问题"),
    "question_hint": ("What happens in this video?", "What happens in this video?"),
    "ask": ("Ask", "提问"),
    "stop": ("Stop", "停止"),
    "answer": ("Answer", "回答"),
    "examples": ("Examples", "示例"),
    "waiting": ("Waiting: {count} before you …", "排队中：前面还有 {count} 个 …"),
    "starting": ("Opening …", "正在打开 …"),
    "stage_frames": ("Reading the video: frame {done} of {total} …", "正在读取视频：第 {done} / {total} 帧 …"),
    "stage_tiles": ("Looking: {done} of {total} tiles …", "正在看图：{done} / {total} 块 …"),
    "stage_prefill": ("Thinking …", "正在思考 …"),
    "stopped": ("Stopped.", "已停止。"),
    "no_words": ("(no words)", "（没有内容）"),
    "ended_length": ("Cut after {tokens} tokens; the settings allow more.", "已在 {tokens} 个 token 处截断；可在设置中调大。"),
    "ended_repetition": ("Ended where it began to repeat itself.", "开始重复，已结束。"),
    "cost": (
        "{tokens} tokens in {total:.1f} s, the first after {first:.2f} s.",
        "{tokens} 个 token，用时 {total:.1f} 秒，首个在 {first:.2f} 秒后。",
    ),
    "encoded": ("Tiles encoded: {tiles}.", "编码了 {tiles} 块。"),
    "reused": ("Nothing encoded again.", "没有重新编码。"),
    "empty": ("Type a question, or add a picture or a video.", "请输入问题，或添加图片或视频。"),
    "busy": ("The answer before is still being written; stop it first.", "上一个回答还没写完，请先停止。"),
    "too_many": ("{count} files: at most {most} in one question.", "{count} 个文件：一个问题最多 {most} 个。"),
    "not_an_upload": ("Only files that were uploaded here can be asked about.", "只能询问在此上传的文件。"),
    "defect": ("Something went wrong that is our fault; the terminal of smolvlm says more.", "程序内部出错；smolvlm 的终端里有更多信息。"),
}


def text(key: str, lang: str, **values: Any) -> str:
    """The words for `key` in one of LANGUAGES, with `values` filled in."""
    return _TEXTS[key][list(LANGUAGES).index(lang)].format(**values)


def keys() -> tuple[str, ...]:
    """The names of all texts."""
    return tuple(_TEXTS)


def preferred_language(accept_language: str) -> str:
    """The language that an Accept-Language header (RFC 9110, 12.5.4) puts first, of those that we have; else English."""
    best, best_weight = DEFAULT_LANGUAGE, 0.0
    for item in accept_language.split(","):
        tag, _, parameters = item.strip().partition(";")
        lang = tag.strip().lower().partition("-")[0]
        try:
            weight = float(parameters.partition("q=")[2]) if "q=" in parameters else 1.0
        except ValueError:
            weight = 0.0
        if lang in LANGUAGES and weight > best_weight:  # among equals the first
            best, best_weight = lang, weight
    return best
