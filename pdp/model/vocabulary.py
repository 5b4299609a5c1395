"""The vocabulary of a pack: types with their verbs, and attributes with their types. The engine knows no word by itself."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches

from pdp.model.attributes import AttributeType
from pdp.model.names import Action


@dataclass(frozen=True, slots=True, kw_only=True)
class TypeInfo:
    """A resource type: its verbs, those that need a version, and whether segmentation is asked for it."""

    verbs: frozenset[str]
    versioned_verbs: frozenset[str] = frozenset()
    segmented: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class AttributeInfo:
    """An attribute: its type, and who may assert it in a question (nobody, if it comes from the inventory or the log)."""

    type: AttributeType
    asserted_by: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """Everything that rows, conditions and questions may name."""

    types: Mapping[str, TypeInfo]
    attributes: Mapping[str, AttributeInfo]

    def knows(self, action: Action) -> bool:
        """Tell whether `action` is a verb of a known type."""
        info = self.types.get(action.type)
        return info is not None and action.verb in info.verbs

    def actions(self) -> Iterator[str]:
        """Yield every action, in order."""
        for name in sorted(self.types):
            for verb in sorted(self.types[name].verbs):
                yield f"{name}.{verb}"

    def nearest(self, word: str) -> str:
        """Return the action, type or attribute that looks most like `word`, or an empty string."""
        known = [*self.actions(), *self.types, *self.attributes]
        close = get_close_matches(word[:100], known, n=1, cutoff=0.5)
        return close[0] if close else ""
