"""Training, validation and test sequences of data that come in one file."""

from __future__ import annotations

from latentrnn.data import SequenceData
from latentrnn.support.arguments import check_number

TOLD = ("train", "valid", "test")  # parts that files of public formats tell apart themselves


def parts(
    data: SequenceData, valid: float = 0.15, test: float = 0.15, *, seed: int = 0
) -> tuple[SequenceData, SequenceData | None, SequenceData | None]:
    """Return training, validation and test sequences.

    Files that tell them apart are taken at their word (metadata `part`). Else sequences are drawn at random; one alone
    is cut in time, training first, and what comes later sees all before without scoring it.

    Args:
        data: all sequences.
        valid, test: fractions; both zero where all is for training.
        seed: of the draw.

    Returns:
        The three parts, None for those that were not asked for.

    Raises:
        ValueError: a fraction out of range, or a part without a sequence.
    """
    valid = check_number("split", "valid", valid, least=0, below=1)
    test = check_number("split", "test", test, least=0, below=1)
    told = data.metadata.get("part")
    if told is not None and set(map(str, told)) <= set(TOLD) and "train" in set(map(str, told)):
        there = {name: data.where(part=name) if name in set(map(str, told)) else None for name in TOLD}
        assert there["train"] is not None
        return there["train"], there["valid"], there["test"]
    if valid == test == 0:
        return data, None, None
    if not valid or not test or valid + test >= 1:
        raise ValueError(
            f"split: expected valid and test above 0 and together below 1, or both 0; found {valid:g} and {test:g}"
        )
    rest = 1 - valid - test
    if len(data) > 1:
        return data.split(rest, valid, test, seed=seed)
    return data.split(rest, valid, test, along="time", context=data.num_steps)
