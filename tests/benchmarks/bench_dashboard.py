"""The page of a ledger of a million calls in a browser: ``python tests/benchmarks/bench_dashboard.py``.

Says for the last thirty days and for everything: when something is painted, when the bars are there, when the page is
whole, and the CPU time of the server. The ledger is that of ``bench_reports.py``, sixty days that end now.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "support")]

import bench_reports  # noqa: E402 - beside this file
from browser import Browser  # noqa: E402 - of the tests' support

from llm_cost_middleware import Ledger  # noqa: E402 - the path is set above
from llm_cost_middleware.dashboard import Dashboard, Source  # noqa: E402
from llm_cost_middleware.pricing.catalogue import Catalogue  # noqa: E402

PAINT = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
WATCH = """new MutationObserver(() => {
  if (document.querySelector('.chart canvas')) window.bars ??= performance.now();
}).observe(document, {childList: true, subtree: true})"""


def main() -> None:
    """Print a line for each view."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=1_000_000)
    parser.add_argument("--file", type=Path, help="a ledger that is there already")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = given.file or Path(folder) / "ledger.db"
        if given.file is None:
            bench_reports.START_MS = int(time.time() * 1000) - 60 * bench_reports.DAY_MS
            bench_reports.fill(path, given.calls)
        browser = Browser(Path(folder))
        try:
            measure(browser, path)
        finally:
            browser.close()


def measure(browser: Browser, path: Path) -> None:
    """Open the page and say when what was there."""
    print(f"{'view':24} {'paint ms':>9} {'bars ms':>9} {'whole ms':>9} {'CPU s':>7}")
    with Ledger.open(path) as ledger, Dashboard(Source(ledger, Catalogue(), now=time.time)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        page = browser.page()
        page.call("Page.addScriptToEvaluateOnNewDocument", source=WATCH)
        for query in ("", "?by=team", "?since=all", "?during=yesterday"):
            began = time.process_time()
            page.open(server.url + query, seconds=600)
            figures = page.run(f"[{PAINT}, window.bars, performance.now()].map(Math.round)")
            paint, bars, whole = figures
            print(f"{query or '(30 days)':24} {paint:9,} {bars:9,} {whole:9,} {time.process_time() - began:7.2f}")
        server.shutdown()


if __name__ == "__main__":
    main()
