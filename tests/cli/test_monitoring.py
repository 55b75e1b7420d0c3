"""``llm-cost monitoring`` writes what the package ships, and overwrites nothing unasked."""

import json

from typer.testing import CliRunner

from llm_cost_middleware.cli.app import app

NAMES = ["grafana-dashboard.json", "prometheus-rules.yml", "prometheus.yml"]


def test_the_files_are_written_whole_and_never_over_others_unasked(tmp_path):
    folder = tmp_path / "new"
    done = CliRunner().invoke(app, ["monitoring", str(folder)])
    assert done.exit_code == 0, done.output
    assert sorted(path.name for path in folder.iterdir()) == NAMES
    dashboard = json.loads((folder / NAMES[0]).read_text())
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"]) > 5
    (folder / NAMES[1]).write_text("mine")
    assert CliRunner().invoke(app, ["monitoring", str(folder)]).exit_code == 1
    assert (folder / NAMES[1]).read_text() == "mine"
    assert CliRunner().invoke(app, ["monitoring", str(folder), "--force"]).exit_code == 0
    assert (folder / NAMES[1]).read_text() != "mine"
