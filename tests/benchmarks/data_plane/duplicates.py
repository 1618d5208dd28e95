"""Duplicate rules over signatures: growth of their cost, bare sorts, recall, peers.

CPU seconds of this process, interleaved with the reference, the first round left out, medians.
What was found is checked before its time counts.
"""

import json
import random
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import xxhash
from asked import DEDUPLICATORS, NotInstalled, environment
from figures import Row, row
from turns import in_turns

from mmcore.core.columns import Column, Corpus
from mmcore.core.near_index import remember
from mmcore.core.near_limits import Limits, want_of
from mmcore.core.nearness import near_graph
from mmcore.core.shelf import Shelf
from mmcore.core.sorted_runs import SortedRuns
from mmcore.media.minhash import minhash, shingle_hashes, similarity, text_tokens
from mmcore.media.near.banding import similar_pairs
from mmcore.media.near.clusters import components
from mmcore.media.near.digests import first_of_equal
from mmcore.media.near.hamming import hamming_pairs
from mmcore.media.near.prints import held

ROUNDS = 4
LONG_SECONDS = 5.0
DOCUMENTS = 1_000
NUM_TABLES = 10
DISTANCE = 3


def cpu_seconds(ours: Callable[[], object], reference: Callable[[], object]) -> tuple[float, float]:
    """Return the medians of CPU seconds, each taken in turns."""

    def timed(work: Callable[[], object]) -> Callable[[], float]:
        def again() -> float:
            started = time.process_time()
            work()
            return time.process_time() - started

        return again

    first = timed(ours)()
    if first > LONG_SECONDS:  # warm by now
        return timed(ours)(), timed(reference)()
    # what is over in milliseconds is measured more often
    rounds = ROUNDS if first > 1 else 5 * ROUNDS
    taken = in_turns({"ours": timed(ours), "bare": timed(reference)}, rounds=rounds, steady=None)
    return taken["ours"].median, taken["bare"].median


