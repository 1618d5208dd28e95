"""A corpus made to measure: pictures, captions, sounds and films, with planted faults.

Every fault is written down in `.answers.json` beside the samples, so that cleaning and
deduplication can be held to known answers. The corpus is laid out for `FolderLayout`.

    DEST/star/IMG_000017.png  .txt  .wav  .json  .mp4
    DEST/.answers.json
"""

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import numpy as np

from mmcore import storage
from mmcore.errors import ConfigError, StorageError
from mmcore.ingest import scenes, stories, tones
from mmcore.ingest.answers import ANSWERS_NAME, Answer, KnownAnswers, Planted
from mmcore.ingest.scenes import Scene

LICENCE = "CC0-1.0"
_TEMPLATES = (
    "a {size} {colour} {shape} on a {field} field",
    "a {field} background with a {size} {colour} {shape} in front of it",
    "here is a {shape}: it is {size} and {colour}, the ground is {field}",
    "this picture shows a {size} {shape} in {colour} over {field}",
)
_ACCENTED = "caf\u00e9 d\u00e9cor \u2013 {caption} \u2013 tr\u00e8s joli"
# Vorbis takes ten times as long to write as the others
_SOUNDS = ("wav", "flac", "wav", "flac", "wav", "flac", "wav", "ogg")
_PICTURE_COPIES = ("near_duplicate", "cropped_picture", "reencoded_picture")
_DUPLICATES = ("exact_duplicate", "duplicate_picture", *_PICTURE_COPIES, "paraphrased_caption")
_TRUNCATED_TO = 0.4
_TINY_SIDE = 12


@dataclass(frozen=True)
class _Draft:
    """A sample before it is written."""

    name: str
    scene: Scene
    parts: Mapping[str, bytes]

    @property
    def picture(self) -> str:
        return "png" if "png" in self.parts else "jpg"

    @property
    def sound(self) -> str:
        return next(ext for ext in ("wav", "flac", "ogg") if ext in self.parts)

    def with_part(self, extension: str, data: bytes) -> "_Draft":
        return replace(self, parts={**self.parts, extension: data})

    def without(self, extension: str) -> "_Draft":
        return replace(self, parts={e: d for e, d in self.parts.items() if e != extension})


def make_corpus(
    destination: str,
    *,
    num_samples: int,
    seed: int,
    video_fraction: float = 0.1,
    planted: Planted | None = None,
) -> KnownAnswers:
    """Write a new corpus, whole or not at all; the same arguments give the same bytes.

    The label is the shape; it can be told from the picture, the caption or the sound alone.
    """
    target = _new_folder(destination)
    if num_samples < 1 or seed < 0 or not 0 <= video_fraction <= 1:
        raise ConfigError(
            f"num_samples={num_samples}, seed={seed}, video_fraction={video_fraction}: use 1 "
            "sample or more, a seed from 0 up and a fraction from 0 to 1."
        )
    work = target.parent / storage.temporary_name()
    try:
        work.mkdir(parents=True)
        try:
            maker = _Maker(work, num_samples, seed, video_fraction, planted or Planted())
            answers = maker.make()
            (work / ANSWERS_NAME).write_bytes(answers.to_json())
            os.rename(work, target)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    except OSError as error:
        raise StorageError(
            f"cannot make a corpus in {destination}: {error}. Nothing was left behind; free some "
            "room or check the permissions, and run it again."
        ) from error
    return answers


def _new_folder(destination: str) -> Path:
    if not storage.is_local(destination):
        raise ConfigError(f"{destination} is not a folder of this machine. Make it in one first.")
    target = Path(destination).absolute()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ConfigError(f"{destination} exists and is not empty. Name a folder that is new.")
    return target


