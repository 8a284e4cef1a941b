"""Document models of the Idefics3 architecture: SmolDocling-256M-preview and granite-docling-258M, from a page to DocTags.

DocTags are special tokens of these tokenizers (`<doctag>`, `<text>`, `<otsl>`, ...), so they stay in an answer's text.
`docling-core`, the extra `docling`, turns them into a document. Sources: arXiv 2503.11576; granite-docling's published
`config.json`, `tokenizer_config.json` and `chat_template.jinja`; docling-core's `DocumentToken`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from smolvlm.errors import MissingExtraError, PromptError
from smolvlm.families.family import GPT4_SPLIT, Family
from smolvlm.families.grammar import PromptGrammar
from smolvlm.families.idefics3 import IDEFICS3

if TYPE_CHECKING:
    from PIL import Image

PAGE_PROMPT = "Convert this page to docling."  # what both model cards tell users to write
_MAX_CHARS = 1 << 20  # of one page's DocTags; the models' contexts hold 8,192 tokens

DOCLING = Family(
    name="docling",
    model_types=("idefics3",),
    class_prefix="Idefics3",
    vision_types=IDEFICS3.vision_types,
    prompt=PromptGrammar(end_of_turn=("<end_of_utterance>", "<|end_of_text|>")),
    marks=("<doctag>", "<otsl>"),
    writes_markup=True,
    split_patterns=(GPT4_SPLIT,),
    surplus_tokens=("<end_of_utterance>",),  # granite-docling's tokenizer has it at 100352, the model ends at 100351
)


def to_document(doctags: str, image: Image.Image | None = None, *, name: str = "document") -> Any:
    """The DocTags of one page as a `docling_core` DoclingDocument; `image` is the page, from which pictures are cut.

    Raises MissingExtraError without docling-core, PromptError for text without DocTags or too long to be one page.
    """
    try:
        from docling_core.types.doc import DoclingDocument
        from docling_core.types.doc.document import DocTagsDocument
    except ImportError:
        raise MissingExtraError("turning DocTags into a document", "docling") from None
    text = doctags.strip()
    if len(text) > _MAX_CHARS:
        raise PromptError(f"the DocTags have {len(text):,} characters; expected those of one page, at most {_MAX_CHARS:,}.")
    if "<" not in text:
        raise PromptError(
            f"{text[:60]!r} holds no DocTags; expected the answer of a docling model, such as <doctag><text>...</text></doctag>."
        )
    pages = DocTagsDocument.from_doctags_and_image_pairs([text], None if image is None else [image])
    return DoclingDocument.load_from_doctags(pages, document_name=name)


def to_markdown(doctags: str, image: Image.Image | None = None) -> str:
    """The DocTags of one page as Markdown. Raises as `to_document` does."""
    return str(to_document(doctags, image).export_to_markdown())


def to_html(doctags: str, image: Image.Image | None = None) -> str:
    """The DocTags of one page as an HTML page. Raises as `to_document` does."""
    return str(to_document(doctags, image).export_to_html())


def to_dict(doctags: str, image: Image.Image | None = None) -> dict[str, Any]:
    """The DocTags of one page as docling's JSON. Raises as `to_document` does."""
    exported: dict[str, Any] = to_document(doctags, image).export_to_dict()
    return exported
