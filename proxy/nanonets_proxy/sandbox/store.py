"""The sandbox's data, in bounded memory: a new entry replaces the oldest when the store is full."""

import random
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from nanonets_proxy.sandbox import fake_results

if TYPE_CHECKING:
    from nanonets_proxy.sandbox.api.docstrange import Extraction

Json = dict[str, Any]
_Value = TypeVar("_Value")

MAX_WORKFLOWS = 1_000
MAX_DOCUMENTS = 10_000
MAX_MODELS = 1_000
MAX_INFERENCES = 10_000
MAX_ORIGINAL_BYTES = 1024 * 1024
"""A larger file is only hashed; its bytes are not kept."""
MAX_ORIGINALS_BYTES = 64 * 1024 * 1024
"""The limit for all kept files together."""


@dataclass(slots=True)
class Workflow:
    """A v4 workflow. Fields and table headers are `{"id", "name"}`."""

    id: str
    description: str
    workflow_type: str
    created_at: str
    fields: list[Json] = field(default_factory=list)
    table_headers: list[Json] = field(default_factory=list)
    table_capture: bool = True

    def to_json(self) -> Json:
        return {
            "id": self.id,
            "description": self.description,
            "workflow_type": self.workflow_type,
            "fields": self.fields,
            "table_headers": self.table_headers,
            "settings": {"table_capture": self.table_capture},
            "created_at": self.created_at,
        }

    def fake_page(self, seed: str) -> Json:
        """Generates the page of a document; a workflow without fields uses default fields."""
        fields = [item["name"] for item in self.fields] or fake_results.DEFAULT_FIELDS
        headers = [item["name"] for item in self.table_headers] or fake_results.DEFAULT_TABLE_HEADERS
        return fake_results.page(seed, fields, headers if self.table_capture else ())


@dataclass(slots=True)
class Document:
    """A v4 document. `size_bytes` and `sha256` are None for a document given by URL."""

    id: str
    workflow_id: str
    name: str
    uploaded_at: str
    metadata: Any
    size_bytes: int | None
    sha256: str | None
    pages: list[Json]
    pending_polls: int
    verification_status: str = "success"
    verification_message: str = ""

    @property
    def is_ready(self) -> bool:
        return self.pending_polls == 0

    def poll(self) -> Json:
        """Returns the document for a GET. Each poll of a pending document brings it closer to ready."""
        snapshot = self.to_json()
        if not self.is_ready:
            self.pending_polls -= 1
        return snapshot

    def to_json(self) -> Json:
        return {
            "document_id": self.id,
            "workflow_id": self.workflow_id,
            "status": "success" if self.is_ready else "pending",
            "uploaded_at": self.uploaded_at,
            "metadata": self.metadata,
            "original_document_name": self.name,
            "raw_document_url": f"https://documents.sandbox.invalid/{self.id}?signature=fake",
            "verification_status": self.verification_status,
            "verification_stage": "",
            "verification_message": self.verification_message,
            "assigned_reviewers": [],
            "size": self.size_bytes,
            "sha256": self.sha256,
            "pages": self.pages if self.is_ready else [],
        }


@dataclass(slots=True)
class Model:
    """A v2 model of a family such as `OCR`."""

    id: str
    family: str
    labels: tuple[str, ...]
    trained: bool = True

    def to_json(self) -> Json:
        return {
            "model_id": self.id,
            "model_type": self.family,
            "state": 5 if self.trained else 0,
            "categories": [{"name": label, "count": 0} for label in self.labels],
        }


@dataclass(slots=True)
class Inference:
    """One page's v2 prediction. `result` is the entry of the result list once the prediction is ready."""

    model_id: str
    result: Json
    pending_polls: int

    def to_json(self) -> Json:
        if self.pending_polls == 0:
            return self.result
        return {**self.result, "message": "pending", "prediction": []}

    def poll(self) -> Json:
        """Returns the prediction for a GET, as `Document.poll` does."""
        snapshot = self.to_json()
        if self.pending_polls:
            self.pending_polls -= 1
        return snapshot


class Store:
    """All of a sandbox's data. `seed` determines the ids."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311 - ids of fake objects, no secrets
        self._originals: dict[str, bytes] = {}
        self._originals_bytes = 0
        self.workflows: dict[str, Workflow] = {}
        self.documents: dict[str, Document] = {}
        self.models: dict[str, Model] = {}
        self.inferences: dict[str, Inference] = {}
        self.extractions: dict[str, Extraction] = {}

    def new_id(self) -> str:
        return str(uuid.UUID(int=self._random.getrandbits(128), version=4))

    def add_workflow(self, workflow: Workflow) -> None:
        _add(self.workflows, workflow.id, workflow, MAX_WORKFLOWS)

    def add_document(self, document: Document, original: bytes | None) -> None:
        """Keeps the document, and its bytes if they are given."""
        _add(self.documents, document.id, document, MAX_DOCUMENTS, self._drop_original)
        if original is not None:
            self._originals[document.id] = original
            self._originals_bytes += len(original)
            while self._originals_bytes > MAX_ORIGINALS_BYTES:
                self._drop_original(next(iter(self._originals)))

    def original(self, document_id: str) -> bytes | None:
        """Returns the uploaded bytes, or None if they were not kept."""
        return self._originals.get(document_id)

    def remove_document(self, document_id: str) -> None:
        del self.documents[document_id]
        self._drop_original(document_id)

    def add_model(self, model: Model) -> None:
        _add(self.models, model.id, model, MAX_MODELS)

    def add_inference(self, page_id: str, inference: Inference) -> None:
        _add(self.inferences, page_id, inference, MAX_INFERENCES)

    def add_extraction(self, extraction: "Extraction") -> None:
        _add(self.extractions, extraction.record_id, extraction, MAX_INFERENCES)

    def _drop_original(self, document_id: str) -> None:
        self._originals_bytes -= len(self._originals.pop(document_id, b""))


def _add(
    kept: dict[str, _Value],
    key: str,
    value: _Value,
    limit: int,
    dropped: Callable[[str], None] = lambda _: None,
) -> None:
    if len(kept) >= limit:
        oldest = next(iter(kept))
        del kept[oldest]
        dropped(oldest)
    kept[key] = value
