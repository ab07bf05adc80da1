"""What all models share: reading a decoded JSON object by the dataclass's own annotations, and writing it again."""

from __future__ import annotations

from collections import abc
from dataclasses import MISSING, field, fields
from typing import Any, Callable, ClassVar, Dict, List, Mapping, Tuple, Type, TypeVar, get_type_hints

from ..errors import InvalidResponse

_M = TypeVar("_M", bound="Model")


# What one field demands of the wire: its name, whether it must be there, and its type with the words for it.
_Spec = Tuple[str, bool, Callable[[Any], bool], str]


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


_NUMBER = (_is_number, "a number")  # JSON has one kind of them
_WIRE_TYPES: Mapping[Any, Tuple[Callable[[Any], bool], str]] = {
    str: (lambda value: isinstance(value, str), "a string"),
    int: _NUMBER,
    float: _NUMBER,
    bool: (lambda value: isinstance(value, bool), "true or false"),
    abc.Mapping: (lambda value: isinstance(value, Mapping), "an object"),
    tuple: (lambda value: isinstance(value, (list, tuple)), "a list"),
    Any: (lambda value: True, "anything"),
}


def extra_fields() -> Any:
    """Declare the field for what an answer has beyond the known fields."""
    return field(default_factory=dict, repr=False, compare=False)


class Model:
    """Base of the answers: frozen dataclasses that compare, hash and print by their fields, but for ``extra``.

    It brings ``==`` and ``repr`` itself (``eq=False, repr=False``): what a dataclass generates is compiled at every start.
    """

    _aliases: ClassVar[Mapping[str, str]] = {}  # field name -> the other name it goes by on the wire
    _specs: ClassVar[Dict[type, List[_Spec]]] = {}
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
        for name, required, fits, wanted in cls._spec():
            alias = cls._aliases.get(name)
            if alias in rest and rest.get(name) is None:  # null in one form does not hide the other
                rest[name] = rest.pop(alias)
            value = rest.get(name)
            if value is not None and fits(value):
                values[name] = tuple(value) if isinstance(value, list) else value
                del rest[name]
            elif required:
                fault = "is {}, not {}".format(_json_type(value), wanted) if name in rest else "is missing"
                trace_id = body.get("trace_id")
                raise InvalidResponse(
                    "{}: required field {!r} {}".format(cls.__name__, name, fault),
                    trace_id if isinstance(trace_id, str) else None,
                    details=body,
                )
            elif value is None:
                rest.pop(name, None)
        return cls(extra=rest, **values)  # type: ignore[call-arg]  # every subclass is a dataclass with `extra`

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
        return {name: getattr(self, name) for name, _, _, _ in self._spec()}

    @classmethod
    def _spec(cls) -> List[_Spec]:
        spec = cls._specs.get(cls)
        if spec is None:
            hints = get_type_hints(cls)
            spec = cls._specs[cls] = [
                (
                    item.name,
                    item.default is MISSING and item.default_factory is MISSING,
                    *_wire_type(hints[item.name]),
                )
                for item in fields(cls)  # type: ignore[arg-type]  # every subclass is a dataclass
                if item.name != "extra"
            ]
        return spec


def _wire_type(hint: Any) -> Tuple[Callable[[Any], bool], str]:
    """Return what a field's annotation demands of a value that is not null."""
    arguments = getattr(hint, "__args__", None) or ()
    if type(None) in arguments:  # Optional[X], or X | None
        (hint,) = [argument for argument in arguments if argument is not type(None)]
    return _WIRE_TYPES[getattr(hint, "__origin__", None) or hint]


def _json_type(value: Any) -> str:
    """Name a decoded value's JSON type for an error message."""
    if value is None:
        return "null"
    for kind, (fits, words) in _WIRE_TYPES.items():
        if kind is not Any and fits(value):
            return "a boolean" if kind is bool else words
    return "a list"
