"""From the paths that a person gave to cards that may be written, and once more when they are open.

A device's name may mean another card a moment later: what was judged is held against what was opened.
"""

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from bake.card.devices import Device, Judged, Verdict
from bake.card.target import Target
from firstboot.errors import UserError


def choose(paths: Sequence[Path], judged: Sequence[Judged], image: Path) -> list[Judged]:
    """What each path names. UserError for what is no whole device, is refused, or is named twice."""
    chosen: list[Judged] = []
    for path in paths:
        one = _named(path, judged)
        if one.verdict is Verdict.REFUSED:
            raise UserError(
                f"{path} is never written: {'; '.join(one.reasons)}", "'k3s-bake cards' lists what can be."
            )
        if _is_behind(image, one.device):
            raise UserError(f"{image} itself is what {path} stands for", "Name another card.")
        if one.device.number in {other.device.number for other in chosen}:
            raise UserError(f"{path} is named twice", "Name each card once.")
        chosen.append(one)
    return chosen


def check_size(device: Device, image: int | None) -> None:
    """UserError for a card that is smaller than the image."""
    if image is not None and device.size < image:
        raise UserError(
            f"{device.path} has {device.size / 1e9:.1f} GB, and the image needs {image / 1e9:.1f} GB",
            "Use a larger card.",
        )


def check_opened(targets: Sequence[Target], chosen: Sequence[Judged], now: Sequence[Judged]) -> None:
    """UserError where what was opened is not what was judged, or is judged differently ``now``."""
    again = {one.device.number: one for one in now}
    for target, one in zip(targets, chosen, strict=True):
        found = again.get(target.number)
        same = found is not None and _identity(found.device) == _identity(one.device)
        if found is None or not same or target.size != one.device.size:
            raise UserError(
                f"{target.path} is another card now", "Look at 'k3s-bake cards', and run it again."
            )
        if list(Verdict).index(found.verdict) > list(Verdict).index(one.verdict):
            raise UserError(f"{target.path}: {'; '.join(found.reasons)}", "Free it, and run it again.")


def _identity(device: Device) -> tuple[object, ...]:
    return device.number, device.size, device.serial, device.model, device.sequence


def _named(path: Path, judged: Sequence[Judged]) -> Judged:
    try:
        status = path.stat()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}", "'k3s-bake cards' lists what can be written.") from error
    if not stat.S_ISBLK(status.st_mode):
        raise UserError(f"{path} is no block device", "'k3s-bake cards' lists what can be written.")
    number = f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"
    for one in judged:
        if one.device.number == number:
            return one
    for top, part in _parts(judged):
        if part.number == number:
            raise UserError(f"{path} is a part of {top.path}", f"A card is written whole: {top.path}")
    raise UserError(f"{path} is no device that lsblk knows", "'k3s-bake cards' lists what can be written.")


def _parts(judged: Sequence[Judged]) -> Iterator[tuple[Device, Device]]:
    for one in judged:
        for part in one.device.all():
            yield one.device, part


def _is_behind(image: Path, device: Device) -> bool:
    """Whether a loop device is one of the image's own file."""
    try:
        return device.kind == "loop" and Path(device.model).samefile(image)
    except OSError:
        return False


def words(device: Device) -> Mapping[str, str]:
    """What a person tells a card by."""
    holds = [" ".join(filter(None, [one.holds, one.label])) for one in device.all() if one.holds]
    return {
        "device": device.path,
        "size": f"{device.size / 1e9:.1f} GB",
        "what": " ".join(filter(None, [device.model, device.transport])),
        "on it": ", ".join(holds),
    }
