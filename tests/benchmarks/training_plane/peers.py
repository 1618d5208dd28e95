"""Loading beside litdata, Mosaic Streaming and Megatron Energon: the same pictures, each its own format.

Seconds of the processor of one process, shuffled, decoded, in batches of uint8; see `peer_readers`. The
goal is about the same work: the decoder is ours in all of them, and what is left of the difference is
the loader. No loader is faster than decoding alone, so the note says what that would reach. The rows
without a goal have Pillow instead, as whoever takes webdataset, Mosaic's JPEGs or Energon as they come;
litdata would take torchvision, whose build on PyPI does not load beside torch for the CPU.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path

from asked import LOADERS, Asked, NotInstalled, environment
from figures import REPOSITORY, Row, not_measured, row
from turns import Arm, in_turns, interval, shared_memory

from training_plane.loading import BATCH, PASSES, Loading

GOAL = 1.5
READERS = REPOSITORY / "tests" / "benchmarks" / "training_plane" / "peer_readers.py"
DECODERS = {"simplejpeg": "the same decoder", "pillow": "Pillow"}


def against_peers(num_samples: int) -> list[Row]:
    """Return pictures a second of one core beside those of each peer that installs."""
    rows: list[Row] = []
    pythons: dict[str, str] = {}
    for name, wanted in LOADERS.items():
        try:
            pythons[name] = environment(name, *wanted)
        except NotInstalled as error:
            rows.append(not_measured(f"loading / {wanted[0]}", str(error), goal=GOAL))
    if not pythons:
        return rows
    with tempfile.TemporaryDirectory(dir=shared_memory()) as scratch:
        bench = Loading(Path(scratch, "ours"), num_samples)
        bench.write_pictures(Path(scratch, "pictures"))
        found = {
            name: Asked(python, str(READERS), name, scratch, str(BATCH))
            for name, python in pythons.items()
        }

        def peer(name: str, decoder: str) -> Arm:
            def again() -> float:
                said = found[name].ask(passes=PASSES, decoder=decoder)
                assert said["num"] == PASSES * bench.num, f"{name} gave {said['num']} pictures"
                return float(said["seconds"])

            return again

        arms: dict[str, Callable[[], float]] = {
            "bare": bench.bare,
            "ours": lambda: bench.ours(bench.here),
        }
        kinds = [(name, decoder) for name in found for decoder in DECODERS]
        arms |= {f"{name}, {decoder}": peer(name, decoder) for name, decoder in kinds}
        try:
            taken = in_turns(arms, rounds=6)
        finally:
            for one in found.values():
                one.close()
            bench.close()
    num = PASSES * bench.num
    for name, decoder in kinds:
        bare, mine, other = taken["bare"], taken["ours"], taken[f"{name}, {decoder}"]
        what = f"loading / {LOADERS[name][0]} with {DECODERS[decoder]}"
        is_same = decoder == "simplejpeg"
        rows.append(
            row(
                what,
                num / mine.median,
                num / other.median,
                goal=GOAL if is_same else None,
                better="higher",
                value=other.median / mine.median,
                against="peer",
                note=f"{interval(mine, other)}; decoding alone {other.median / bare.median:.2f}",
            )
        )
    return rows
