"""Classes by name: the same name is the same number, whichever folder or model it comes from."""

from collections.abc import Sequence

__all__ = ["ClassNames", "listed"]

SHOWN = 10


class ClassNames:
    """The numbers of the classes of all images that are compared.

    They are the model's where it has names, else those of the first folder, in the order of its names; names that come
    later follow.

    Args:
        model: the names of the model's classes by number; None where there is no model, or its classes have no names.
    """

    def __init__(self, model: Sequence[str] | None = None) -> None:
        self.names = list(model or ())
        self.origin = "the model" if self.names else ""
        self.num_known = len(self.names)
        self.named: dict[str, list[str]] = {}
        self.numbered: list[str] = []

    def numbers(self, own: Sequence[str], kind: str, are_numbers: bool = False) -> list[int]:
        """The number of each class of a set of images.

        Names that are numbers themselves are taken for names if all of them are known as such.

        Args:
            own: the names of its classes.
            kind: the set, for messages, such as `real`.
            are_numbers: whether `own` can only be numbers, as in EDM's `dataset.json`.
        """
        if are_numbers or (all(name.isdecimal() for name in own) and not {*own} <= {*self.names}):
            self.numbered.append(kind)
            return [int(name) for name in own]
        if not self.names:
            self.origin, self.num_known = f"the {kind} images", len(own)
        self.names += [name for name in own if name not in self.names]
        self.named[kind] = list(own)
        return [self.names.index(name) for name in own]

    def lacking(self, kind: str) -> list[str]:
        """Names that the set lacks, of those known first."""
        own = self.named.get(kind, self.names)
        return [name for name in self.names[: self.num_known] if name not in own]

    def unknown(self, kind: str) -> list[str]:
        """Names that the set alone, or another such set, has."""
        return [name for name in self.named.get(kind, []) if name in self.names[self.num_known :]]

    def missing(self, kind: str) -> list[str]:
        """Names that the real images have and another set, `generated` or `training`, lacks."""
        own = self.named.get(kind, self.names[: self.num_known] if self.origin == "the model" else self.names)
        return [name for name in self.named.get("real", []) if name not in own]

    def notes(self) -> list[str]:
        """What a reader should know of classes that do not match."""
        said = []
        for kind in self.named:
            if lacking := self.lacking(kind):
                said.append(f"classes of {self.origin} that the {kind} images lack: {listed(lacking)}")
            if unknown := self.unknown(kind):
                said.append(f"classes of the {kind} images that {self.origin} lacks: {listed(unknown)}")
        if self.names and self.numbered and self.origin != "the model":
            kinds, [order] = " and ".join(self.numbered), self.legend()
            said.append(f"classes of the {kinds} images are numbers, taken for the names of {self.origin}; {order}")
        return said

    def legend(self) -> list[str]:
        """Which number is which name, as a note; none where names are these numbers."""
        pairs = [f"{i} is {name}" for i, name in enumerate(self.names) if name != str(i)]
        return [f"of classes, {listed(pairs)}"] if pairs else []


def listed(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    return ", ".join(names[:SHOWN]) + (f", and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
