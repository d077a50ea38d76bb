"""What is A's alone, and whether a response to B holds any of it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from tenantry.scan.content import Leaf, haystack, leaves, trees
from tenantry.scan.credentials import TENANT_KEY
from tenantry.scan.messages import Exchange, Request, Response
from tenantry.scan.objects import Thing, things
from tenantry.scan.survey import Seen, World
from tenantry.scan.values import Weight, is_unique, mentions, weigh
from tenantry.scan.volatile import same_values

_COVERED = 0.85
_ENOUGH = 2


@dataclass(frozen=True, slots=True)
class Clue:
    """Something of A's in a response to B.

    Attributes:
        what: How it was recognised: ``value``, ``row``, ``body``, ``tenant`` or ``owned``.
        name: The name of the value, where it has one.
        text: The value.
    """

    what: str
    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Mark:
    """A value that only A was shown."""

    text: str
    name: str
    weight: Weight


class Evidence:
    """Knows what is A's, and recognises it.

    Args:
        world: What both tenants have seen.
        owned: Values that are A's by the user's word.
    """

    def __init__(self, world: World, owned: frozenset[str]) -> None:
        self._owned = owned
        self._tenants = world.a.tenants
        self._others = _said([*world.b.exchanges, *world.public])
        self._b_things = _by_id(world.b.exchanges)
        self._changing = _changing([*world.a.seen.values(), *world.b.seen.values()])
        self.marks: dict[str, Mark] = {}
        self._things: dict[str, list[Thing]] = defaultdict(list)
        for seen in world.a.seen.values():
            self.learn(seen)

    @property
    def knows_a(self) -> bool:
        """Whether A was shown what B was not; a number or two that changed in between do not count."""
        return sum(mark.weight for mark in self.marks.values()) > _ENOUGH or any(
            mark.weight >= Weight.SPECIFIC for mark in self.marks.values()
        )

    def learn(self, seen: Seen) -> None:
        """Take what is A's out of one more answer to A."""
        for mark in self.marks_of(seen.stable, seen.request):
            self.marks.setdefault(mark.text.casefold(), mark)
        stable = {leaf.text for leaf in seen.stable}
        for thing in things(seen.exchange):
            if thing.id is not None and not self._is_b_own(thing) and stable.issuperset(thing.own.values()):
                self._things[thing.id].append(thing)

    def marks_of(self, found: Iterable[Leaf], request: Request) -> list[Mark]:
        """Return the values of an answer to A that B has never been shown."""
        sent, asked = request.sent(), request.values()
        marks = {}
        for leaf in found:
            text, weight = leaf.text.strip(), weigh(leaf)
            key = text.casefold()
            if (request.path, leaf.keys) in self._changing or any(mentions(key, value) for value in asked):
                continue  # an echo, such as: Results for Anvils
            if weight and key not in sent and not mentions(self._others, text):
                marks[key] = Mark(text, leaf.keys[-1] if leaf.keys else "", weight)
        return list(marks.values())

    def clues(
        self, request: Request, response: Response, source: Seen | None = None, *, collides: bool = False
    ) -> list[Clue]:
        """Return what of A's the response to B holds, apart from what B itself sent.

        Args:
            request: What B sent.
            response: What B got.
            source: A's own request, from which B's was made.
            collides: Whether the ids in it may be B's as well, as ``1`` is.
        """
        sent, said = request.sent(), haystack(response)
        found = [
            mark
            for mark in self.marks.values()
            if mark.text.casefold() not in sent and mentions(said, mark.text)
        ]
        clues = [*self._by_word(said, sent), *self._rows(request, response)]
        if response.status >= 400:
            clues += _clues("value", [mark for mark in found if mark.weight >= Weight.SPECIFIC])
        elif not collides:
            clues += _clues("value", _telling(found, response))
        else:
            clues += _clues("value", [mark for mark in found if is_unique(mark.text)])
        if source is not None and response.ok and not clues:
            clues += self._whole(request, response, source, found)
        return list(dict.fromkeys(clues))

    def listed(self, request: Request, response: Response, seen: Seen) -> Clue | None:
        """Return the row of a list that is the one A opened, or None."""
        for opened in things(seen.exchange):
            for thing in things(Exchange(request, response)):
                same = opened.id is not None and thing.id == opened.id and len(thing.own) >= _ENOUGH
                if same and thing.same_as(opened):
                    return Clue("row", f"{thing.label} {thing.id}", _telling_values(list(thing.own.values())))
        return None

    def _by_word(self, said: str, sent: str) -> Iterator[Clue]:
        for value in sorted(self._owned):
            if value.casefold() not in sent and mentions(said, value):
                yield Clue("owned", "", value)

    def _rows(self, request: Request, response: Response) -> Iterator[Clue]:
        """Yield rows that say of themselves that they are A's, and rows that are known to be."""
        sent = request.sent()
        for thing in things(Exchange(request, response)):
            tenants = {key: value for key, value in thing.own.items() if TENANT_KEY.fullmatch(key)}
            for key, value in tenants.items():
                if value in self._tenants and value.casefold() not in sent and thing.id not in (None, value):
                    yield Clue("tenant", key, value)
            known = self._known(thing)
            if known is not None:
                yield Clue("row", f"{thing.label} {thing.id}", _telling_values(self._new(known, sent)))

    def _known(self, thing: Thing) -> Thing | None:
        if self._is_b_own(thing):
            return None
        for known in self._things.get(thing.id or "", ()):
            agreed = self._agreed(thing, known)
            specific = [mark for mark in agreed if mark.weight >= Weight.SPECIFIC]
            if thing.same_as(known) and len(specific if thing.values != known.values else agreed) >= _ENOUGH:
                return known
        return None

    def _agreed(self, thing: Thing, known: Thing) -> set[Mark]:
        """Return what both have and only A was shown."""
        equal = {text for name, text in thing.values.items() if known.values.get(name) == text}
        return {self.marks[text.casefold()] for text in equal if text.casefold() in self.marks}

    def _new(self, thing: Thing, sent: str) -> list[str]:
        return [
            text
            for text in thing.values.values()
            if text.casefold() in self.marks and text.casefold() not in sent
        ]

    def _is_b_own(self, thing: Thing) -> bool:
        return any(thing.same_as(own) for own in self._b_things.get(thing.id or "", ()))

    def _whole(self, request: Request, response: Response, source: Seen, found: list[Mark]) -> list[Clue]:
        """Return a clue where the answer is A's own from end to end, or most of it where it has no structure."""
        volatile = source.volatile
        steady = [leaf for leaf in source.stable if ".".join(leaf.keys) not in volatile]
        own = self.marks_of(steady, request)
        if own and same_values(response, source.exchange.response, request, volatile):
            return _clues("body", own)
        specific = [mark for mark in self.marks_of(source.stable, request) if mark.weight >= Weight.SPECIFIC]
        covered = [mark for mark in specific if mark in found]
        if not trees(response) and len(covered) >= max(_ENOUGH, _COVERED * len(specific)):
            return _clues("body", covered)
        return []


