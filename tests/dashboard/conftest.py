"""One browser for every test of the page, and a server beside each ledger."""

import gzip
import time
from pathlib import Path

import dashboard_ledgers
import pytest
from browser import Browser


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    """The one browser, without an address but this machine's."""
    running = Browser(tmp_path_factory.mktemp("browser"))
    yield running
    running.close()


@pytest.fixture(scope="session")
def axe():
    """axe-core 4.14.1 (MPL 2.0, its licence lies beside it), as a script."""
    return gzip.decompress((Path(__file__).parent / "axe" / "axe.min.js.gz").read_bytes()).decode()


@pytest.fixture
def page(browser):
    """A tab of it."""
    tab = browser.page()
    tab.look(1200)
    yield tab
    tab.close()


@pytest.fixture(scope="session")
def ledgers(tmp_path_factory):
    """The path of a ledger by its name; each is written once."""
    folder, made = tmp_path_factory.mktemp("ledgers"), {}

    def path(name):
        if name not in made:
            made[name] = folder / f"{name}.db"
            getattr(dashboard_ledgers, name)(made[name], time.time())
        return made[name]

    return path
