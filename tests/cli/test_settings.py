"""How a node's options are read."""

from __future__ import annotations

from pathlib import Path

import pytest

from outroute.cli._node_dir import electing_of
from outroute.cli._settings import Settings
from outroute.errors import DataError
from outroute.synthesis import Settings as Synthesis


def test_calculations_of_a_node(tmp_path: Path) -> None:
    assert Settings().synthesis() == Synthesis() == Settings(calculations="all").synthesis()
    given = Settings.kept(tmp_path, {"calculations": "kernel, regression"})
    given.keep(tmp_path)
    assert Settings.kept(tmp_path, {}).synthesis().calculations == ("kernel", "regression")


@pytest.mark.parametrize("text", ["kernel,forest", ","])
def test_a_calculation_that_is_none_is_refused_with_all_names(text: str) -> None:
    with pytest.raises(DataError, match="kernel, regression, boosting") as error:
        Settings(calculations=text).synthesis()
    assert error.value.code == "data.calculations"


def test_ageing_is_kept_and_counts_without_a_network_too(tmp_path: Path) -> None:
    assert not electing_of(tmp_path).ageing
    Settings.kept(tmp_path, {"ageing": "on"}).keep(tmp_path)
    assert electing_of(tmp_path).ageing
    assert Settings.kept(tmp_path, {}).electing().ageing
    assert not Settings.kept(tmp_path, {"ageing": "off"}).electing().ageing
    with pytest.raises(DataError, match="on or off"):
        Settings(ageing="30 days").electing()
    with pytest.raises(DataError, match="choose one"):
        Settings(ageing="on", budget="100").electing()
