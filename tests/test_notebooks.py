"""The notebooks run offline, from the first cell to the last."""

import os
import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parent.parent / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb")) if FOLDER.is_dir() else []


@pytest.mark.skipif(not NOTEBOOKS, reason="the notebooks stand in the source tree, which is not here")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the notebook machinery, not ours
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # the same
def test_a_notebook_runs(path, monkeypatch, request):
    nbformat = pytest.importorskip("nbformat", reason="needs the notebooks extra: nbformat")
    nbclient = pytest.importorskip("nbclient", reason="needs the notebooks extra: nbclient")
    notebook = nbformat.read(path, as_version=4)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(FOLDER.parent), os.environ.get("PYTHONPATH", ""))))
    monkeypatch.setenv("LLM_COST_NOTEBOOK_ROWS", "1200")  # enough to run, not to conclude
    monkeypatch.delenv("MPLBACKEND", raising=False)
    if "LLM_COST_DATA" in path.read_text(encoding="utf-8"):
        monkeypatch.setenv("LLM_COST_DATA", str(request.getfixturevalue("data_folder")))
    client = nbclient.NotebookClient(
        notebook, timeout=900, kernel_name="python3", resources={"metadata": {"path": str(FOLDER)}}
    )
    client.execute()
    assert all(cell.get("execution_count") for cell in notebook.cells if cell.cell_type == "code")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_names_no_machine(path):
    assert not re.search(r"(?<![\w.])/(?:work|root|home|tmp)/", path.read_text(encoding="utf-8"))
