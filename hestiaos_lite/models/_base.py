"""What all models share: reading a decoded JSON object by the dataclass's own annotations, and writing it again."""

from __future__ import annotations

from collections import abc
from dataclasses import MISSING, dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar, Dict, Mapping, Tuple, Type, TypeVar

from ..errors import InvalidResponse

if TYPE_CHECKING:
    from typing_extensions import dataclass_transform
else:

    def dataclass_transform(**_):
        return lambda decorator: decorator


NUMBER = ((int, float), "a number")  # JSON has one kind of them
# annotation -> the Python types of such a value, and the words for it
_WIRE_TYPES: Mapping[str, Tuple[Any, str]] = {
    "str": (str, "a string"),
    "int": NUMBER,
    "float": NUMBER,
    "bool": (bool, "a boolean"),
    "Mapping[str, Any]": (abc.Mapping, "an object"),
    "Tuple[Any, ...]": ((list, tuple), "a list"),
    "Any": (object, "null"),  # the last, since all fits: only null is left to be named
}


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def answer(cls: Type[_M]) -> Type[_M]:
    """Make a class a frozen dataclass; `Model` has what need not be compiled for each at every start."""
    cls = dataclass(frozen=True, eq=False, repr=False)(cls)
    cls._fields = {
        item.name: (item.default is MISSING is item.default_factory, _wire_type(str(item.type)))
        for item in fields(cls)  # type: ignore[arg-type]
        if item.name != "extra"
    }
    return cls


class Model:
    """Base of the answers: frozen dataclasses that compare, hash and print by their fields, but for ``extra``."""

    _aliases: ClassVar[Mapping[str, str]] = {}  # field name -> the other name it goes by on the wire
    # name -> whether it is required, and its type on the wire; read once, since every answer is read by it
    _fields: ClassVar[Dict[str, Tuple[bool, Tuple[Any, str]]]] = {}
    extra: Mapping[str, Any]

    @classmethod
    def from_dict(cls: Type[_M], body: Mapping[str, Any]) -> _M:
        """Build the model from a decoded JSON object.

        Raises:
            InvalidResponse: ``body`` is not an object, or a required field is missing or of the wrong type.
        """
        if not isinstance(body, Mapping):
            raise InvalidResponse(
                "expected a JSON object for {}, got {}".format(cls.__name__, _json_type(body)), details=body
            )
        rest = dict(body)
        values: Dict[str, Any] = {}
        for name, (is_required, wire) in cls._fields.items():
            alias = cls._aliases.get(name)
            if alias in rest and rest.get(name) is None:  # null in one form does not hide the other
                rest[name] = rest.pop(alias)
            value = rest.get(name)
            if value is not None and fits(value, wire):
                values[name] = tuple(value) if isinstance(value, list) else value
                del rest[name]
            elif is_required:
                fault = "is {}, not {}".format(_json_type(value), wire[1]) if name in rest else "is missing"
                trace_id = body.get("trace_id")
                raise InvalidResponse(
                    "{}: required field {!r} {}".format(cls.__name__, name, fault),
                    trace_id if isinstance(trace_id, str) else None,
                    details=body,
                )
            elif value is None:
                rest.pop(name, None)
        return cls(extra=rest, **values)  # type: ignore[call-arg]  # every subclass is a dataclass

    def to_dict(self) -> Dict[str, Any]:
        """Return a dict fit for ``json.dumps``: every field, absent ones as None, and the unknown fields of the answer."""
        values = self._values()
        for name, value in values.items():
            if isinstance(value, tuple):
                values[name] = list(value)
            elif isinstance(value, Mapping):
                values[name] = dict(value)
        values.update(self.extra)
        return values

    def __eq__(self, other: object) -> bool:
        if other.__class__ is not self.__class__:
            return NotImplemented
        return self._values() == other._values()

    def __hash__(self) -> int:
        return hash(tuple(self._values().values()))

    def __repr__(self) -> str:
        shown = ", ".join("{}={!r}".format(name, value) for name, value in self._values().items())
        return "{}({})".format(type(self).__qualname__, shown)

    def _values(self) -> Dict[str, Any]:
        return {name: getattr(self, name) for name in self._fields}


_M = TypeVar("_M", bound=Model)


def fits(value: Any, wire: Tuple[Any, str]) -> bool:
    """True where a value is of one of a wire type's Python types; True and False are no numbers."""
    return isinstance(value, wire[0]) and not (wire is NUMBER and isinstance(value, bool))


def _wire_type(annotation: str) -> Tuple[Any, str]:
    optional = annotation.startswith("Optional[")
    return _WIRE_TYPES[annotation[len("Optional[") : -1] if optional else annotation]


def _json_type(value: Any) -> str:
    """Name a decoded value's JSON type for an error message."""
    return next(wire[1] for wire in _WIRE_TYPES.values() if fits(value, wire))
