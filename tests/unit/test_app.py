"""The one place that prints errors."""

import pytest

from k3s_bake.cli import app

pytestmark = pytest.mark.unit


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
