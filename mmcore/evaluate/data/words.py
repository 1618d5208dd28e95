"""What reasons, rules and scores are called in front of people."""

from collections.abc import Mapping

_TABLE = """
array_over_limit | the array is larger than the limit
array_undecodable | the array cannot be read
audio_clipped | the sound is clipped
audio_empty | the sound file holds no sound
audio_format_refused | the sound is in a format that is not taken
audio_noisy | the sound is noisier than allowed
audio_over_limit | the sound is longer, or has more channels, than may be decoded
audio_rate_too_high | the sample rate is too high
audio_rate_too_low | the sample rate is too low
audio_silent | the sound is silent
audio_too_long | the sound is too long
audio_too_many_channels | the sound has too many channels
audio_too_short | the sound is too short
audio_truncated | the sound file is cut off
audio_undecodable | the sound file is broken
caption_digits | the caption is mostly digits
caption_empty | the caption is empty
caption_missing | there is no caption
caption_pii | the caption names personal data
caption_repetitive | the caption repeats itself
caption_symbols | the caption is mostly symbols
caption_too_long | the caption is too long
caption_too_short | the caption is too short
column_missing | the table lacks a column
content_unknown | nobody knows what the bytes are
decoder_died | reading or decoding it ended the decoder
decoder_memory | reading or decoding it took more memory than a sample may
decoder_timeout | reading or decoding it took longer than a sample may
duplicate | the same as another sample
equal_after_encoding | encoded, it equals one of another split
exact_duplicate | the same as another sample
forgotten | somebody asked to forget it
held_out_twin_in_train | linked both to held-out data and to training data
image_animated | the picture is animated
image_blurred | the picture is blurred
image_flat | the picture is of one colour
image_format_refused | the picture is in a format that is not taken
image_over_limit | the picture is larger than may be decoded
image_too_elongated | the picture is too long for its width
image_too_large | the picture has too many pixels
image_too_small | the picture is too small
image_undecodable | the picture file is broken
key_missing | there is nothing to name it by
key_taken | another sample has its name
label_missing | there is no label
language_missing | no caption is in a wanted language
language_not_wanted | the language of the caption is not wanted
member_name_unfit | its name cannot be that of a file in a tar
metadata_unreadable | the metadata cannot be read
mirror_variant | the mirror image of another picture
part_missing | a part that is named is not there
parts_differ | its parts are not those of the other samples
row_empty | the row of the table is empty
row_unreadable | the row of the table cannot be read
sidecar_alone | there is a sidecar and nothing beside it
table_unreadable | the table cannot be read
tar_truncated | the tar is cut off
tar_unreadable | the tar cannot be read
text_over_limit | the text is longer than may be read
text_undecodable | the text is no UTF-8
twins_in_two_splits | looks like samples of two splits at once
unknown_extension | the extension stands for nothing that is known
url_failed | the download failed
url_forbidden | the server refused the download
url_not_fetched | it was not downloaded
url_not_found | there was nothing at the address
url_not_media | what was downloaded is no picture, sound or film
url_redirects | the address leads from one to the next
url_refused | the address is one that is not asked
url_timeout | the server took too long
url_too_large | the download was too large
url_unreachable | the server could not be reached
url_unresolved | nobody knows the server
value_not_understood | a value of the table is not understood
video_black | the film is mostly black
video_empty | the film holds no picture
video_format_refused | the film is in a format that is not taken
video_fps_too_high | the film has too many frames a second
video_fps_too_low | the film has too few frames a second
video_over_limit | the film is longer or larger than may be decoded
video_still | nothing moves in the film
video_too_long | the film is too long
video_too_many_cuts | the film has too many cuts
video_too_short | the film is too short
video_truncated | the film is cut off
video_undecodable | the film is broken
"""
REASONS: Mapping[str, str] = {
    name.strip(): words.strip()
    for name, _, words in (line.partition("|") for line in _TABLE.strip().splitlines())
}
_MODALITIES = {"image": "picture", "text": "text", "audio": "sound", "video": "film"}
_MISSING, _UNWANTED, _NEAR = "_missing", "_not_wanted", "near_duplicate_"

SCORES: Mapping[str, str] = {
    "audio_channels": "sound: channels",
    "audio_clipped_fraction": "sound: share that is clipped",
    "audio_peak": "sound: highest amplitude",
    "audio_rate_hz": "sound: sample rate, Hz",
    "audio_rms_dbfs": "sound: loudness, dB of full scale",
    "audio_seconds": "sound: length, s",
    "audio_snr_db": "sound: signal to noise, dB",
    "caption_chars": "caption: characters",
    "caption_digit_fraction": "caption: share of digits",
    "caption_digits": "caption: digits",
    "caption_repeated_chars": "caption: share of repeated characters",
    "caption_repeated_lines": "caption: share of repeated lines",
    "caption_repeated_words": "caption: share of repeated words",
    "caption_symbol_fraction": "caption: share of symbols",
    "caption_symbols": "caption: symbols",
    "caption_words": "caption: words",
    "image_aspect": "picture: long side to short side",
    "image_frames": "picture: frames",
    "image_height": "picture: height, px",
    "image_pixels": "picture: pixels",
    "image_sharpness": "picture: sharpness",
    "image_std": "picture: contrast",
    "image_width": "picture: width, px",
    "language_confidence": "language: confidence",
    "num_dropped_parts": "parts that were left out",
    "video_black_fraction": "film: share of black frames",
    "video_cuts": "film: cuts",
    "video_fps": "film: frames a second",
    "video_frames": "film: frames",
    "video_height": "film: height, px",
    "video_motion": "film: motion",
    "video_seconds": "film: length, s",
    "video_width": "film: width, px",
}


def reason_words(reason: str) -> str:
    """Return a reason as a person would say it; of one that is not known, its own words.

    >>> reason_words("image_too_small"), reason_words("near_duplicate_audio")
    ('the picture is too small', 'the sound is nearly that of another sample')
    """
    if reason in REASONS:
        return REASONS[reason]
    if reason.startswith(_NEAR):
        what = _MODALITIES.get(reason.removeprefix(_NEAR), "content")
        return f"the {what} is nearly that of another sample"
    if reason.endswith(_MISSING):
        what = reason.removesuffix(_MISSING)
        return f"there is no {_MODALITIES.get(what, _plain(what))}"
    if reason.endswith(_UNWANTED):
        return f"the {_plain(reason.removesuffix(_UNWANTED))} is not among those wanted"
    return _plain(reason)


def score_words(score: str) -> str:
    """Return what a score measures; of one that is not known, its own words."""
    return SCORES.get(score, _plain(score))


def _plain(name: str) -> str:
    return name.replace("_", " ").strip() or "not said"
