"""The root file system (ext4) inside an image file, by debugfs: without mounting it, without an appliance.

debugfs is asked in batches, each command file one process of some milliseconds; its exit code says nothing,
so its output is read, and what is written is read back by whoever calls. Folders are known by their inode;
one that is still to be made by a negative number. What is to be done is noted first, and written at once by
commit().
"""

import contextlib
import hashlib
import os
import re
import stat
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from bake import extents
from bake.debugfs_script import LINE, Script, named, quoted, there
from bake.process import answer, stream
from bake.volumes import Entry
from firstboot.errors import UserError, WorkFailed

ROOT = 2
"""The inode of an ext4's top folder."""

_TARGET_BYTES = 4096  # PATH_MAX

_LISTED = re.compile(rb"/(\d+)/(\d+)/(-?\d+)/(-?\d+)/([^/]+)/(\d*)/")
_FAST = b'Fast link dest: "'
_BANNER = re.compile(r"debugfs \d.*\n")


class Ext4:
    """``start`` is the file system's first byte in the image. Everything written carries the time ``epoch``
    (seconds), so that the same edits give the same bytes."""

    modeless = False
    top = ROOT

    def __init__(self, image: Path, start: int, epoch: int) -> None:
        self._image, self._start = image, start
        self._device = f"{image}?offset={start}"
        with image.open("rb") as opened:
            opened.seek(start + 1024 + 0x18)  # s_log_block_size of the superblock
            self._block = 1024 << int.from_bytes(opened.read(4), "little")
        self._epoch = epoch
        self._folders: dict[int, dict[str, Entry]] = {}
        self._targets: dict[int, str] = {}  # of links
        self._script = Script()

    def forget(self) -> None:
        """Drop all that was read, and all that was noted and not committed."""
        self._folders.clear()
        self._targets.clear()
        self._script = Script()

    # reading

    def prefetch(self, folders: Iterable[str]) -> None:
        """List many folders at once, those that there are: each later question is a process less."""
        self._list([quoted(path) for path in folders if _fits(path)])

    def entries(self, folder: int) -> dict[str, Entry]:
        """What a folder holds, without ``.`` and ``..``."""
        if folder not in self._folders:
            self._list([f"<{folder}>"])
            if folder not in self._folders:
                raise WorkFailed(f"debugfs cannot list the folder of inode {folder}", "Is the image damaged?")
        return self._folders[folder]

    def _list(self, folders: Sequence[str]) -> None:
        for listing in self._ask([(f"ls -p {folder}", None) for folder in folders]):
            found: dict[str, Entry] = {}
            for line in listing.split(b"\n"):
                match = _LISTED.fullmatch(line)
                if match is None:
                    if line:
                        raise UserError(
                            f"the image holds a name that cannot be worked with: {line[-80:]!r}",
                            "Is it damaged? e2fsck -fn tells. If not, rename it, or use --engine guestfs.",
                        )
                    continue
                inode, mode, owner, group = (int(match[i], 8 if i == 2 else 10) for i in range(1, 5))
                # debugfs tells an owner beyond 2^31 as a negative number.
                ids = (owner & 0xFFFFFFFF, group & 0xFFFFFFFF)
                found[os.fsdecode(match[5])] = Entry(inode, mode, *ids, int(match[6] or 0))
            if "." in found:
                folder = found.pop(".").inode
                found.pop("..", None)
                self._folders[folder] = found

    def entry(self, folder: int, name: str) -> Entry | None:
        return self.entries(folder).get(name)

    def target(self, link: Entry) -> str:
        """Where a symbolic link leads."""
        if link.inode not in self._targets:
            self.prefetch_targets([link])
        return self._targets[link.inode]

    def prefetch_targets(self, links: Iterable[Entry]) -> None:
        """Read where many links lead, at once."""
        unknown = [link for link in links if link.inode not in self._targets]
        if any(link.size > _TARGET_BYTES for link in unknown):
            raise UserError("a link in the image claims an impossible length", "The image is damaged.")
        told = self._ask([(f"stat <{link.inode}>", None) for link in unknown])
        slow: list[Entry] = []  # too long for the inode itself
        for link, text in zip(unknown, told, strict=True):
            at = text.find(_FAST) + len(_FAST)
            if at < len(_FAST):
                slow.append(link)
            else:
                self._targets[link.inode] = os.fsdecode(text[at : at + link.size])
        self._targets |= {inode: os.fsdecode(content) for inode, content in self.contents(slow).items()}

    def contents(self, files: Iterable[Entry]) -> dict[int, bytes]:
        """All bytes of files, by their inode."""
        entries = {entry.inode: entry for entry in files}
        told = self._ask([(f"cat <{entry.inode}>", entry.size) for entry in entries.values()])
        return dict(zip(entries, told, strict=True))

    def pieces(self, file: Entry) -> Iterable[bytes]:
        """A large file's bytes as they come. Fewer than its size where the image is damaged.

        UserError where it claims to be larger than the image: reading its holes would take for ever.
        """
        if file.size > self._image.stat().st_size:
            raise UserError(f"a file in the image claims to have {file.size} bytes", "The image is damaged.")
        (told,) = self._ask([(f"ex -l <{file.inode}>", None)])
        found = extents.parsed(told, self._block)
        if found is None:  # in the inode itself, or mapped as ext3 did
            return stream("debugfs", "-R", f"cat <{file.inode}>", self._device)
        return extents.pieces(self._image, self._start, found, file.size)

    def sha256(self, path: str) -> str:
        """Of the file at a path, links in its folders followed; of nothing where there is none."""
        (told,) = self._ask([(f"stat {quoted(path)}", None)])
        found = re.search(rb"Inode: (\d+) .*?Size: (\d+)", told, re.DOTALL)
        if not found:
            return hashlib.sha256(b"").hexdigest()
        digest = hashlib.sha256()
        for piece in self.pieces(Entry(int(found[1]), stat.S_IFREG, 0, 0, int(found[2]))):
            digest.update(piece)
        return digest.hexdigest()

    def _ask(self, questions: Sequence[tuple[str, int | None]]) -> list[bytes]:
        """The answers to commands, of known size or not; debugfs says each command before its answer."""
        if not questions:
            return []
        lines = [f"debugfs: {command}\n".encode(errors="surrogateescape") for command, _ in questions]
        commands = b"".join(line.removeprefix(b"debugfs: ") for line in lines)
        told, complaints = answer("debugfs", "-f", "-", self._device, stdin=commands)
        answers: list[bytes] = []
        at = 0
        for number, ((_, size), line) in enumerate(zip(questions, lines, strict=True)):
            if not told.startswith(line, at):
                raise WorkFailed(f"debugfs does not answer: {_words(complaints)}", "Is the image damaged?")
            at += len(line)
            if size is not None:
                end = at + size
            else:
                following = lines[number + 1] if number + 1 < len(lines) else None
                end = told.find(following, at) if following else len(told)
            answers.append(told[at:end])
            at = end if end >= 0 else len(told)
        return answers

    # writing: noted, and done by commit()

    def make_folder(self, folder: int, name: str, mode: int, owner: int, group: int) -> int:
        key = self._script.make_folder(folder, name)
        entry = Entry(key, stat.S_IFDIR | mode, owner, group, 0)
        self._script.set_access(name, entry)
        self.entries(folder)[name] = entry
        self._folders[key] = {}
        return key

    def remove(self, folder: int, name: str) -> None:
        if self.entries(folder).pop(name, None):
            self._script.add(folder, f"rm {there(name)}")

    def link(self, folder: int, name: str, target: str) -> None:
        self._script.add(folder, f"symlink {named(name)} {quoted(target)}")
        entry = Entry(self._script.key(), stat.S_IFLNK | 0o777, 0, 0, len(os.fsencode(target)))
        self._targets[entry.inode] = target
        self.entries(folder)[name] = entry

    def write(self, folder: int, name: str, source: int, mode: int, owner: int, group: int) -> None:
        """``source`` is an open file: no path to quote, no extended attribute that debugfs would copy."""
        self._script.add(folder, f"write /proc/self/fd/{source} {named(name)}")
        self._script.sources.append(source)
        entry = Entry(self._script.key(), stat.S_IFREG | mode, owner, group, os.fstat(source).st_size)
        self._script.set_access(name, entry)
        self.entries(folder)[name] = entry

    def move(self, name: str, folder: int, new: str, mode: int, owner: int, group: int) -> None:
        """Take a file of the top folder to its place."""
        file = self.entries(ROOT).pop(name)
        self._script.add(folder, f"ln <{file.inode}> {named(new)}")  # debugfs counts no links here, ...
        entry = Entry(file.inode, stat.S_IFREG | mode, owner, group, file.size)
        self._script.set_access(new, entry)
        self._script.add(ROOT, f"unlink {quoted(name)}")  # ... nor here: one is left, as before
        self.entries(folder)[new] = entry

    def commit(self) -> None:
        """Write what was noted. UserError where the image has no room for it."""
        script = self._script
        self.forget()
        if not script.lines:
            return
        text = "\n".join([f"set_current_time @{self._epoch}", *script.lines, ""])
        device = ("debugfs", "-w", "-f", "-", self._device)
        _, complaints = answer(*device, stdin=text.encode(errors="surrogateescape"), keep_open=script.sources)
        if _BANNER.sub("", complaints, count=1).strip():
            words = _words(complaints)
            if "Could not allocate" in words or "No space left in" in words:
                raise UserError(
                    "the root file system: no room left in the image", "Use a base with more free room."
                )
            raise WorkFailed(f"debugfs: {words}")


def stage(image: Path, start: int, epoch: int, files: Mapping[str, Path]) -> dict[str, str]:
    """Write large files into the root's top folder under names of their own, for an engine to move them from:
    ``{sha256: name}``. Through the appliance it would take ten times as long under emulation. What is read
    back in the end tells whether it went well. UserError where there is no room.
    """
    names = {sha256: f".k3s-bake-{sha256[:16]}" for sha256 in files}
    volume = Ext4(image, start, epoch)
    with contextlib.ExitStack() as held:
        for sha256, path in files.items():
            source = held.enter_context(path.open("rb"))
            volume.remove(ROOT, names[sha256])  # in a base that was itself left half made
            volume.write(ROOT, names[sha256], source.fileno(), 0o600, 0, 0)
        volume.commit()
    return names


def _fits(path: str) -> bool:
    return "\n" not in path and len(os.fsencode(path)) < LINE // 2


def _words(complaints: str) -> str:
    return "; ".join(_BANNER.sub("", complaints, count=1).split("\n")[:3]).strip("; ") or "it says nothing"
