"""A label to put on a card, or on its board: plain text, and SVG to print."""

from collections.abc import Sequence
from pathlib import Path

from bake.card.receipt import Receipt
from bake.render import render
from firstboot.errors import UserError


def write(folder: Path, receipts: Sequence[Receipt]) -> None:
    """``NAME.txt`` and ``NAME.svg`` for each card that has a name. UserError where they cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for receipt in receipts:
            if receipt.name:
                lines = receipt.label
                (folder / f"{receipt.name}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
                (folder / f"{receipt.name}.svg").write_bytes(render("label.svg.j2", lines=lines))
    except OSError as error:
        raise UserError(
            f"cannot write labels to {folder}: {error.strerror}", "--labels names a folder."
        ) from error
