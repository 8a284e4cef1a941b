"""The exceptions that users meet: each message says what came, what was expected and what to do about it.

Everything the library raises for bad input is a `SmolVLMError`, so one `except` catches all of it; the command line
prints the message as one line and exits with code 2.
"""

from __future__ import annotations


def is_failure(error: BaseException) -> bool:
    """Whether a library failed: an Exception, or the panic of one written in Rust, which is a BaseException of its own.

    For `except BaseException as error: if not is_failure(error): raise`, so that KeyboardInterrupt and its like pass.
    """
    return isinstance(error, Exception) or type(error).__module__ == "pyo3_runtime"


class SmolVLMError(Exception):
    """Base of every error that this package raises on purpose. `str(error)` is one sentence meant for the user."""


class MissingExtraError(SmolVLMError, ImportError):
    """A feature needs an optional dependency that is not installed."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f'{what} needs an optional part that is not installed: run `pip install "smolvlm[{extra}]"`.')
        self.extra = extra


class ConfigError(SmolVLMError, ValueError):
    """A checkpoint's JSON files, or a configuration made by hand, cannot describe a SmolVLM model."""


class CheckpointError(SmolVLMError, ValueError):
    """The weights on disk are missing, misshapen, corrupt or of a kind that is never read (pickle)."""


class ModelNotFoundError(SmolVLMError, LookupError):
    """A model name is neither a folder here, nor a built-in model, nor one that the Hub or its cache can give."""


class EngineError(SmolVLMError, RuntimeError):
    """The engine cannot run as asked: an unknown engine, device or dtype, or a sequence used against the contract."""


class SourceError(SmolVLMError, ValueError):
    """A media source cannot be opened: a missing file, a refused or failing URL, a malformed data URL, too many bytes."""


class ImageError(SmolVLMError, ValueError):
    """Bytes that should be a picture cannot be read as one, or the picture is beyond the limits."""


class VideoError(SmolVLMError, ValueError):
    """Bytes that should be a video cannot be read as one, or the asked span holds no frame."""


class MediaUnavailableError(SmolVLMError, RuntimeError):
    """This machine's trouble, not the file's: no decoding process is free or can be started, or no disk space is left."""


class MediaBusyError(MediaUnavailableError):
    """One owner's media wait in too great a number. A server answers 429 to it, and 503 to the others."""


class PromptError(SmolVLMError, ValueError):
    """Messages that cannot be turned into a prompt: an unknown role or part, media and placeholders that disagree."""


class ContextLengthError(PromptError):
    """The prompt, with the room asked for the answer, is longer than the model's context."""


class ParamsError(SmolVLMError, ValueError):
    """A generation or sampling parameter is out of its range, or options to choose from are empty."""


class SchemaError(SmolVLMError, ValueError):
    """A schema for `extract` is empty, malformed, or beyond what the grammar compiler supports."""


class GrammarError(SchemaError):
    """The grammar of a schema met a limit while an answer was being written: there is no whole document."""


class SynthError(SmolVLMError, ValueError):
    """Something to draw or a split that `smolvlm.synth` does not know, or a size that it cannot draw at."""


class AdapterError(SmolVLMError, ValueError):
    """An adapter that cannot be read, or that belongs to another model than the one it is applied to."""


class EvalError(SmolVLMError, ValueError):
    """An evaluation that cannot run or be reported: an unknown task, or a folder that holds another run's results."""


class TrainingError(SmolVLMError, ValueError):
    """A training run cannot begin, go on or be saved: options that make no sense, a folder of another run, a full disk."""


class MixtureError(SmolVLMError, ValueError):
    """Training data that cannot be used: a missing file, a malformed record, too many unreadable pictures."""


class TeacherError(SmolVLMError, RuntimeError):
    """A teacher behind an endpoint cannot be reached or refuses, or what it wrote cannot be read."""


class LibraryError(SmolVLMError, ValueError):
    """A library of an application cannot be opened or written: a damaged file, another program's, a folder without write access."""


class LibraryBusyError(LibraryError):
    """Another run is writing to the library."""


class RulesError(SmolVLMError, ValueError):
    """A file of rules of `smolvlm watch` is wrong: the message says the line and the key."""