def _telling(found: list[Mark], response: Response) -> list[Mark]:
    """Return marks that say whose they are: one that identifies, or several of a text without structure."""
    certain = [mark for mark in found if mark.weight is Weight.IDENTIFYING]
    specific = [mark for mark in found if mark.weight is Weight.SPECIFIC]
    if certain:
        return [*certain, *specific]
    return specific if not trees(response) and len(specific) >= _ENOUGH else []


def _telling_values(texts: list[str]) -> str:
    return max(texts, key=len, default="")


def _clues(what: str, marks: Iterable[Mark]) -> list[Clue]:
    return [Clue(what, mark.name, mark.text) for mark in marks]


def _said(exchanges: list[Exchange]) -> str:
    found = {leaf.text.strip().casefold() for exchange in exchanges for leaf in leaves(exchange.response)}
    return "\n".join(found)


def _changing(found: list[Seen]) -> set[tuple[str, tuple[str, ...]]]:
    """Return where a single value, such as a tip of the day, was another one the second time."""
    changing = set()
    for seen in found:
        counts = Counter(leaf.keys for leaf in leaves(seen.exchange.response))
        steady = {leaf.keys for leaf in seen.stable}
        changing |= {
            (seen.request.path, keys) for keys, count in counts.items() if count == 1 and keys not in steady
        }
    return changing


def _by_id(exchanges: list[Exchange]) -> dict[str, list[Thing]]:
    found: dict[str, list[Thing]] = defaultdict(list)
    for exchange in exchanges:
        for thing in things(exchange):
            if thing.id is not None:
                found[thing.id].append(thing)
    return found