def slope(sizes: list[int], seconds: list[float]) -> float:
    """Return the exponent with which the cost grows."""
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def exact(sizes: list[int]) -> list[Row]:
    """Digests of 128 bits, 5 % of them twice."""
    rng = np.random.default_rng(9)
    ours, references = [], []
    for size in sizes:
        digests = rng.integers(0, 2**64, size=(size, 2), dtype=np.uint64)
        digests[rng.integers(0, size, size // 20)] = digests[rng.integers(0, size, size // 20)]
        if size <= 1_000_000:
            first: dict[tuple[int, ...], int] = {}
            expected = [first.setdefault(tuple(one), i) for i, one in enumerate(digests.tolist())]
            assert first_of_equal(digests).tolist() == expected, "other survivors than a dict's"
        upper = np.ascontiguousarray(digests[:, 0])
        mine, bare = cpu_seconds(lambda d=digests: first_of_equal(d), lambda u=upper: np.sort(u))
        ours.append(mine)
        references.append(bare)
    tracemalloc.start()
    first_of_equal(digests)
    peak = tracemalloc.get_traced_memory()[1] / sizes[-1]
    tracemalloc.stop()
    return [
        row(f"exact / np.sort, {sizes[-1]:,}", ours[-1], references[-1], goal=3, better="lower",
            value=ours[-1] / references[-1]),
        row("exact: slope", ours[-1], ours[0], goal=1.05, better="lower", value=slope(sizes, ours)),
        row("np.sort: slope, for scale", references[-1], references[0], goal=1.05, better="lower",
            value=slope(sizes, references)),
        row("exact: bytes per item at the peak", peak, 16, goal=40, better="lower", value=peak),
    ]  # fmt: skip


def hashes_of(size: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return 64-bit hashes, and the pairs planted: clusters of copies, and 30 % in one hash."""
    num_blank = size * 3 // 10
    originals = rng.integers(0, 2**64, size=size * 6 // 10, dtype=np.uint64)
    num_copies = size - num_blank - len(originals)
    source = rng.integers(0, len(originals), num_copies)
    copies = originals[source]
    for _ in range(DISTANCE):
        bit = rng.integers(0, 64, num_copies).astype(np.uint64)
        flip = rng.random(num_copies) < 0.7
        copies = np.where(flip, copies ^ (np.uint64(1) << bit), copies)
    hashes = np.concatenate([originals, copies, np.full(num_blank, 12345, np.uint64)])
    order = rng.permutation(size)
    place = np.empty(size, np.int64)
    place[order] = np.arange(size)
    planted = np.stack([place[source], place[len(originals) : len(originals) + num_copies]])
    return hashes[order], planted


def perceptual(sizes: list[int], peers: str | None) -> list[Row]:
    """Pairs of hashes at most 3 bits apart."""
    rng = np.random.default_rng(10)
    ours, references, rows = [], [], []
    for size in sizes:
        hashes, planted = hashes_of(size, rng)
        left, right = hamming_pairs(hashes, DISTANCE)
        roots = components(size, left, right)
        recall = float((roots[planted[0]] == roots[planted[1]]).mean())
        blank = np.flatnonzero(hashes == 12345)
        assert (roots[blank] == roots[blank[0]]).all(), "equal hashes lie in two clusters"
        mine, bare = cpu_seconds(
            lambda h=hashes: hamming_pairs(h, DISTANCE), lambda h=hashes: np.sort(h)
        )
        ours.append(mine)
        references.append(NUM_TABLES * bare)
        rows.append(row(f"perceptual: recall of planted pairs, {size:,}", recall, 1, goal=1, better="higher",
                        value=recall))  # fmt: skip
    rows += [
        row(f"perceptual / {NUM_TABLES} x np.sort, {sizes[-1]:,}", ours[-1], references[-1], goal=4,
            better="lower", value=ours[-1] / references[-1]),
        row("perceptual: slope", ours[-1], ours[0], goal=1.05, better="lower", value=slope(sizes, ours)),
    ]  # fmt: skip
    if peers:
        size = min(100_000, sizes[-1])
        hashes, planted = hashes_of(size, rng)
        hashes = np.unique(hashes)
        np.random.default_rng(0).shuffle(hashes)
        started = time.process_time()
        left, _ = hamming_pairs(hashes, DISTANCE)
        mine = time.process_time() - started
        peer = asked(peers, FAISS, hashes)
        if peer is not None:
            rows.append(row(f"perceptual against faiss MultiHash, {len(hashes):,} (its pairs / ours: "
                            f"{peer['pairs'] / max(1, len(left)):.3f})", mine, peer["seconds"], goal=3,
                            better="higher", value=peer["seconds"] / mine))  # fmt: skip
    return rows


FAISS = """
import sys, json, time, numpy as np, faiss
faiss.omp_set_num_threads(1)
h = np.load(sys.argv[1]); codes = h.view(np.uint8).reshape(-1, 8)
t = time.process_time()
index = faiss.IndexBinaryMultiHash(64, 4, 16); index.nflip = 0
index.add(codes)
lims, d, i = index.range_search(codes, 4)
print(json.dumps({"seconds": time.process_time() - t, "pairs": (int(lims[-1]) - len(h)) / 2}))
"""
SKETCHES = """
import sys, json, time
docs = [line.split() for line in open(sys.argv[1])]
grams = lambda t: [a + " " + b for a, b in zip(t, t[1:])]
out = {}
def timed(name, work):
    try:
        work(docs[0]); t = time.process_time()
        for d in docs: work(d)
        out[name] = (time.process_time() - t) / len(docs)
    except Exception as e:
        out[name + " failed"] = repr(e)
try:
    from rensa import RMinHash
    def rensa(d):
        m = RMinHash(num_perm=256, seed=1); m.update(grams(d)); return m.digest()
    timed("rensa", rensa)
except ImportError as e: pass
try:
    from datasketch import MinHash
    def ds(d):
        m = MinHash(num_perm=256); m.update_batch([g.encode() for g in grams(d)]); return m.hashvalues
    docs_all, docs = docs, docs[:300]; timed("datasketch", ds); docs = docs_all
except ImportError as e: pass
try:
    from FastSketchLSH import FastSimilaritySketch
    s = FastSimilaritySketch(256, 1)
    timed("fastsketchlsh", lambda d: s.batch([grams(d)], num_threads=1))
except ImportError as e: pass
print(json.dumps(out))
"""


def asked(python: str, code: str, data: np.ndarray | list[str]) -> dict[str, float] | None:
    """Run a peer in its own environment; None where it fails, with its words on stderr."""
    with tempfile.TemporaryDirectory() as scratch:
        path = f"{scratch}/data.npy"
        if isinstance(data, np.ndarray):
            np.save(path, data)
        else:
            Path(path).write_text("\n".join(data))
        done = subprocess.run([python, "-c", code, path], capture_output=True, text=True)
    if done.returncode != 0:
        print(done.stderr[-400:], file=sys.stderr)
        return None
    found: dict[str, float] = json.loads(done.stdout)
    print(found, file=sys.stderr)
    return found


def documents(num: int) -> list[list[str]]:
    """Return texts of 1 to 3 KB from a Markov chain, and after each its twin with a few edits."""
    rng = random.Random(11)
    words = [
        "".join(rng.choice("abcdefghijklmnop") for _ in range(rng.randrange(2, 9)))
        for _ in range(4_000)
    ]
    follows = {word: [rng.choice(words) for _ in range(12)] for word in words}
    texts = []
    for _ in range(num // 2):
        word, text = rng.choice(words), []
        for _ in range(rng.randrange(180, 540)):
            text.append(word)
            word = rng.choice(follows[word])
        twin = [rng.choice(words) if rng.random() < 0.02 else one for one in text]
        texts += [text, twin]
    return texts


def text(num_documents: int, sizes: list[int], peers: str | None) -> list[Row]:
    """Signatures against one xxh3 per shingle; pairs against sorts of the bands."""
    texts = documents(num_documents)

    def sign() -> np.ndarray:
        return np.stack([minhash(shingle_hashes(one, num_words=2)) for one in texts])

    def bare() -> None:
        for one in texts:
            for pair in pairwise(one):
                xxhash.xxh3_64_intdigest(" ".join(pair).encode())

    mine, reference = (one / len(texts) for one in cpu_seconds(sign, bare))
    signatures = sign()
    (left, right), _ = similar_pairs(held(signatures), 0.8)
    found = set(zip(left.tolist(), right.tolist(), strict=True))
    true = [_jaccard(texts[i], texts[i + 1]) for i in range(0, len(texts), 2)]
    wanted = {(2 * i, 2 * i + 1) for i, value in enumerate(true) if value >= 0.85}
    num_false = sum(_jaccard(texts[i], texts[j]) < 0.7 for i, j in found)
    recall = len(wanted & found) / len(wanted)
    rows = [
        row("text: signature / one xxh3 per shingle", mine, reference, goal=2, better="lower", value=mine / reference),
        row(f"text: recall at J >= 0.85, {len(wanted):,} pairs", recall, 1, goal=0.99, better="higher", value=recall),
        row("text: pairs found below J = 0.7, share", num_false, len(found), goal=1e-4, better="lower",
            value=num_false / len(found)),
    ]  # fmt: skip
    rng = np.random.default_rng(12)
    ours, sorts = [], []
    for size in sizes:
        many = rng.integers(0, 256, size=(size, 256), dtype=np.uint8)
        some = rng.integers(0, size, size // 20)
        many[: len(some)] = many[some]
        many[: len(some)][rng.random((len(some), 256)) < 0.08] ^= 1
        bands = np.ascontiguousarray(many.view(np.uint64).T)
        mine, reference = cpu_seconds(
            lambda m=many: similar_pairs(held(m), 0.8),
            lambda b=bands: [np.sort(band) for band in b],
        )
        ours.append(mine)
        sorts.append(reference)
    rows += [
        row(f"text: pairs / 32 x np.sort, {sizes[-1]:,}", ours[-1], sorts[-1], goal=4, better="lower",
            value=ours[-1] / sorts[-1]),
        row("text: slope of the pairs", ours[-1], ours[0], goal=1.08, better="lower", value=slope(sizes, ours)),
    ]  # fmt: skip
    goals = {"fastsketchlsh": 1.0, "rensa": 1.5, "datasketch": 40.0}
    mine = rows[0].ours
    for name, seconds in (
        asked(peers, SKETCHES, [" ".join(one) for one in texts]) or {} if peers else {}
    ).items():
        if name in goals:
            rows.append(row(f"text: signature against {name}", mine, seconds, goal=goals[name], better="higher",
                            value=seconds / mine))  # fmt: skip
    assert similarity(signatures[0], signatures[0]) == 1
    assert text_tokens("a b") == ["a", "b"]
    return rows


def _jaccard(one: list[str], other: list[str]) -> float:
    a, b = (set(pairwise(words)) for words in (one, other))
    return len(a & b) / len(a | b)


def of_prints(prints: np.ndarray) -> Corpus:
    """Return a corpus of pictures."""
    rows = np.arange(len(prints), dtype=np.int64)
    column = Column(rows, prints, rows, {})
    keys = np.frombuffer(b"".join(b"k%09d" % i for i in range(len(prints))), np.uint8)
    return Corpus(rows, {want_of("image"): column}, keys, (rows + 1) * 10)


def history(sizes: list[int]) -> list[Row]:
    """New pictures against indexes of two sizes."""
    rng = np.random.default_rng(13)
    limits = Limits({"image": DISTANCE}, {})
    new = np.zeros((10_000, 296), np.uint8)
    new[:, :8] = rng.integers(0, 256, size=(len(new), 8))
    new[:, 8:264] = np.arange(256)
    corpus = of_prints(new)
    taken = {}
    for size in sizes:
        with tempfile.TemporaryDirectory() as scratch:
            old = np.zeros((size, 296), np.uint8)
            old[:, :8] = rng.integers(0, 256, size=(size, 8))
            old[:, 8:264] = np.arange(256)
            old[:500] = new[:500]
            old[:500, 7] ^= 5
            index = partial(SortedRuns, Shelf(scratch, "known", Path(scratch)))
            everyone = np.ones(size, bool)
            remember(of_prints(old), limits, everyone, lambda row: f"k{row}", index)
            del old
            graph = near_graph(corpus, limits, index)
            found = {
                (i, graph.labels[node - 10_000]) for i in range(500) for node in graph.known_to(i)
            }
            assert found >= {(i, f"k{i}") for i in range(500)}
            taken[size] = cpu_seconds(lambda i=index: near_graph(corpus, limits, i), lambda: None)[
                0
            ]
    small, large = sizes
    return [row(f"10,000 new pictures against {large:,} / against {small:,}", taken[large], taken[small],
                goal=1.2, better="lower", value=taken[large] / taken[small])]  # fmt: skip


def figures(largest: int) -> list[Row]:
    """Return how costs grow with the corpus, up to the largest."""
    sizes = [largest // 100, largest // 10, largest]
    return [*exact(sizes), *perceptual(sizes, None), *text(DOCUMENTS, sizes, None)]


def peers(largest: int) -> list[Row]:
    """Return the same and an index that has grown, beside what others make of it."""
    try:
        python = environment("deduplicators", *DEDUPLICATORS)
    except NotInstalled as error:
        python = None
        print(error, file=sys.stderr)
    sizes = [largest // 1000, largest // 100, largest // 10]
    return [*perceptual(sizes, python), *text(DOCUMENTS, sizes, python), *history(sizes[1:])]