class _Maker:
    """Makes one corpus. Every sample draws from a generator of its own, by seed and number."""

    def __init__(
        self, folder: Path, num_samples: int, seed: int, video_fraction: float, planted: Planted
    ) -> None:
        self.folder = folder
        self.num_samples = num_samples
        self.seed = seed
        self.video_fraction = video_fraction
        self.fault_of = _assigned(num_samples, seed, planted)
        self.ignores_case = _ignores_case(folder)
        self.twin_of = self._twins()
        self.storied = {
            twin
            for index, twin in self.twin_of.items()
            if self.fault_of[index] == "paraphrased_caption"
        }
        self.answers: dict[str, list[Answer]] = {item.name: [] for item in fields(planted)}

    def _twins(self) -> dict[int, int]:
        """Return whom each sample that is a copy is made from: one without fault, and each once."""
        clean = [i for i in range(self.num_samples) if i not in self.fault_of]
        order = np.random.default_rng([self.seed, 0, 0, 2]).permutation(len(clean))
        twins = [clean[int(i)] for i in order]
        copies = (*_DUPLICATES, "key_taken")
        return {
            index: twins.pop()
            for index, fault in sorted(self.fault_of.items())
            if fault in copies and not (fault == "key_taken" and self.ignores_case)
        }

    def make(self) -> KnownAnswers:
        num_clean = 0
        for index in range(self.num_samples):
            fault = self.fault_of.get(index, "")
            if fault == "key_taken" and self.ignores_case:
                fault = ""
            if index in self.twin_of:
                draft, answer = self._from_twin(index, fault, self._draft(self.twin_of[index]))
            else:
                draft, detail = self._with_fault(index, fault, self._draft(index))
                answer = Answer(draft.name, detail=detail)
            if fault:
                self.answers[fault].append(answer)
            else:
                num_clean += 1
            self._write(draft)
        planted = {
            fault: tuple(sorted(answers, key=lambda answer: answer.original_key))
            for fault, answers in sorted(self.answers.items())
        }
        return KnownAnswers(self.num_samples, self.seed, num_clean, planted)

    def _draft(self, index: int) -> _Draft:
        """Return a sample without fault."""
        rng = np.random.default_rng([self.seed, index])
        scene = _scene(rng)
        width, height = (int(side) for side in rng.integers(80, 129, size=2))
        image = scenes.draw(scene, rng, width=width, height=height)
        is_jpeg = bool(rng.random() < 0.5)
        sound = _SOUNDS[int(rng.integers(len(_SOUNDS)))]
        caption = _caption(scene, index)
        if index in self.storied:
            caption += f". {stories.story(np.random.default_rng([self.seed, index, 2]))}"
        parts = {
            "jpg" if is_jpeg else "png": scenes.to_jpeg(image) if is_jpeg else scenes.to_png(image),
            "txt": caption.encode(),
            sound: tones.encoded(tones.play(scene, rng), sound),
            "json": _sidecar(scene),
        }
        if rng.random() < self.video_fraction:
            parts["mp4"] = scenes.film(scene, rng)
        return _Draft(_name(scene, index), scene, parts)

    def _from_twin(self, index: int, fault: str, twin: _Draft) -> tuple[_Draft, Answer]:
        """Return a sample that shares its scene with another, and more, as the fault says."""
        rng = np.random.default_rng([self.seed, index, 1])
        name = _name(twin.scene, index)
        if fault == "exact_duplicate":
            return replace(twin, name=name), Answer(name, twin.name)
        new = _Draft(name, twin.scene, {"json": twin.parts["json"]})
        new = new.with_part("txt", _caption(twin.scene, _number(twin) + 1).encode())
        new = new.with_part("wav", tones.encoded(tones.play(twin.scene, rng), "wav"))
        if fault == "duplicate_picture":
            new = new.with_part(twin.picture, twin.parts[twin.picture])
            return new, Answer(name, twin.name)
        if fault in _PICTURE_COPIES:
            data, how = _copied(scenes.decoded(twin.parts[twin.picture]), fault)
            return new.with_part("jpg", data), Answer(name, twin.name, how)
        if fault == "paraphrased_caption":
            text = stories.reworded(twin.parts["txt"].decode(), rng)
            image = scenes.to_png(scenes.draw(twin.scene, rng))
            return new.with_part("txt", text.encode()).with_part("png", image), Answer(
                name, twin.name
            )
        # capitals sort first, so the twin keeps the key
        new = replace(new, name=_name(twin.scene, _number(twin)).replace("IMG", "img"))
        picture = scenes.to_png(scenes.draw(twin.scene, rng))
        return new.with_part("png", picture), Answer(new.name, twin.name)

    def _with_fault(self, index: int, fault: str, draft: _Draft) -> tuple[_Draft, str]:
        """Return the sample with a fault in it, and what to know about it."""
        picture, sound = draft.picture, draft.sound
        rng = np.random.default_rng([self.seed, index, 1])
        if fault == "broken_picture":
            data, how = _broken(draft.parts[picture], len(self.answers[fault]))
            return draft.with_part(picture, data), how
        if fault == "small_picture":
            image = scenes.draw(draft.scene, rng, width=_TINY_SIDE, height=_TINY_SIDE)
            is_jpeg = picture == "jpg"
            data = scenes.to_jpeg(image) if is_jpeg else scenes.to_png(image)
            return draft.with_part(picture, data), f"{_TINY_SIDE}x{_TINY_SIDE}"
        if fault == "empty_caption":
            return draft.with_part("txt", (b"", b" \n\t\n")[len(self.answers[fault]) % 2]), ""
        if fault == "mojibake_caption":
            true = _ACCENTED.format(caption=draft.parts["txt"].decode())
            garbled = true.encode().decode("cp1252")
            return draft.with_part("txt", garbled.encode()), true
        if fault == "truncated_sound":
            extension = ("flac", "wav")[len(self.answers[fault]) % 2]
            whole = tones.encoded(tones.play(draft.scene, rng), extension)
            cut = whole[: int(len(whole) * _TRUNCATED_TO)]
            return draft.without(sound).with_part(extension, cut), extension
        if fault == "silent_sound":
            return draft.with_part(sound, tones.encoded(tones.silence(rng), sound)), sound
        if fault == "missing_sound":
            return draft.without(sound), ""
        return draft, ""

    def _write(self, draft: _Draft) -> None:
        path = self.folder / draft.name
        path.parent.mkdir(exist_ok=True)
        for extension, data in sorted(draft.parts.items()):
            path.with_name(f"{path.name}.{extension}").write_bytes(data)


