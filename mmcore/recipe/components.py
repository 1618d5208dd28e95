"""Stages by name: a short name of ours, or the import path of anyone's class.

clean:
  min_side: {min_side: 32}                        # a short name
  blur: {use: my_package.filters.Blur, max: 3}    # an import path; `blur` names it for --set
"""

import importlib
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from mmcore.config import Path_, Problem, problems_of
from mmcore.core.stage import Component
from mmcore.errors import ConfigError

ComponentT = TypeVar("ComponentT")

SHORT_NAMES: Mapping[str, str] = {
    # layouts of raw corpora
    "folder": "mmcore.ingest.folder.FolderLayout",
    "stamps": "mmcore.ingest.stamps.StampsLayout",
    "webdataset": "mmcore.ingest.webdataset.WebdatasetLayout",
    "table": "mmcore.ingest.table.TableLayout",
    "urls": "mmcore.ingest.urllist.UrlListLayout",
    # cleaning
    "require_parts": "mmcore.clean.parts.RequireParts",
    "keep_parts": "mmcore.clean.parts.KeepParts",
    "keep_values": "mmcore.clean.parts.KeepValues",
    "keep_captions": "mmcore.clean.parts.KeepCaptions",
    "measure_image": "mmcore.clean.image.MeasureImage",
    "max_megapixels": "mmcore.clean.image.MaxMegapixels",
    "decode_image": "mmcore.clean.image.DecodeImage",
    "min_side": "mmcore.clean.image.MinSide",
    "max_aspect": "mmcore.clean.image.MaxAspect",
    "flatness": "mmcore.clean.image.Flatness",
    "blurred": "mmcore.clean.image.Blurred",
    "remove_repeated_lines": "mmcore.clean.wording.RemoveRepeatedLines",
    "repair_caption": "mmcore.clean.text.RepairCaption",
    "mask_pii": "mmcore.clean.pii.MaskPii",
    "measure_text": "mmcore.clean.wording.MeasureText",
    "caption_length": "mmcore.clean.wording.CaptionLength",
    "caption_repetition": "mmcore.clean.wording.CaptionRepetition",
    "caption_symbols": "mmcore.clean.wording.CaptionSymbols",
    "caption_language": "mmcore.clean.text.CaptionLanguage",
    "measure_audio": "mmcore.clean.audio.MeasureAudio",
    "min_max_rate": "mmcore.clean.audio.MinMaxRate",
    "max_channels": "mmcore.clean.audio.MaxChannels",
    "decode_audio": "mmcore.clean.audio.DecodeAudio",
    "min_max_seconds": "mmcore.clean.audio.MinMaxSeconds",
    "silent": "mmcore.clean.audio.Silent",
    "clipped": "mmcore.clean.audio.Clipped",
    "noisy": "mmcore.clean.audio.Noisy",
    "measure_video": "mmcore.clean.video.MeasureVideo",
    "decode_video": "mmcore.clean.video.DecodeVideo",
    "video_seconds": "mmcore.clean.video.VideoSeconds",
    "frame_rate": "mmcore.clean.video.FrameRate",
    "still_video": "mmcore.clean.video.StillVideo",
    "scene_cuts": "mmcore.clean.video.SceneCuts",
    "black_video": "mmcore.clean.video.BlackVideo",
    # what near duplicates are found by
    "sign_image": "mmcore.dedup.sign.SignImage",
    "sign_text": "mmcore.dedup.sign.SignText",
    "sign_audio": "mmcore.dedup.sign.SignAudio",
    "sign_video": "mmcore.dedup.sign.SignVideo",
    # rules over the whole corpus
    "exact_duplicates": "mmcore.dedup.exact.ExactDuplicates",
    "near_duplicates": "mmcore.dedup.near.NearDuplicates",
    "group_split": "mmcore.dedup.split.GroupSplit",
    # encoding
    "encode_image": "mmcore.encode.image.EncodeImage",
    "encode_audio": "mmcore.encode.audio.EncodeAudio",
    "encode_text": "mmcore.encode.text.EncodeText",
    "encode_video": "mmcore.encode.video.EncodeVideo",
    "video_frames": "mmcore.encode.video.VideoFrames",
    "video_sound": "mmcore.encode.video.VideoSound",
    "audio_features": "mmcore.encode.features.AudioFeatures",
    "bag_of_words": "mmcore.encode.features.BagOfWords",
    "token_ids": "mmcore.encode.text.TokenIds",
    # models over samples
    "embed_image": "mmcore.models.embed.EmbedImage",
    "embed_text": "mmcore.models.embed.EmbedText",
    "embed_audio": "mmcore.models.embed.EmbedAudio",
    "image_text_agreement": "mmcore.models.agreement.ImageTextAgreement",
    "audio_text_agreement": "mmcore.models.agreement.AudioTextAgreement",
    # loading
    "multimodal": "mmcore.load.batches.MultimodalLoader",
}


class InvalidComponent(Exception):
    """A component could not be made; `problems` say why."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__(str(problems))
        self.problems = problems


def find_class(name: Any, path: Path_) -> type[Any]:
    """Return the class that a short name or an import path names."""
    if not isinstance(name, str):
        raise InvalidComponent([Problem((*path, "use"), f"expected a name, found {name!r}")])
    target = SHORT_NAMES.get(name, name)
    module_name, dot, class_name = target.replace(":", ".").rpartition(".")
    if not dot:
        raise InvalidComponent([Problem((*path, name), "no stage of that name", list(SHORT_NAMES))])
    if not all(piece.isidentifier() for piece in [*module_name.split("."), class_name]):
        message = "neither a name nor an import path; write package.module.Class"
        raise InvalidComponent([Problem((*path, name), message)])
    try:
        found = getattr(importlib.import_module(module_name), class_name)
    except ImportError as error:
        message = f"cannot import {target}: {error}; is it installed?"
        raise InvalidComponent([Problem((*path, name), message)]) from None
    except AttributeError:
        message = f"module {module_name} has no class {class_name}"
        raise InvalidComponent([Problem((*path, name), message)]) from None
    if not isinstance(found, type):
        raise InvalidComponent([Problem((*path, name), f"{target} is not a class")])
    return found


def make(cls: type[ComponentT], fields: Mapping[str, Any], path: Path_) -> ComponentT:
    """Check fields against a dataclass and build it; InvalidComponent with every problem."""
    try:
        made: ComponentT = TypeAdapter(cls).validate_python(dict(fields))
        return made
    except ValidationError as error:
        raise InvalidComponent(list(problems_of(error, cls, path))) from None
    except ConfigError as error:
        raise InvalidComponent([Problem(path, str(error).rstrip("."))]) from None


def make_named(
    fields: Mapping[str, Any] | None, path: Path_, kind: type[ComponentT], *, default: str
) -> ComponentT:
    """Build a component from its mapping: `use` names the class, the rest are its fields."""
    fields = dict(fields or {})
    name = fields.pop("use", default)
    cls = find_class(name, path[:-1] if name == path[-1] else path)
    if issubclass(kind, Component) and not issubclass(cls, kind):
        message = f"{cls.__qualname__} is no {kind.__name__}"
        raise InvalidComponent([Problem(path, message)])
    made: ComponentT = make(cls, fields, path)
    return made


def json_schema(cls: type[Any]) -> dict[str, Any]:
    """Return the JSON Schema of a component's fields."""
    schema: dict[str, Any] = TypeAdapter(cls).json_schema()
    return schema
