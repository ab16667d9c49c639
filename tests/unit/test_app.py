"""The one place that prints errors."""

from importlib import import_module

import click
import pytest

from k3s_bake.cli import app

pytestmark = pytest.mark.unit

for _module in set(app._COMMANDS.values()):  # here: what they need may look for its libraries by a process
    import_module(f"k3s_bake.cli.{_module}")


def test_what_may_not_be_looked_at_is_told_in_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Path.exists raises where a folder above is closed to this user."""

    def refuse(**_: object) -> None:
        raise PermissionError(13, "Permission denied", "/root/a.img")

    monkeypatch.setattr(app, "cli", refuse)
    with pytest.raises(SystemExit) as ended:
        app.main()
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("error: /root/a.img: Permission denied\nhint:")


def test_every_command_is_there_and_shows_examples() -> None:
    context = click.Context(app.cli)
    names = app.cli.list_commands(context)
    assert "image" in names
    assert app.cli.get_command(context, "nonsense") is None
    for name in names:
        command = app.cli.get_command(context, name)
        assert command is not None
        assert command.name == name
        assert f"  k3s-bake {name}" in (command.help or ""), name
