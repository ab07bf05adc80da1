"""JSON that is JSON, whatever it is made of: what has no number there is null."""

from __future__ import annotations

import json
import math
from typing import Any, Optional


def dumps(value: Any, *, indent: Optional[int] = None, ascii: bool = False) -> str:
    """Return ``value`` as JSON; NaN and the infinities, which a service's answer may hold, are null."""
    try:
        return json.dumps(value, indent=indent, ensure_ascii=ascii, allow_nan=False)
    except ValueError:
        return json.dumps(_finite(value), indent=indent, ensure_ascii=ascii, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, (list, tuple)) else value
