"""Each command of ``llm-cost`` by itself: what it imports. Run as a program.

Argument: JSON with the folder of a configuration with its ledger, and lists of words. Each list is run in a fork of a
process that has imported the command line and nothing else, in a copy of the folder; one line of JSON each.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sys
import threading
import time
import urllib.request
from pathlib import Path

from lone_doors import forked, loaded, tell

UNTIL_STOPPED = {"dashboard"}  # by Ctrl-C


def stop_once_it_answers(told):
    """Press Ctrl-C as soon as the address that a server has told answers: before, it is not yet serving."""
    while not (found := re.search(r"http://\S+", told.read_text(encoding="utf-8"))):
        time.sleep(0.02)
    with urllib.request.urlopen(found[0]) as answer:  # noqa: S310 - of its own
        answer.read()
    os.kill(os.getpid(), signal.SIGINT)


def run(words, folder):
    shutil.copytree(folder, ".", dirs_exist_ok=True)
    sys.argv = ["llm-cost", *words]
    out = os.dup(1)
    with Path("told.txt").open("w+", encoding="utf-8") as told:
        os.dup2(told.fileno(), 1)
        os.dup2(told.fileno(), 2)
        if words[0] in UNTIL_STOPPED:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            threading.Thread(target=stop_once_it_answers, args=(Path("told.txt"),), daemon=True).start()
        code = 0
        try:
            main()
        except SystemExit as ended:
            code = ended.code or 0
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(out, 1)
        told.seek(0)
        tell(words=words, code=code, loaded=sorted(loaded()), text=told.read())


if __name__ == "__main__":
    settings = json.loads(sys.argv[1])
    from llm_cost_middleware.cli import main, tables  # noqa: F401 - every command loads these
    from llm_cost_middleware.pipeline import parts  # noqa: F401 - and most of them this

    for each in settings["commands"]:
        forked(lambda each=each: run(each, settings["folder"]))
