"""A label to put on a card, or on its board: plain text, and SVG to print."""

from collections.abc import Sequence
from pathlib import Path

from bake.card.receipt import Receipt
from bake.render import render
from firstboot.errors import UserError

_WIDTH, _HEIGHT = 360, 52
"""Of a name, in the label's units: 10 are a millimetre."""


def make_folder(folder: Path) -> None:
    """Before the work: UserError where no label can be put there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".k3s-bake").touch()
        (folder / ".k3s-bake").unlink()
    except OSError as error:
        raise _refused(folder, error) from error


def _refused(folder: Path, error: OSError) -> UserError:
    return UserError(f"cannot write labels to {folder}: {error.strerror}", "--labels names a folder.")


def write(folder: Path, receipts: Sequence[Receipt]) -> None:
    """``NAME.txt`` and ``NAME.svg`` for each card that has a name. UserError where they cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for receipt in receipts:
            if receipt.name:
                lines = receipt.label
                (folder / f"{receipt.name}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
                # A letter of a bold sans serif is some 0.6 of its height wide.
                height = min(_HEIGHT, int(_WIDTH / (0.62 * len(receipt.name))))
                made = render("label.svg.j2", lines=lines, height=height)
                (folder / f"{receipt.name}.svg").write_bytes(made)
    except OSError as error:
        raise _refused(folder, error) from error
