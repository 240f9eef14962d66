"""The sandbox's own web page: one HTML document that loads nothing."""

from collections.abc import Sequence
from html import escape
from string import Template

from nanonets_proxy.sandbox.policy import SandboxPolicy
from nanonets_proxy.sandbox.state import Operation

SECURITY_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'"

_PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Nanonets sandbox</title>
<style>
:root { color-scheme: light dark; --line: color-mix(in srgb, currentColor 18%, transparent); }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2.5rem auto; padding: 0 1rem; }
h1 { line-height: 1.2; margin-bottom: .25rem; }
h2 { margin-top: 2.25rem; }
code, pre { font: .875rem/1.5 ui-monospace, monospace; }
pre { border: 1px solid var(--line); border-radius: .5rem; padding: 1rem; overflow-x: auto; }
.table { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .3rem .75rem .3rem 0;
  border-bottom: 1px solid var(--line); }
th { font-weight: 600; width: 65%; overflow-wrap: anywhere; }
</style>
</head>
<body>
<h1>Nanonets sandbox</h1>
<p>A simulated Nanonets API for tests. The sandbox does not read documents: it generates each result from a hash of
the uploaded bytes, so equal files give equal results. It keeps all data in memory only.</p>

<h2>Try it</h2>
<pre><code>$curl</code></pre>

<h2>Settings</h2>
<div class="table"><table>$settings</table></div>

<h2>API operations</h2>
<p>A slash at the end of a path makes no difference. <code>HEAD</code> works wherever <code>GET</code> does.</p>
<div class="table"><table>$operations</table></div>

<h2>Control</h2>
<div class="table"><table>
<tr><th><code>GET /sandbox/stats</code></th><td>counts the requests of each operation: admitted, refused (429),
unauthorized (401), failed (503), in flight, distinct</td></tr>
<tr><th><code>POST /sandbox/reset</code></th><td>deletes all documents and counters</td></tr>
<tr><th><code>POST /sandbox/keys</code></th><td>replaces the accepted keys:
<code>{"keys": ["my-key"], "grace_s": 0}</code>; previous keys stay valid for <code>grace_s</code> seconds</td></tr>
<tr><th><code>POST /sandbox/limit</code></th><td>replaces the rate limit, and begins to count anew:
<code>{"limit": "20/60s"}</code> or <code>{"limit": "none"}</code></td></tr>
</table></div>
<p>These operations and this page $needs.</p>
</body>
</html>
""")

_EXPORT_KEY = "export KEY=...   # one of the sandbox's keys, sent as the user name with an empty password\n"
_SEND_KEY = '-u "$KEY:" '
_DOCSTRANGE = '\ncurl -H "Authorization: Bearer $KEY" {base}/extract -F file=@invoice.pdf   # DocStrange'
_CURL = """\
curl {key}{base}/api/v4/workflows
curl {key}{base}/api/v4/workflows \\
  -H 'Content-Type: application/json' -d '{{"description": "Invoices"}}'
curl {key}{base}/api/v4/workflows/WORKFLOW_ID/documents -F file=@invoice.pdf -F async=true
curl {key}'{base}/api/v2/OCR/Model/any-id/LabelFile/?async=false' -F file=@invoice.pdf
curl {base}/sandbox/stats
curl {base}/sandbox/requests"""


def _settings(policy: SandboxPolicy) -> list[tuple[str, str]]:
    keys = len(policy.api_keys)
    rows = [("Accepted keys", str(keys) if keys else "none: every API request gets a 401")]
    if policy.limit is None:
        rows.append(("Rate limit", "none"))
    else:
        rows += [
            ("Rate limit", f"{policy.limit} ({policy.limit_kind})"),
            ("Limited requests", policy.limit_scope),
            ("Retry hint of a 429", policy.hint),
        ]
    return [
        *rows,
        ("Latency", f"{policy.latency_s:g} s"),
        ("Share of requests that fail with 503", f"{policy.failure_rate:.1%}"),
        ("Faults of the first requests", ", ".join(policy.faults) or "none"),
        ("Polls until an asynchronous document is ready", str(policy.pending_polls)),
        ("ETags", "yes" if policy.etags else "no"),
        ("Largest body", f"{policy.max_body_bytes:,} bytes"),
    ]


def _rows(rows: list[tuple[str, str]], *, code: bool) -> str:
    head = "<code>{}</code>" if code else "{}"
    return "\n".join(
        f"<tr><th>{head.format(escape(left))}</th><td>{escape(right)}</td></tr>" for left, right in rows
    )


def _examples(base: str, *, needs_key: bool) -> str:
    if needs_key:
        return _EXPORT_KEY + _CURL.format(base=base, key=_SEND_KEY) + _DOCSTRANGE.format(base=base)
    return _CURL.format(base=base, key="")


def render(policy: SandboxPolicy, operations: Sequence[Operation], *, base: str, needs_key: bool) -> str:
    """Returns the page. `base` has the request's Host, hence untrusted text. `needs_key`: callers send a key."""
    return _PAGE.substitute(
        curl=escape(_examples(base, needs_key=needs_key), quote=False),
        settings=_rows(_settings(policy), code=False),
        operations=_rows([(f"{item.method} {item.path}", item.summary) for item in operations], code=True),
        needs="need no key" if needs_key else "need no key, and the proxy adds it to all others",
    )
