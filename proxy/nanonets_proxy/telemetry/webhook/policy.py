"""Where alerts go, as documents."""

from dataclasses import dataclass
from pathlib import Path

from nanonets_proxy.core.net.webhook_url import WebhookUrl


@dataclass(frozen=True, slots=True)
class WebhookPolicy:
    """Where alerts go. `secret_file` holds the key of the signatures; None: documents are not signed."""

    url: WebhookUrl
    secret_file: Path | None
