"""Reading a JSON body field by field, and saying everything wrong with it at once, in FastAPI's 422 form."""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, Optional, Tuple

from .messages import Refusal, Reply, Request, refusal

Problems = List[Dict[str, Any]]


class Fields:
    """One object of a request body.

    Readers return the value or a default, and note what is wrong; ``check`` then raises one 422 that lists it
    all as ``{"loc": [...], "msg": ..., "type": ...}``. Unknown fields are ignored, null counts as absent
    where absent is allowed. ``values`` is the object itself.
    """

    def __init__(self, values: Mapping[str, Any], location: Tuple[str, ...], problems: Problems) -> None:
        self.values = values
        self._location = location
        self._problems = problems

    @classmethod
    def of_body(cls, request: Request, *, empty_allowed: bool = False) -> Fields:
        """Read the request's body, a JSON object.

        Raises Refusal: 400 when it is not JSON, 422 when it is no object or not sent as JSON (a FastAPI
        service does not read a body of another content type).
        """
        problems: Problems = []
        values: Any = {}
        if not request.body:
            if not empty_allowed:
                problems.append(_problem(("body",), "Field required", "missing"))
        elif not _is_json(request.headers.get("content-type")):
            problems.append(
                _problem(("body",), "Content-Type must be application/json", "model_attributes_type")
            )
        else:
            try:
                values = request.json
            except ValueError as error:
                raise refusal(400, "INVALID_JSON", "the body is not JSON: {}".format(error)) from None
            if not isinstance(values, dict):
                problems.append(_problem(("body",), "Input should be an object", "model_attributes_type"))
                values = {}
        fields = cls(values, ("body",), problems)
        if problems:
            fields.check()
        return fields

    def check(self) -> None:
        """Raise the 422 that lists every problem found so far."""
        raise_for(self._problems)

    def text(self, name: str, *, min_length: int = 0) -> str:
        """A required string."""
        if self.values.get(name) is None:
            missing = name not in self.values
            self._note(name, *(("Field required", "missing") if missing else _WRONG_STRING))
            return ""
        return self.optional_text(name, min_length=min_length) or ""

    def optional_text(self, name: str, *, min_length: int = 0) -> Optional[str]:
        """A string, or None when absent."""
        value = self.values.get(name)
        if value is None:
            return None
        if not isinstance(value, str):
            self._note(name, *_WRONG_STRING)
            return None
        if len(value) < min_length:
            self._note(
                name, "String should have at least {} character".format(min_length), "string_too_short"
            )
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:  # a lone surrogate, "\ud800": JSON can spell it, UTF-8 and SQLite cannot
            self._note(name, "Input should be valid Unicode", "string_unicode")
        return value

    def object(self, name: str) -> Dict[str, Any]:
        """An object, empty when absent."""
        value = self.values.get(name)
        if value is None:
            return {}
        if not isinstance(value, dict):
            self._note(name, "Input should be an object", "dict_type")
            return {}
        return value

    def fields(self, name: str) -> Fields:
        """An object to be read further, empty when absent."""
        return Fields(self.object(name), self._location + (name,), self._problems)

    def strings(self, name: str, default: List[str]) -> List[str]:
        """A list of strings."""
        value = self.values.get(name)
        if value is None:
            return default
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            self._note(name, "Input should be a list of strings", "list_type")
            return default
        return value

    def positive_int(self, name: str) -> Optional[int]:
        """An integer above zero, or None when absent."""
        value = self.values.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value // 1:
            self._note(name, "Input should be a valid integer", "int_type")
            return None
        if value <= 0:
            self._note(name, "Input should be greater than 0", "greater_than")
            return None
        return int(value)

    def flag(self, name: str) -> bool:
        """A boolean, False when absent."""
        value = self.values.get(name)
        if value is not None and not isinstance(value, bool):
            self._note(name, "Input should be a valid boolean", "bool_type")
        return bool(value)

    def _note(self, name: str, message: str, kind: str) -> None:
        self._problems.append(_problem(self._location + (name,), message, kind))


_WRONG_STRING = ("Input should be a valid string", "string_type")


def missing_headers(request: Request, names: List[str]) -> None:
    """Raise a 422 that names every header of ``names`` the request lacks or leaves empty."""
    raise_for(
        [
            _problem(("header", name.lower()), "Field required", "missing")
            for name in names
            if not request.headers.get(name)
        ]
    )


def raise_for(problems: Problems) -> None:
    """Raise the 422 for ``problems``, unless there is none."""
    if problems:
        raise Refusal(Reply(422, {"detail": problems}))


def _problem(location: Tuple[str, ...], message: str, kind: str) -> Dict[str, Any]:
    # FastAPI adds the offending input; left out here, since it may be a secret.
    return {"loc": list(location), "msg": message, "type": kind}


def _is_json(content_type: Optional[str]) -> bool:
    if content_type is None:
        return True
    kind = content_type.partition(";")[0].strip().lower()
    return kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))
