"""`smolvlm models`: the official checkpoints, and which of them are on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from smolvlm.cli.console import human_size, write_json, write_table
from smolvlm.cli.flags import JsonOption

if TYPE_CHECKING:
    from smolvlm.hub import LocalModel


def models(json: JsonOption = False) -> None:
    """List the official checkpoints.

    Says which are on this machine, ready without the network.

    \b
    Examples:
      smolvlm models
      smolvlm models --json
    """
    from smolvlm import hub

    local = {model.name: model for model in hub.list_local()}
    short = {repo: name for name, repo in hub.SHORT_NAMES.items()}
    if json:
        write_json({"models": [_entry(repo, short.get(repo), local.get(repo)) for repo in hub.OFFICIAL_IDS]})
        return
    rows = []
    for repo in hub.OFFICIAL_IDS:
        missing = f"not here; smolvlm download {short.get(repo, repo)}"
        state = human_size(local[repo].size_bytes) if repo in local else missing
        rows.append((repo + (f" ({short[repo]})" if repo in short else ""), state))
    write_table(rows)


def _entry(repo: str, short_name: str | None, local: LocalModel | None) -> dict[str, Any]:
    folder, size_bytes = (str(local.path), local.size_bytes) if local is not None else (None, None)
    return {"name": repo, "short_name": short_name, "folder": folder, "size_bytes": size_bytes}
