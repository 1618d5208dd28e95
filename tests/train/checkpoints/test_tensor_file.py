import pytest
import torch
from safetensors.torch import load

from mmcore.errors import IntegrityError
from mmcore.train.checkpoints.tensor_file import FlatBuffer, tensors_of

TENSORS = {
    "mask": torch.tensor([True, False, True]),
    "weight": torch.arange(15, dtype=torch.float32).reshape(3, 5).t(),
    "half": torch.randn(7, generator=torch.manual_seed(1)).to(torch.bfloat16),
    "step": torch.tensor(12, dtype=torch.int64),
    "nothing": torch.empty(0, 4),
}


def bytes_of(snapshot) -> bytes:
    return b"".join(bytes(piece) for piece in snapshot.pieces())


def test_a_snapshot_is_a_file_that_the_safetensors_library_reads() -> None:
    data = bytes_of(FlatBuffer().take(TENSORS))
    for found in (load(data), tensors_of(bytearray(data), where="here")):
        assert found.keys() == TENSORS.keys()
        for name, tensor in TENSORS.items():
            assert found[name].dtype == tensor.dtype
            assert torch.equal(found[name], tensor), name


def test_the_memory_is_used_again_and_what_is_trained_on_does_not_change_the_copy() -> None:
    buffer = FlatBuffer()
    weight = torch.ones(1000)
    buffer.reserve({"weight": weight})
    first = buffer.take({"weight": weight})
    weight += 1
    assert load(bytes_of(first))["weight"].unique().tolist() == [1.0]
    second = buffer.take({"weight": weight})
    assert second.data.data_ptr() == first.data.data_ptr()
    assert load(bytes_of(second))["weight"].unique().tolist() == [2.0]


def test_the_same_tensors_are_the_same_bytes_in_any_order() -> None:
    turned = dict(reversed(TENSORS.items()))
    assert bytes_of(FlatBuffer().take(turned)) == bytes_of(FlatBuffer().take(TENSORS))


def test_a_file_of_another_kind_is_refused() -> None:
    with pytest.raises(IntegrityError, match=r"rank-0 is no safetensors file.*the one before"):
        tensors_of(bytearray(b"\x02" + bytes(7) + b"[]" + bytes(30)), where="rank-0")
