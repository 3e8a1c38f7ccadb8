"""The first 48 hours in intensive care of 3,996 patients, of whom 14% died in hospital.

Set A of the PhysioNet/Computing in Cardiology Challenge 2012 (Silva, Moody, Scott, Celi, Mark. Predicting in-hospital
mortality of ICU patients. 2012).
"""

from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split

import latentrnn as lr
from examples.simulate import Array, Stays

FOLDER, HOURS = "icu_physionet2012", 48
WHO = ("Age", "Gender", "Height", "Weight")  # of admission
PLAUSIBLE = {  # what lies outside was mistyped
    "Age": (15, 100), "Gender": (0, 1), "Height": (120, 220), "Weight": (20, 300), "DiasABP": (10, 180),
    "HR": (20, 250), "MAP": (15, 200), "NIDiasABP": (10, 180), "NIMAP": (15, 200), "NISysABP": (30, 280),
    "PaCO2": (8, 150), "PaO2": (20, 600), "RespRate": (2, 70), "SysABP": (30, 280), "Temp": (30, 43), "pH": (6.5, 8),
}  # fmt: skip
SKEWED = {  # taken as log(1 + value)
    "ALP", "ALT", "AST", "BUN", "Bilirubin", "Cholesterol", "Creatinine", "FiO2", "Glucose", "Lactate", "Mg", "PaO2",
    "Platelets", "TroponinI", "TroponinT", "Urine", "WBC",
}  # fmt: skip


def load(data: Path) -> Stays:
    """Return charts, (patient, hour, channel): averages of an hour, of 36 vital signs and laboratory values."""
    with open(data / FOLDER / "Outcomes-a.txt") as lines:
        next(lines)
        outcome = {row[0]: float(row[5]) for row in (line.strip().split(",") for line in lines)}
    stays: list[list[tuple[int, str, float]]] = []
    who, died = [], []
    with tarfile.open(data / FOLDER / "set-a.tar.gz") as files:
        for member in files:
            file = files.extractfile(member)
            if file is None or not member.name.endswith(".txt"):
                continue
            rows = [line.split(",") for line in file.read().decode().split()[1:]]
            first = {name: float(value) for time, name, value in reversed(rows) if time == "00:00" and name in WHO}
            who.append([_plausible(name, first[name]) for name in WHO])
            died.append([outcome[Path(member.name).stem]])
            charted = [(min(int(time[:2]), HOURS - 1), name, float(value)) for time, name, value in rows]
            stays.append([row for row in charted if row[1] not in {"RecordID", "Age", "Gender", "Height"}])
    names = {name: k for k, name in enumerate(sorted({name for stay in stays for _, name, _ in stay}))}
    total, count = np.zeros((2, len(stays), HOURS, len(names)))
    for index, stay in enumerate(stays):
        for hour, name, value in stay:
            if np.isfinite(kept := _plausible(name, value)):
                total[index, hour, names[name]] += np.log1p(max(kept, 0.0)) if name in SKEWED else kept
                count[index, hour, names[name]] += 1
    charts = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
    return Stays(charts, np.array(who), np.array(died))


def _plausible(name: str, value: float) -> float:
    low, high = PLAUSIBLE.get(name, (-np.inf, np.inf))
    return value if low <= value <= high else np.nan


class Units:
    """Standard units of training patients, beyond 6 of which values are cut off."""

    def __init__(self, train: Stays) -> None:
        self.charts, self.who = self._of(train.charts), self._of(train.who)
        self.marked = np.isnan(train.who).any(0)

    @staticmethod
    def _of(values: Array) -> tuple[Array, Array]:
        flat = values.reshape(-1, values.shape[-1])
        spread = np.nanstd(flat, 0)
        return np.nanmean(flat, 0), np.where(spread > 0, spread, 1.0)

    def __call__(self, stays: Stays) -> Stays:
        """Return the same in these units, admissions' unknown values as average with a mark of their own."""
        (centre, scale), (middle, spread) = self.charts, self.who
        who = (stays.who - middle) / spread
        who = np.concatenate([np.nan_to_num(who), np.isnan(who)[:, self.marked]], 1)
        return Stays(np.clip((stays.charts - centre) / scale, -6, 6), who, stays.died)


def chosen(stays: Stays, which: NDArray[np.int_]) -> Stays:
    """Return some of the stays."""
    return Stays(*(values[which] for values in stays))


def split(stays: Stays) -> list[Stays]:
    """Return the patients that are learned from, that choose, and that are scored: 55, 15 and 30%, in standard units.

    Those who died are shared out in proportion.
    """
    died, everyone = stays.died[:, 0], np.arange(len(stays.died))
    rest, judge = train_test_split(everyone, test_size=0.3, random_state=0, stratify=died)
    learn, choose = train_test_split(rest, test_size=0.15 / 0.7, random_state=0, stratify=died[rest])
    units = Units(chosen(stays, learn))
    return [units(chosen(stays, part)) for part in (learn, choose, judge)]


def as_sequences(
    stays: Stays, seen: NDArray[np.bool_] | None = None, *, outcome_alone: bool = False
) -> lr.SequenceData:
    """Return a step for every hour in which anything was charted, and one at the end, from which the outcome is read.

    Covariates tell of the step before: "value", zero where nothing was charted, and "seen", the mask. So the head
    "chart" is a prediction of what is charted next.

    Args:
        stays: in standard units.
        seen: another mask, (stay, hour, channel), in the place of theirs.
        outcome_alone: whether charts are left out of what is scored, so that validation is by the outcome.
    """
    charted = ~np.isnan(stays.charts)
    seen = charted if seen is None else seen
    columns: dict[str, list[Array]] = {"time": [], "chart": [], "value": [], "seen": []}
    for chart, there, told in zip(stays.charts, charted, seen, strict=True):
        hours = np.flatnonzero(there.any(1))
        nothing = np.zeros((1, chart.shape[1]))
        columns["time"].append(np.append(hours, len(chart)).astype(float))
        columns["chart"].append(np.concatenate([chart[hours], np.full_like(nothing, np.nan)]))
        columns["value"].append(np.concatenate([nothing, np.nan_to_num(chart[hours])]))
        columns["seen"].append(np.concatenate([nothing, told[hours].astype(float)]))
    masks = {"chart": [np.isfinite(chart) & (not outcome_alone) for chart in columns["chart"]]}
    return lr.SequenceData.from_arrays(
        {"chart": columns["chart"], "died": stays.died},
        {"value": columns["value"], "seen": columns["seen"], "admission": stays.who},
        times=columns["time"],
        masks=masks,
        per_sequence=["died", "admission"],
    )
