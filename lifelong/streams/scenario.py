"""A scenario: a finite stream of experiences, what it tells a learner, and a signature to quote in results."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, final, overload

from lifelong.errors import ConfigError
from lifelong.labels import Label
from lifelong.streams.parts import Parts, Samples
from lifelong.types import Batch, Experience

PROVIDES = {
    "class-il": frozenset({"boundaries", "known_classes", "epochs"}),
    "domain-il": frozenset({"boundaries", "known_classes", "epochs"}),
    "task-il": frozenset({"boundaries", "task_id", "known_classes", "epochs"}),
    "data-il": frozenset({"boundaries", "known_classes", "epochs"}),
    "online": frozenset({"known_classes"}),
}
TESTS = 10  # held-out parts that are remembered: all are asked for after each experience


@final
class Cut(Experience):
    """An experience whose samples are cut out of the data when they are asked for, not before.

    Args:
        index: Position in the stream, from 0.
        name: For people.
        classes: The labels that occur in `train`.
        train: Returns the samples to learn from.
        test: Returns the held-out samples; None where nothing is held out.
        task: Task id of all samples; -1 is unknown.
        names: What integer labels stand for.
    """

    def __init__(
        self,
        index: int,
        name: str,
        classes: Sequence[Label],
        train: Callable[[], Samples],
        test: Callable[[], Samples] | None = None,
        *,
        task: int = -1,
        names: Sequence[Label] | None = None,
    ) -> None:
        self._train, self._test = train, test
        super().__init__(index, name, classes, (), None, task=task, names=names)

    @property
    def train(self) -> Batch | Iterable[Any]:
        """Return the samples to learn from."""
        return self._train()

    @train.setter
    def train(self, _: object) -> None:
        """Ignore what the base class sets: the cut is the truth."""

    @property
    def test(self) -> Batch | Iterable[Any] | None:
        """Return the held-out samples."""
        return None if self._test is None else self._test()

    @test.setter
    def test(self, _: object) -> None:
        """Ignore what the base class sets: the cut is the truth."""


@final
class Steps(Sequence[Experience]):
    """Experiences made when they are reached: a long stream costs nothing up front.

    Args:
        count: How many there are.
        make: Returns the experience at an index.
    """

    def __init__(self, count: int, make: Callable[[int], Experience]) -> None:
        self._count, self._make = count, make

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> Experience: ...
    @overload
    def __getitem__(self, index: slice) -> list[Experience]: ...
    def __getitem__(self, index: int | slice) -> Experience | list[Experience]:
        if isinstance(index, slice):
            return [self._make(i) for i in range(self._count)[index]]
        return self._make(range(self._count)[index])


@final
@dataclass(frozen=True, slots=True)
class Scenario:
    """A named, finite stream; iterate it as often as you like.

    Args:
        name: Permanent id, or what the maker calls it.
        kind: A key of `PROVIDES`: class-il, domain-il, task-il, data-il or online.
        experiences: In order.
        classes: All labels in order of appearance, for methods that must know them from the start.
        seed: Of everything that was drawn.
        counts: Experiences, classes, and training and test samples of the data it is cut from.
        data: Name and sha256 of the data.
        options: How the maker was called, as plain values; `task_ids` adds `task_id` to what the kind provides.
    """

    name: str
    kind: str
    experiences: Sequence[Experience]
    classes: tuple[Label, ...]
    seed: int
    counts: Mapping[str, int]
    data: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind not in PROVIDES:
            raise ConfigError(f"a scenario's kind is one of {', '.join(PROVIDES)}, got {self.kind!r}")

    def __len__(self) -> int:
        return len(self.experiences)

    def __iter__(self) -> Iterator[Experience]:
        return iter(self.experiences)

    def __getitem__(self, index: int) -> Experience:
        return self.experiences[index]

    @property
    def provides(self) -> frozenset[str]:
        """Return what this scenario tells a learner: of `boundaries`, `task_id`, `known_classes` and `epochs`."""
        return PROVIDES[self.kind] | {"task_id"} if self.options.get("task_ids") else PROVIDES[self.kind]

    @property
    def signature(self) -> dict[str, Any]:
        """Return what identifies this stream in a result, as plain JSON values."""
        plain = {"counts": dict(self.counts), "data": dict(self.data), "options": dict(self.options)}
        return {"name": self.name, "kind": self.kind, "seed": self.seed, **plain}


def newest(make: Callable[[int], Samples], most: int = 1) -> Callable[[int], Samples]:
    """Return `make` with a memory of its `most` newest parts: asking for one of them again costs nothing."""
    held: list[tuple[tuple[int, Samples], ...]] = [()]

    def remembered(index: int) -> Samples:
        for known, part in held[0]:
            if known == index:
                return part
        made = make(index)
        held[0] = (*held[0], (index, made))[-most:]  # replaced at once: another thread sees what was, or what is
        return made

    return remembered


def labels_in(parts: Parts, samples: Samples) -> list[Label]:
    """Return the labels that occur in `samples`, in the order of the classes."""
    return [parts.classes[i] for i in samples.y.unique().tolist()]


def assemble(
    kind: str,
    parts: Parts,
    experiences: Sequence[Experience],
    *,
    seed: int,
    classes: Sequence[Label] | None = None,
    **options: Any,  # noqa: ANN401 - plain values
) -> Scenario:
    """Return the scenario of `experiences` that are cut from `parts`."""
    held_out = 0 if parts.test is None else len(parts.test)
    sizes = {"classes": len(parts.classes), "train": len(parts.train), "test": held_out}
    counts = {"experiences": len(experiences), **sizes}
    data = {"name": parts.name, "sha256": parts.sha256}
    ordered = parts.classes if classes is None else tuple(classes)
    return Scenario(f"{kind}-{parts.name}", kind, experiences, ordered, seed, counts, data, options)
