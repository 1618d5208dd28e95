"""`mm down`: stop the services."""

import time

from mmcore import storage
from mmcore.cli.dispatch import new_app
from mmcore.cli.options import DEFAULT_ROOT, NOTHING_TO_DO, AsJson, Root, print_json, say
from mmcore.operate import lifecycle

app = new_app()


@app.command()
def down(root: Root = DEFAULT_ROOT, as_json: AsJson = False) -> int:
    """Stop the services and whatever they have started, and make sure that no process stays.

    Flows that run are stopped as well; what they have committed is kept. Works also when the
    supervisor is dead. Exit code 4: nothing runs.
    """
    began = time.monotonic()
    num_processes = lifecycle.stop(root) if storage.is_local(root) else 0
    seconds = round(time.monotonic() - began, 1)
    if as_json:
        print_json("down", {"num_processes": num_processes, "seconds": seconds})
    elif num_processes:
        say(f"down: {num_processes} processes ended in {seconds} s, and none is left")
    else:
        say(f"nothing to do: no service runs for {root}")
    return 0 if num_processes else NOTHING_TO_DO