def _assigned(num_samples: int, seed: int, planted: Planted) -> dict[int, str]:
    """Return the fault of each sample that gets one, by number."""
    order = np.random.default_rng([seed, 0, 0, 1]).permutation(num_samples).tolist()
    wanted = [
        item.name
        for item in fields(planted)
        for _ in range(int(getattr(planted, item.name) * num_samples))
    ]
    return dict(zip(order, wanted, strict=False))


def _scene(rng: np.random.Generator) -> Scene:
    kinds = (scenes.SHAPES, tuple(scenes.COLOURS), tuple(scenes.SIZES), tuple(scenes.FIELDS))
    shape, colour, size, field = (kind[int(rng.integers(len(kind)))] for kind in kinds)
    return Scene(shape=shape, colour=colour, size=size, field=field)


def _caption(scene: Scene, number: int) -> str:
    return _TEMPLATES[number % len(_TEMPLATES)].format(**asdict(scene))


def _sidecar(scene: Scene) -> bytes:
    group = f"{scene.size} {scene.colour} {scene.shape} {scene.field}"
    value = {
        **asdict(scene),
        "label": scene.shape,
        "caption_group": group,
        "language": "en",
        "licence": LICENCE,
    }
    return (json.dumps(value, sort_keys=True) + "\n").encode()


def _copied(image: scenes.Image, fault: str) -> tuple[bytes, str]:
    """Return a picture that shows what another one shows, and what was done to it."""
    height, width = image.shape[:2]
    quality = {"near_duplicate": 75, "cropped_picture": 85, "reencoded_picture": 50}[fault]
    if fault == "near_duplicate":
        height, width = round(height * 0.8), round(width * 0.8)
        image = scenes.resized(image, width=width, height=height)
    if fault == "cropped_picture":
        height, width = height - 2, width - 2
        image = np.ascontiguousarray(image[1:-1, 1:-1])
    return scenes.to_jpeg(image, quality=quality), f"{width}x{height}, JPEG quality {quality}"


def _broken(data: bytes, number: int) -> tuple[bytes, str]:
    ways = (
        (data[: len(data) // 2], "cut"),
        (b"<!DOCTYPE html><html><body>404 Not Found</body></html>\n", "html"),
        (b"", "empty"),
    )
    return ways[number % len(ways)]


def _name(scene: Scene, number: int) -> str:
    return f"{scene.shape}/IMG_{number:06d}"


def _number(draft: _Draft) -> int:
    return int(draft.name.rpartition("_")[2])


def _ignores_case(folder: Path) -> bool:
    """Return whether the file system takes two names that differ in case for one."""
    probe = folder / "case"
    probe.touch()
    found = (folder / "CASE").exists()
    probe.unlink()
    return found
