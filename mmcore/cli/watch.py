"""`mm watch`: watch a folder or bucket prefix, and tell of new data."""

import signal
import threading
from collections.abc import Callable
from typing import Annotated

import typer

from mmcore.cli.dispatch import new_app
from mmcore.cli.options import DEFAULT_ROOT, NOTHING_TO_DO, AsJson, Root, print_json, say
from mmcore.operate.events import Arrival
from mmcore.operate.watched_place import find_watch
from mmcore.operate.watcher import Watcher, make_watcher, watch_until
from mmcore.recipe.execute import absolute_root

app = new_app()


@app.command()
def watch(
    what: Annotated[
        str,
        typer.Argument(
            metavar="WHAT", help="A recipe, a deployment or its file, a folder, or an s3:// prefix"
        ),
    ],
    dataset: Annotated[
        str, typer.Option(help="For a folder or prefix: the recipe's name that it is for")
    ] = "",
    once: Annotated[
        bool, typer.Option("--once", help="Tell of what is there and new, then end")
    ] = False,
    interval: Annotated[
        float | None, typer.Option(min=0.05, help="Seconds between looks; default: 0.5, buckets 1")
    ] = None,
    settle: Annotated[
        float | None, typer.Option(min=0, help="Seconds without a change that make a file complete")
    ] = None,
    root: Root = DEFAULT_ROOT,
    as_json: AsJson = False,
) -> int:
    """Emit one event for every batch of new files that are complete; Ctrl-C ends it.

    A file that is being written is left alone, as are hidden ones and *.part, *.tmp and the like.
    A restart neither repeats an event nor loses one. `mm up` watches what is deployed by itself.
    With --once: exit code 4 when there is nothing new.
    """
    root = absolute_root(root)
    watch = find_watch(what, root=root, dataset=dataset, settle_seconds=settle)
    watcher = make_watcher(root, watch)

    def tell(arrival: Arrival) -> None:
        if as_json:
            print_json("arrival", {**arrival.payload(), "event_id": arrival.event_id})
        else:
            print(
                f"{arrival.dataset}: {arrival.num_files} files, {arrival.num_bytes} bytes in "
                f"{arrival.source}",
                flush=True,
            )

    if once:
        return _once(watcher, tell)
    say(f"watching {watch.url} for {watch.dataset}; Ctrl-C ends it")
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    watch_until(watcher, stop, interval_seconds=interval, on_arrival=tell)
    return 0


def _once(watcher: Watcher, tell: Callable[[Arrival], None]) -> int:
    arrival = watcher.look_until_settled()
    if watcher.unfinished:
        some = ", ".join(watcher.unfinished[:5])
        say(f"left alone, still being written: {some} ({len(watcher.unfinished)} files)")
    if arrival is None:
        say(f"nothing new in {watcher.watch.url}")
        return NOTHING_TO_DO
    tell(arrival)
    return 0
