"""How the page looks: a theme of system fonts only, a little CSS, and the switch between light and dark."""

from __future__ import annotations

import gradio as gr

# No font is fetched: what the system has is what is shown, and it has Chinese where Chinese is read.
_SANS = (
    "system-ui",
    "-apple-system",
    "Segoe UI",
    "Roboto",
    "Noto Sans",
    "PingFang SC",
    "Microsoft YaHei",
    "Noto Sans CJK SC",
    "sans-serif",
)
_MONO = ("ui-monospace", "Consolas", "Menlo", "monospace")

TOGGLE_DARK = "() => { document.body.classList.toggle('dark'); }"

CSS = """
.gradio-container { width: 100% !important; max-width: 1320px !important; margin: 0 auto !important; }
.gradio-container main { width: 100% !important; }
footer { display: none !important; }
body.dark { background: var(--body-background-fill); color-scheme: dark; }
#top { align-items: center; flex-wrap: wrap; }
#brand { min-width: 260px; }
#brand h1 { font-size: 1.5rem; font-weight: 700; margin: 0; letter-spacing: -0.02em; }
#brand p { margin: 2px 0 0; color: var(--body-text-color-subdued); font-size: 0.9rem; }
#language { flex-grow: 0; min-width: 190px !important; border: none !important; background: none; padding: 0; }
#theme { flex-grow: 0; min-width: 130px !important; }
#note { padding: 0 !important; }
#note p { font-size: 0.88rem; line-height: 1.5; color: var(--body-text-color-subdued); margin: 0;
          border-left: 3px solid var(--color-accent); padding: 2px 12px; }
#note b { color: var(--body-text-color); }
#status { min-height: 1.6em; padding: 0 4px !important; }
#status p { font-size: 0.82rem; color: var(--body-text-color-subdued); margin: 0; }
#chat .message { white-space: pre-wrap; overflow-wrap: anywhere; }
#chat .message img, #chat .message video { max-height: 220px; width: auto; }
#chat .message-buttons-right { display: none; }
button[aria-label="Share"] { display: none !important; }
#frames, #frames .grid-wrap { height: auto !important; min-height: 0 !important; }
#frames .grid-wrap { max-height: 260px; padding: 36px 8px 8px; overflow: hidden auto; }
#frames .grid-container { grid-template-columns: repeat(auto-fill, minmax(72px, 1fr)); grid-auto-rows: auto; height: auto; }
#frames .caption-label { font-variant-numeric: tabular-nums; }
#settings .block { padding: 6px 10px; }
#settings .form, #settings .block { border: none; box-shadow: none; }
"""


def theme() -> gr.themes.Base:
    """Calm colours, round corners."""
    soft = gr.themes.Soft(primary_hue="indigo", neutral_hue="slate", radius_size="lg", font=_SANS, font_mono=_MONO)
    plain = {"background_fill": "transparent", "background_fill_dark": "transparent", "padding": "0"}
    return soft.set(
        **{f"block_title_{name}": value for name, value in plain.items()},
        body_background_fill="*neutral_50",
        block_border_width="1px",
        block_border_color="*neutral_200",
        block_border_color_dark="*neutral_700",
        block_shadow="none",
        block_title_text_color="*body_text_color",
        block_title_text_color_dark="*body_text_color",
        block_title_text_weight="500",
        block_label_text_color="*body_text_color_subdued",
        block_label_text_color_dark="*body_text_color_subdued",
        block_label_background_fill="*block_background_fill",
        block_label_background_fill_dark="*block_background_fill",
    )
