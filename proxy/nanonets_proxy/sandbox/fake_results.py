"""Generates the results of documents from a hash of their content.

Equal bytes give equal results, so that tests can predict them.
"""

import random
import uuid
from collections.abc import Sequence
from typing import Any

PAGE_WIDTH_PX, PAGE_HEIGHT_PX = 1700, 2200
DEFAULT_FIELDS = ("invoice_number", "invoice_date", "total_amount")
DEFAULT_TABLE_HEADERS = ("description", "quantity", "price")

_WORDS = ("amber", "birch", "cobalt", "delta", "ember", "fjord", "granite", "harbour", "indigo", "juniper")
_ROWS = 2
_ROW_HEIGHT_PX = 40


class _FakeData:
    """A source of pseudo-random values. `seed` is a hexadecimal hash."""

    def __init__(self, seed: str) -> None:
        self._random = random.Random(seed)  # noqa: S311 - fake text, no secret

    def identifier(self) -> str:
        return str(uuid.UUID(int=self._random.getrandbits(128), version=4))

    def confidence(self) -> float:
        return round(self._random.uniform(0.8, 1), 2)

    def value(self, name: str) -> str:
        """Returns a value that suits the field's name."""
        if "date" in name:
            return f"2024-{self._random.randint(1, 12):02}-{self._random.randint(1, 28):02}"
        if any(word in name for word in ("amount", "total", "price", "tax", "cost")):
            return f"{self._random.uniform(1, 5000):.2f}"
        if "quantity" in name or "count" in name:
            return str(self._random.randint(1, 20))
        if "number" in name or name.endswith("id"):
            return f"NO-{self._random.randint(10_000, 99_999)}"
        return " ".join(self._random.sample(_WORDS, 2))


def _box(row: int, col: int = 0) -> list[int]:
    """Returns the bounding box of a line of text, [x1, y1, x2, y2], in pixels."""
    left, top = 100 + 400 * col, 100 + _ROW_HEIGHT_PX * row
    return [left, top, left + 300, top + _ROW_HEIGHT_PX - 10]


def page(seed: str, fields: Sequence[str], table_headers: Sequence[str]) -> dict[str, Any]:
    """Returns the single page of a v4 document: a value for each field, and a table if there are table headers."""
    data = _FakeData(seed)
    page_id = data.identifier()
    values = {
        name: [
            {
                "field_data_id": data.identifier(),
                "value": data.value(name),
                "confidence": data.confidence(),
                "bbox": _box(row),
                "verification_status": "success",
                "verification_message": "",
                "is_moderated": False,
            }
        ]
        for row, name in enumerate(fields)
    }
    cells = [
        {
            "cell_id": data.identifier(),
            "row": row,
            "col": col,
            "header": header,
            "text": data.value(header),
            "bbox": _box(len(fields) + row, col),
            "verification_status": "success",
            "verification_message": "",
            "is_moderated": False,
        }
        for row in range(_ROWS)
        for col, header in enumerate(table_headers)
    ]
    table = {"table_id": data.identifier(), "bbox": [100, 100, 1600, 900], "cells": cells}
    return {
        "page_id": page_id,
        "page_number": 1,
        # Nanonets returns signed URLs on other hosts. RFC 2606 §2: `.invalid` never resolves.
        "image_url": f"https://images.sandbox.invalid/{page_id}.png?signature=fake",
        "data": {"fields": values, "tables": [table] if table_headers else []},
    }


def boxes(seed: str, labels: Sequence[str]) -> list[dict[str, Any]]:
    """Returns the predictions of a v2 OCR or object detection model."""
    data = _FakeData(seed)
    predictions = []
    for row, label in enumerate(labels):
        x_min, y_min, x_max, y_max = _box(row)
        predictions.append(
            {
                "id": data.identifier(),
                "label": label,
                "xmin": x_min,
                "ymin": y_min,
                "xmax": x_max,
                "ymax": y_max,
                "score": data.confidence(),
                "ocr_text": data.value(label),
                "type": "field",
                "status": "correctly_predicted",
                "page_no": 0,
            }
        )
    return predictions


def categories(seed: str, labels: Sequence[str]) -> list[dict[str, Any]]:
    """Returns the probabilities of a v2 image classification model, highest first."""
    data = _FakeData(seed)
    weights = [(data.confidence(), label) for label in labels]
    total = sum(weight for weight, _ in weights)
    return [
        {"label": label, "probability": round(weight / total, 4)} for weight, label in sorted(weights, reverse=True)
    ]


def text(seed: str) -> str:
    """Returns the full text of a page."""
    data = _FakeData(seed)
    return "\n".join(data.value("line") for _ in range(3))
